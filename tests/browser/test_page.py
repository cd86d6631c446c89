import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossfake.datasets.decode import register_heif

Visit = Callable[..., Any]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SIZES = ((1440, 900), (768, 1024), (360, 740))


def _send(page: Any, file: Path, tab: str = "analyse") -> None:
    page.set_input_files(f"#cf-{tab} input[name][type=file]", file)


def _analysed(page: Any, file: Path) -> None:
    _send(page, file)
    page.wait_for_selector(f"#cf-result >> text={file.name}")
    page.wait_for_selector("#cf-files a")


def _open(page: Any, tab: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=tab).click()
    page.wait_for_selector(f"nav [aria-current]:text-is('{tab}')")
    page.wait_for_load_state()


def _overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def _violations(page: Any) -> list[str]:
    """What axe finds that is serious, or worse."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes']][:3]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_a_picture_gets_a_verdict_reasons_stability_and_reports(visit: Visit, faces: Path) -> None:
    page = visit()
    _analysed(page, faces / "face-0.png")
    verdict = page.locator("#cf-result h2").inner_text().strip().lower()
    assert verdict in ("real", "fake", "uncertain")
    assert page.locator("#cf-result h2 svg").count() == 1  # a shape beside the word
    said = page.locator("#cf-result").inner_text()
    assert "This is not proof" in said and "in 100" in said and "100%" not in said
    assert page.locator(".cf-detectors tbody tr").count() >= 2
    over = page.locator(".cf-over")
    page.get_by_label("Heat map", exact=True).fill("20")
    assert over.evaluate("each => each.style.opacity") == "0.2"
    assert page.locator(".cf-strip :is(circle, path[transform])").count() >= 5
    assert "Most alike" not in page.locator("main").inner_text()
    with page.expect_download() as waited:
        page.get_by_text("Report as HTML").click()
    assert waited.value.suggested_filename == "face-0-report.html"
    assert "face-0.png" in Path(waited.value.path()).read_text()
    with page.expect_download() as waited:
        page.get_by_text("Report as PDF").click()
    assert waited.value.suggested_filename == "face-0-report.pdf"
    assert Path(waited.value.path()).read_bytes().startswith(b"%PDF")
    link = page.get_by_text("Figures as JSON").evaluate("each => each.href")
    answer = page.request.get(link)
    assert answer.json()["name"] == "face-0.png" and answer.headers["cache-control"] == "no-store"
    address = page.url
    page.reload()  # what is there is found again
    assert page.url == address and page.locator("#cf-result h2").inner_text().strip().lower() == verdict
    assert page.evaluate("Object.keys(localStorage).filter((key) => key !== 'crossfake.history')") == []


def test_without_javascript_a_picture_is_analysed(visit: Visit, faces: Path) -> None:
    page = visit(java_script_enabled=False)
    _send(page, faces / "face-0.png")
    page.get_by_role("button", name="Analyse").click()
    page.wait_for_selector("#cf-files a")  # the page loads itself again until then
    assert (
        page.locator("#cf-result h2").count() == 1
        and page.locator(".cf-strip :is(circle, path[transform])").count() >= 5
    )
    with page.expect_download() as waited:
        page.get_by_text("Report as HTML").click()
    assert waited.value.suggested_filename == "face-0-report.html"


def test_every_kind_of_picture_is_taken_and_shown(visit: Visit, faces: Path, tmp_path: Path) -> None:
    kinds = ["JPEG", "WEBP", "GIF", "TIFF", *["HEIF"] * register_heif()]
    page = visit()
    for kind in kinds:
        name = f"face.{kind.lower()}"
        Image.open(faces / "face-0.png").save(tmp_path / name, kind)
        _send(page, tmp_path / name)
        page.wait_for_selector(f"#cf-result >> text={name}")
        assert page.evaluate("document.querySelector('.cf-picture img').naturalWidth") == 96


@pytest.mark.parametrize(
    ("name", "said"), [("letter.jpg", "no file of a known kind"), ("too-large.png", "pixels")]
)
def test_what_is_not_taken_is_said_in_words(name: str, said: str, visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / name)
    problem = page.wait_for_selector("#cf-status .cf-problem[role=alert]").inner_text()
    assert said in problem and "Traceback" not in problem
    assert page.locator("#cf-result h2").count() == 0


def test_a_picture_of_fifty_megapixels_is_judged_and_the_rest_cancelled(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "large.jpg")
    page.wait_for_selector("#cf-result h2")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("#cf-status >> text=Stopped")
    assert page.get_by_role("button", name="Cancel").count() == 0
    assert "10000 × 5000" in page.locator("#cf-result").inner_text()
    assert page.evaluate("document.querySelector('.cf-picture img').naturalWidth") <= 1280


def test_a_video_is_a_curve_and_a_moment_of_it_its_frame(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "film.mp4")
    page.wait_for_selector(".cf-time .curve", state="attached")
    page.get_by_label("Moment").fill("5")
    page.locator(".cf-time :is(circle, path[transform])").first.click(force=True)
    assert page.get_by_label("Moment").input_value() == "0"
    frame = page.locator(".cf-moment:not([hidden]) .cf-full")
    frame.evaluate("each => each.decode()")
    assert frame.evaluate("each => each.naturalWidth") == 96
    page.get_by_label("Moment").press("ArrowRight")
    assert page.locator(".cf-moment:not([hidden])").count() == 1
    assert "frame" in page.get_by_label("Moment").get_attribute("aria-valuetext")


@pytest.mark.parametrize("width", [1440, 360])
def test_no_icon_is_larger_than_its_line(width: int, visit: Visit, faces: Path) -> None:
    page = visit(viewport={"width": width, "height": 800})
    for name, ready in (
        ("film.mp4", ".cf-time .curve"),
        ("face-0.png", "#cf-steady .cf-strip"),
        ("letter.jpg", ".cf-problem"),
    ):
        _send(page, faces / name)
        page.wait_for_selector(ready, state="attached")
        icons = page.evaluate(_ICONS)
        assert icons and not [each for each in icons if each["icon"] > each["line"]], (name, icons)
        if name == "film.mp4":
            assert page.locator(".cf-time .cf-chart svg").bounding_box()["width"] > 0.8 * min(width, 832)
        assert _overflow(page) <= 0


def test_two_visitors_never_see_each_other(visit: Visit, faces: Path, folder: Path) -> None:
    first, second = visit(), visit()
    _send(first, faces / "face-1.png")
    _send(second, faces / "face-2.png")
    for page, own, other in ((first, "face-1", "face-2"), (second, "face-2", "face-1")):
        page.wait_for_selector("#cf-files a")
        said = page.locator("body").inner_text()
        assert own in said and other not in said
    link = first.get_by_text("Figures as JSON").evaluate("each => each.href")
    assert first.request.get(link).status == 200 and second.request.get(link).status == 404
    first.goto("about:blank")  # left: what was sent is deleted a moment later
    for _ in range(300):
        if first.request.get(link).status == 404:
            break
        second.wait_for_timeout(100)
    else:
        pytest.fail("the visit is over, and its result is still there")
    assert second.request.get(second.url).status == 200
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left and not any("face-" in str(path) for path in left)


def test_a_zip_becomes_a_table_that_sorts_and_whose_rows_open(
    visit: Visit, faces: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "batch.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("face-0.png", "face-1.png", "letter.jpg"):
            out.write(faces / name, name)
        out.write(faces / "face-2.png", "<b>${7*7}{{8}} *x* _y_.png")
    page = visit()
    _open(page, "Batch")
    _send(page, archive, "batch")
    page.wait_for_selector("#cf-result a")
    rows = page.locator(".cf-table tbody tr")
    assert rows.count() == 4 and page.locator(".cf-table img").count() == 3
    assert "${7*7}{{8}} *x* _y_" in page.locator(".cf-table").inner_text()  # names are text, never markup
    assert page.locator(".cf-table :is(b, em)").count() == 0
    page.get_by_role("button", name="File", exact=True).click()
    page.get_by_role("button", name="File", exact=True).click()
    assert [row.split("\t")[1] for row in rows.all_inner_texts()][0].strip() == "letter.jpg"
    assert page.locator("th[aria-sort=descending]").count() == 1
    links = page.locator("#cf-result a").evaluate_all("all => all.map((each) => each.href)")
    assert len(page.request.get(links[0]).text().splitlines()) == 5
    assert [each["name"] for each in page.request.get(links[1]).json()][:2] == ["face-0.png", "face-1.png"]
    assert not _violations(page)
    with page.context.expect_page() as waited:
        page.get_by_role("button", name="face-1.png").click()
    opened = waited.value
    opened.wait_for_selector("#cf-files a")
    assert "face-1.png" in opened.locator("#cf-result").inner_text()
    assert rows.count() == 4  # the table is still there


def test_two_pictures_are_compared(visit: Visit, faces: Path) -> None:
    page = visit()
    _open(page, "Compare")
    for number in (0, 1):
        page.locator("#cf-compare input").nth(number).set_input_files(faces / f"face-{number}.png")
    page.wait_for_selector("#cf-result .cf-compare")
    assert page.locator("#cf-result figure").count() == 4
    page.locator("[data-cf=split]").fill("10")
    assert page.locator(".cf-compare").evaluate("each => each.style.getPropertyValue('--split')") == "10%"
    assert not _violations(page)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_all_is_shown_legibly_without_scrolling_sideways(
    size: tuple[int, int], visit: Visit, faces: Path
) -> None:
    page = visit(viewport={"width": size[0], "height": size[1]})

    def check(contrast: bool = False) -> None:
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            assert _overflow(page) <= 0 and not _violations(page), scheme
            assert not contrast or not page.evaluate(_CONTRAST), scheme

    check()
    _analysed(page, faces / "face-0.png")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    check(contrast=True)
    _send(page, faces / "film.mp4")
    page.wait_for_selector(".cf-time .curve", state="attached")
    check()
    for tab in ("Compare", "Batch"):
        _open(page, tab)
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            assert _overflow(page) <= 0, (tab, scheme)


def test_the_keyboard_is_enough(visit: Visit, faces: Path) -> None:
    page = visit()
    for _ in range(12):  # to the upload
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#cf-analyse input')"):
            break
    assert page.evaluate("document.activeElement.matches('#cf-analyse input')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") != "0px"
    with page.expect_file_chooser() as waited:
        page.keyboard.press("Space")
    waited.value.set_files(faces / "face-0.png")
    page.wait_for_selector("#cf-files a")
    seen = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("(document.activeElement.dataset.cf || document.activeElement.innerText).trim()")
        )
        if page.evaluate("document.activeElement.dataset.cf") == "heat":
            before = page.evaluate("document.activeElement.value")
            page.keyboard.press("ArrowRight")
            assert page.evaluate("document.activeElement.value") != before
    assert {"heat", "magnify", "Report as HTML", "Report as PDF", "TinEye"} <= seen
    page.get_by_role("button", name="Magnify").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('.cf-zoomed')")
    page.locator(".cf-zoomed img").evaluate("each => each.decode()")
    before = page.evaluate("document.activeElement.scrollTop")
    page.keyboard.press("ArrowDown")
    for _ in range(50):
        if page.evaluate("document.activeElement.scrollTop") > before:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the picture does not move")


def test_a_box_is_drawn_and_judged_alone(visit: Visit, faces: Path) -> None:
    page = visit()
    _analysed(page, faces / "face-0.png")
    page.get_by_text("Was a face missed?").click()
    box = page.locator(".cf-picture").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    page.mouse.up()
    assert abs(float(page.get_by_label("From the left").input_value()) - 25) < 2
    assert abs(float(page.get_by_label("Height").input_value()) - 25) < 2
    assert page.locator(".cf-drawn rect").count() == 1
    page.get_by_role("button", name="Judge this part").click()
    page.wait_for_selector("#cf-result >> text=part of face-0.png")


def test_what_was_looked_at_is_remembered_here_alone(visit: Visit, faces: Path) -> None:
    page = visit()
    _analysed(page, faces / "face-0.png")
    _analysed(page, faces / "face-1.png")
    items = page.locator("#cf-history li")
    assert items.count() == 2 and items.first.inner_text().startswith("face-1.png: ")
    kept = json.loads(page.evaluate("localStorage.getItem('crossfake.history')"))
    assert set(kept[0]) == {"name", "verdict", "when", "sha256"}
    assert visit().locator("#cf-history li").count() == 0
    page.get_by_role("button", name="Forget them").click()
    assert items.count() == 0 and page.evaluate("localStorage.length") == 0


def test_links_to_searches_send_nothing_by_themselves(visit: Visit, faces: Path) -> None:
    page = visit()  # which fails on any request to elsewhere
    _analysed(page, faces / "face-0.png")
    links = page.locator("#cf-files a[target=_blank]")
    assert links.count() == 4
    for link in links.all():
        assert link.get_attribute("href").startswith("https://") and "?" not in link.get_attribute("href")
        assert {"noopener", "noreferrer"} <= set(link.get_attribute("rel").split())


def test_every_control_has_a_name(visit: Visit, faces: Path) -> None:
    page = visit()
    _analysed(page, faces / "face-0.png")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a[href], iframe')]
        .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden=true]'))
        .filter((e) => !(e.innerText || '').trim() && !e.getAttribute('aria-label') && !e.title
                       && !(e.labels && e.labels.length))
        .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert not nameless
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("#cf-status[role=status][aria-live=polite]").count() == 1


def test_pasted_and_dropped_pictures_are_analysed(visit: Visit, faces: Path) -> None:
    page = visit()
    for name, event in (
        ("pasted.png", 'new ClipboardEvent("paste", {clipboardData: data, bubbles: true})'),
        ("dropped.png", 'new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})'),
    ):
        page.evaluate(
            f"""async (bytes) => {{
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "{name}", {{type: "image/png"}}));
              document.body.dispatchEvent({event});
            }}""",
            list((faces / "face-2.png").read_bytes()),
        )
        page.wait_for_selector(f"#cf-result >> text={name}")


def test_the_api_can_be_tried_from_its_description(visit: Visit, address: str, faces: Path) -> None:
    page = visit()
    page.goto(f"{address}api/v1/docs")
    page.get_by_text("/api/v1/analyze", exact=True).click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("input[type=file]").set_input_files(faces / "face-0.png")
    page.get_by_role("button", name="Execute").click()
    page.wait_for_selector(".live-responses-table .response-col_status >> text=200")
    with contextlib.suppress(AssertionError):  # the shown answer may be folded
        assert "face-0.png" in page.locator(".live-responses-table").inner_text()


# Of each icon that can be seen its larger side, and the height of a line of the text beside it
_ICONS = """() => [...document.querySelectorAll("svg.cf-shape")].filter((e) => e.checkVisibility()).map((e) => {
  const box = e.getBoundingClientRect(), style = getComputedStyle(e.parentElement);
  const line = parseFloat(style.lineHeight) || 1.5 * parseFloat(style.fontSize);
  return {icon: Math.max(box.width, box.height), line, where: e.parentElement.className};
})"""

# Text whose colour is less than 4.5 to 1 against what lies behind it (WCAG 2.2, 1.4.3)
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return [255, 255, 255]; };
  const weak = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("[aria-hidden=true], .cf-hidden, svg")) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${ratio.toFixed(2)} ${e.className} ${e.textContent.trim().slice(0, 40)}`);
  }
  return weak;
}"""
