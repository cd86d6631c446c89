import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossfake.datasets.decode import register_heif

Visit = Callable[..., Any]


def _send(page: Any, file: Path, tab: str = "analyse") -> None:
    page.set_input_files(f"#cf-{tab}-upload input[type=file]", file)


def _open(page: Any, tab: str) -> None:
    heading = page.get_by_role("tab", name=tab)
    if not heading.count():
        page.get_by_label("More tabs").click()
        heading = page.locator(".overflow-dropdown button", has_text=tab)
    heading.click()


def _overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_a_picture_gets_a_verdict_reasons_stability_and_reports(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "face-0.png")
    page.wait_for_selector("#cf-analyse-files a")
    verdict = page.locator("#cf-analyse-result h2").inner_text().strip().lower()
    assert verdict in ("real", "fake", "uncertain")
    assert page.locator("#cf-analyse-result h2 svg").count() == 1  # a shape beside the word
    said = page.locator("#cf-analyse-result").inner_text()
    assert "This is not proof" in said and "in 100" in said and "100%" not in said
    assert page.locator(".cf-detectors tbody tr").count() == 3  # two detectors and both together
    over = page.locator(".cf-over")
    page.get_by_label("Heat map", exact=True).fill("20")
    assert over.evaluate("each => each.style.opacity") == "0.2"
    assert page.locator(".cf-strip .cf-mark").count() >= 5
    with page.expect_download() as waited:
        page.get_by_text("Report as HTML").click()
    assert "face-0.png" in Path(waited.value.path()).read_text()
    with page.expect_download() as waited:
        page.get_by_text("Report as PDF").click()
    assert Path(waited.value.path()).read_bytes().startswith(b"%PDF")
    link = page.locator("#cf-analyse-files a").last.evaluate("each => each.href")
    answer = page.request.get(link)
    assert answer.json()["name"] == "face-0.png" and answer.headers["cache-control"] == "no-store"
    _send(page, faces / "face-1.png")  # the former case is gone
    page.wait_for_selector("#cf-analyse-result >> text=face-1.png")
    assert page.request.get(link).status == 404


def test_every_kind_of_picture_is_taken_and_shown(visit: Visit, faces: Path, tmp_path: Path) -> None:
    kinds = ["JPEG", "WEBP", "GIF", "TIFF", *["HEIF"] * register_heif()]
    page = visit()
    for kind in kinds:
        name = f"face.{kind.lower()}"
        Image.open(faces / "face-0.png").save(tmp_path / name, kind)
        _send(page, tmp_path / name)
        page.wait_for_selector(f"#cf-analyse-result >> text={name}")
        assert page.evaluate("document.querySelector('.cf-picture img').naturalWidth") == 96


@pytest.mark.parametrize(
    ("name", "said"), [("letter.jpg", "no file of a known kind"), ("too-large.png", "pixels")]
)
def test_what_is_not_taken_is_said_in_words(name: str, said: str, visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / name)
    problem = page.wait_for_selector("#cf-analyse-status .cf-problem[role=alert]").inner_text()
    assert said in problem and "Traceback" not in problem
    assert page.locator("#cf-analyse-result h2").count() == 0


def test_a_picture_of_fifty_megapixels_is_judged_and_the_rest_cancelled(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "large.jpg")
    page.wait_for_selector("#cf-analyse-result h2")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("#cf-analyse-status >> text=Stopped")
    assert "10000 × 5000" in page.locator("#cf-analyse-result").inner_text()
    assert page.evaluate("document.querySelector('.cf-picture img').naturalWidth") <= 1280


def test_a_video_is_a_curve_and_a_moment_of_it_its_frame(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "film.mp4")
    page.wait_for_selector(".cf-time .cf-curve", state="attached")
    marks = page.locator(".cf-time [data-at]")
    marks.first.click(force=True)
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
        ("film.mp4", ".cf-time .cf-curve"),
        ("face-0.png", "#cf-analyse-steady .cf-strip"),
        ("letter.jpg", ".cf-problem"),
    ):
        _send(page, faces / name)
        page.wait_for_selector(ready, state="attached")
        icons = page.evaluate(_ICONS)
        assert icons and not [each for each in icons if each["icon"] > each["line"]], (name, icons)
        if name == "film.mp4":
            assert page.locator(".cf-time svg[data-cf=chart]").bounding_box()["width"] > 0.8 * min(width, 832)
        assert _overflow(page) <= 0


def test_two_visitors_never_see_each_other(visit: Visit, faces: Path) -> None:
    first, second = visit(), visit()
    _send(first, faces / "face-1.png")
    _send(second, faces / "face-2.png")
    for page, own, other in ((first, "face-1", "face-2"), (second, "face-2", "face-1")):
        page.wait_for_selector("#cf-analyse-files a")
        said = page.locator("body").inner_text()
        assert own in said and other not in said
    fresh = visit()
    assert fresh.locator("#cf-analyse-result h2").count() == 0
    link = first.locator("#cf-analyse-files a").last.evaluate("each => each.href")
    assert fresh.request.get(link).status == 200
    first.context.close()  # and what was sent is deleted
    for _ in range(100):
        if fresh.request.get(link).status == 404:
            break
        fresh.wait_for_timeout(100)
    else:
        pytest.fail("the visit is over, and its result is still there")
    tabs = "face-1.png", "face-2.png"
    left = [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    assert not [path for path in left if not path.stat().st_size] and not any(
        name in str(left) for name in tabs
    )


def test_a_zip_becomes_a_table_that_sorts(visit: Visit, faces: Path, tmp_path: Path) -> None:
    archive = tmp_path / "batch.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("face-0.png", "face-1.png", "letter.jpg"):
            out.write(faces / name, name)
        out.write(faces / "face-2.png", "<b>${7*7}{{8}} *x* _y_.png")
    page = visit()
    _open(page, "Batch")
    _send(page, archive, "batch")
    page.wait_for_selector("#cf-batch-result a")
    rows = page.locator(".cf-table tbody tr")
    assert rows.count() == 4 and page.locator(".cf-table img").count() == 3
    assert "${7*7}{{8}} *x* _y_" in page.locator(".cf-table").inner_text()  # names are text, never markup
    assert page.locator(".cf-table :is(b, em)").count() == 0
    page.get_by_role("button", name="File", exact=True).click()
    page.get_by_role("button", name="File", exact=True).click()
    assert [row.split("\t")[1] for row in rows.all_inner_texts()][0].strip() == "letter.jpg"
    assert page.locator("th[aria-sort=descending]").count() == 1
    links = page.locator("#cf-batch-result a").evaluate_all("all => all.map((each) => each.href)")
    assert len(page.request.get(links[0]).text().splitlines()) == 5
    assert [each["name"] for each in page.request.get(links[1]).json()][:2] == ["face-0.png", "face-1.png"]


def test_two_pictures_are_compared(visit: Visit, faces: Path) -> None:
    page = visit()
    _open(page, "Compare")
    page.set_input_files("#cf-compare-first input[type=file]", faces / "face-0.png")
    page.wait_for_selector("#cf-compare-result h2")
    page.set_input_files("#cf-compare-second input[type=file]", faces / "face-1.png")
    page.wait_for_selector("#cf-compare-result .cf-compare")
    assert page.locator("#cf-compare-result figure").count() == 4
    page.locator("[data-cf=split]").fill("10")
    assert page.locator(".cf-compare").evaluate("each => each.style.getPropertyValue('--split')") == "10%"


def test_a_made_picture_goes_to_analyse(visit: Visit) -> None:
    page = visit()
    _open(page, "Generate")
    page.locator("#cf-seeds :is(input, textarea)").fill("4-6")
    page.get_by_role("button", name="Make them").click()
    page.wait_for_selector(".cf-grid-list")
    assert page.locator(".cf-grid-list img").count() == 3
    page.get_by_label("Send the picture of seed 5 to Analyse").click()
    page.wait_for_selector("#cf-analyse-result h2")
    assert "tiny-seed-5.png" in page.locator("#cf-analyse-result").inner_text()
    assert page.get_by_role("tab", name="Analyse").get_attribute("aria-selected") == "true"


def test_only_the_styles_that_a_generator_has_can_be_mixed(visit: Visit) -> None:
    page = visit()
    _open(page, "Generate")
    page.locator("#cf-seeds :is(input, textarea)").fill("1-2")
    page.get_by_label("What to make").click()
    page.get_by_role("option", name="Mix styles").click()
    page.wait_for_selector("#cf-layers label")
    assert page.locator("#cf-layers label").all_inner_texts() == ["coarse", "middle"]
    page.get_by_label("middle").check()
    page.get_by_role("button", name="Make them").click()
    page.wait_for_selector("#cf-generate-result img")
    assert "The middle styles" in page.locator("#cf-generate-result").inner_text()


def test_a_report_is_shown_and_can_do_nothing(visit: Visit, address: str) -> None:
    page = visit()
    _open(page, "Experiments")
    page.locator("#cf-report input").click()
    page.get_by_role("option").first.click()
    frame = page.frame_locator("iframe.cf-report")
    assert frame.locator("h1").inner_text() == "Findings"
    assert page.title() == "crossfake"
    for path in ("study/notes.txt", "../secret.html", "%2e%2e/secret.html", "..%2fsecret.html", "study"):
        assert page.request.get(f"{address}runs/{path}").status == 404, path
    shown = page.request.get(f"{address}runs/study/report.html")
    assert "sandbox" in shown.headers["content-security-policy"]


def test_what_gradio_would_serve_but_the_page_does_not_need_is_gone(visit: Visit, address: str) -> None:
    page = visit()
    for path in (
        "gradio_api/info",
        "gradio_api/openapi.json",
        "gradio_api/file=/etc/hostname",
        "gradio_api/file=https://example.org",
        "gradio_api/proxy=https://example.org",
        "monitoring",
        "gradio_api/runs",
        "docs/gradio",
    ):
        assert page.request.get(address + path).status == 404, path
    assert page.request.post(f"{address}gradio_api/process_recording").status == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways_and_legibly(
    scheme: str, visit: Visit, faces: Path
) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert _overflow(page) <= 0
    _send(page, faces / "face-0.png")
    page.wait_for_selector("#cf-analyse-files a")
    assert _overflow(page) <= 0
    assert not page.evaluate(_CONTRAST)
    for tab in ("Compare", "Batch", "Generate", "Experiments"):
        _open(page, tab)
        page.wait_for_timeout(100)
        assert _overflow(page) <= 0, tab


def test_the_keyboard_is_enough(visit: Visit, faces: Path) -> None:
    page = visit()
    for _ in range(12):  # to the upload
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label') || ''").startswith(
            "Drop a picture"
        ):
            break
    assert page.evaluate("document.activeElement.matches('#cf-analyse-upload button')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") != "0px"
    chosen: list[Any] = []
    page.on("filechooser", lambda each: chosen.append(each))
    for _ in range(20):  # a key pressed while the page still starts may be lost
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if chosen:
            break
    chosen[0].set_files(faces / "face-0.png")
    page.wait_for_selector("#cf-analyse-files a")
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("(document.activeElement.dataset.cf || document.activeElement.innerText).trim()")
        )
        if page.evaluate("document.activeElement.dataset.cf") == "heat":
            before = page.evaluate("document.activeElement.value")
            page.keyboard.press("ArrowRight")
            assert page.evaluate("document.activeElement.value") != before
    assert {"heat", "Report as HTML", "Report as PDF"} <= seen


def test_every_control_has_a_name(visit: Visit, faces: Path) -> None:
    page = visit()
    _send(page, faces / "face-0.png")
    page.wait_for_selector("#cf-analyse-files a")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a[href], iframe')]
        .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden=true]'))
        .filter((e) => !(e.innerText || '').trim() && !e.getAttribute('aria-label') && !e.title
                       && !(e.labels && e.labels.length))
        .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert not nameless
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("#cf-analyse-status[role=status][aria-live=polite]").count() == 1


def test_a_pasted_picture_is_analysed(visit: Visit, faces: Path) -> None:
    page = visit()
    page.evaluate(
        """async (bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
          document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        list((faces / "face-2.png").read_bytes()),
    )
    page.wait_for_selector("#cf-analyse-result h2")
    assert "pasted.png" in page.locator("#cf-analyse-result").inner_text()


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
