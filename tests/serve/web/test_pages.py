"""The page as a browser without JavaScript meets it, and what others can reach of it: nothing."""

import json
import logging
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from crossfake.datasets.toyfaces import toyface
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.intake.limits import Limits
from crossfake.serve.settings import ServeSettings
from crossfake.serve.web.app import create_app
from crossfake.serve.web.pages import Site
from crossfake.serve.web.security import PAGE

BASE = "http://127.0.0.1:7860"
LIMITS = Limits(files=5, bytes_archive=400_000)


@pytest.fixture(scope="module")
def app(analyser: Analyser, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = ServeSettings((Path("x"),), limits=LIMITS, rate=100_000)
    return create_app(settings, analyser, key=tmp_path_factory.mktemp("site") / "key.pem")


@pytest.fixture(scope="module")
def site(app: Any) -> Site:
    site: Site = app.state.site
    return site


@pytest.fixture(scope="module")
def server(app: Any, site: Site) -> Iterator[Any]:
    with TestClient(app, base_url=BASE) as client:
        yield client
    assert not site.visits.root.exists()


@pytest.fixture
def client(server: Any) -> Any:
    """A browser that nobody knows yet."""
    server.cookies.clear()
    return server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "anna-at-the-beach.png"
    Image.fromarray(toyface(0, 64)).save(path)
    return path


def _send(client: Any, path: Path, tab: str = "analyse", field: str = "file") -> Any:
    with open(path, "rb") as file:
        return client.post(f"/{tab}", files={field: (path.name, file)})


def _done(client: Any, answer: Any) -> tuple[str, str]:
    """The address that an answer led to, and its page once all is there."""
    address = answer.url.path
    assert address.startswith("/case/"), answer.text
    for _ in range(400):
        page = client.get(address)
        assert page.status_code == 200
        if 'http-equiv="refresh"' not in page.text:
            return address, page.text
        time.sleep(0.05)
    raise AssertionError("it never ends")


def _main(page: str) -> str:
    return page[page.index("<main") :]


def test_a_picture_is_judged_without_javascript(client: Any, photo: Path) -> None:
    form = client.get("/").text
    assert (
        'action="/analyse"' in form and 'enctype="multipart/form-data"' in form and "set-cookie" not in form
    )
    answer = _send(client, photo)
    address, page = _done(client, answer)
    assert "cf-verdict" in page and "anna-at-the-beach.png" in page and "This is not proof" in page
    assert "Keep the result" in page and "JPEG 70" in page and "chart" in page
    report = client.get(f"{address}/report.html")
    assert 'filename="anna-at-the-beach-report.html"' in report.headers["content-disposition"]
    assert (
        report.text.startswith("<!doctype html>") and "sandbox" in report.headers["content-security-policy"]
    )
    assert client.get(f"{address}/report.pdf").content.startswith(b"%PDF")
    jws = client.get(f"{address}/report.html.jws")
    assert jws.text.count(".") == 2 and 'filename="anna-at-the-beach-report.html.jws"' in str(jws.headers)
    assert client.get(f"{address}/analysis.json").json()["name"] == photo.name
    assert client.get(f"{address}/picture.jpg").headers["content-type"] == "image/jpeg"
    assert client.get(f"{address}/other").status_code == 404


def test_cookie_and_headers(client: Any, photo: Path) -> None:
    answer = client.get("/")
    assert answer.headers["content-security-policy"] == PAGE and "unsafe" not in PAGE
    assert answer.headers["x-content-type-options"] == "nosniff"
    sent = client.post("/analyse", files={"file": photo.read_bytes()}, follow_redirects=False)
    cookie = sent.headers["set-cookie"].lower()
    assert sent.status_code == 303 and "httponly" in cookie and "samesite=lax" in cookie
    for part in re.findall(r"<(?:script|style)[^>]*>", answer.text):
        assert "src=" in part
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', answer.text)


def test_a_result_is_its_senders_alone(client: Any, photo: Path, site: Site) -> None:
    address, _ = _done(client, _send(client, photo))
    mine = client.cookies["crossfake"]
    client.cookies.clear()
    _done(client, _send(client, photo))
    assert client.cookies["crossfake"] != mine
    said = set()
    others = ("/report.html", "/events", "/files/0")
    for path in (address, *(address + other for other in others), "/case/guess", "/case/..%2f..%2fetc"):
        answer = client.get(path) if not path.endswith("/0") else client.post(path)
        assert answer.status_code == 404, path
        said.add(_main(answer.text).partition("</p>")[0][-200:] if "events" not in path else "")
    for path, data in (("stop", {}), ("box", {"x": 1, "y": 1, "width": 50, "height": 50})):
        assert client.post(f"{address}/{path}", data=data).status_code == 404
    client.cookies.clear()
    client.cookies.set("crossfake", mine)
    assert client.get(address).status_code == 200


def test_no_field_takes_a_path(client: Any, photo: Path, caplog: Any, capfd: Any) -> None:
    """What a form may hold are files and numbers: a name of a file opens nothing, wherever it stands."""
    forms = {"analyse": "file", "compare": "file", "batch": "files"}
    for tab, field in forms.items():
        for value in (str(photo), f"file://{photo}", "http://strangers.example/x.png", "/nonexistent", ""):
            as_text = client.post(f"/{tab}", data={field: value})
            assert as_text.status_code == 415
            as_field = client.post(
                f"/{tab}", files={"other": ("x.png", photo.read_bytes())}, data={field: value}
            )
            assert as_field.status_code == 400
            as_name = client.post(f"/{tab}", files={field: (value or "x", b"This is a text")})
            assert "cf-verdict" not in as_name.text and "anna" not in as_name.text.replace(photo.name, "")
    assert "anna" not in caplog.text and "anna" not in "".join(capfd.readouterr())


def test_what_is_wrong_is_said_on_the_page_that_it_came_from(client: Any, tmp_path: Path) -> None:
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear editor,\n" * 50)
    page = _done(client, _send(client, letter))[1]
    assert "no file of a known kind" in page and "cf-verdict" not in page and "Traceback" not in page
    one = _send(client, letter, "compare")
    assert (
        one.status_code == 400
        and "choose two to compare" in one.text.lower()
        and 'action="/compare"' in one.text
    )
    none = client.post("/batch", files={})
    assert none.status_code == 415 and 'action="/batch"' in none.text
    assert client.get("/nowhere").status_code == 404 and client.post("/").status_code == 405
    assert client.get("/api/v1/nowhere").json()["code"] == "not-found"


def test_a_picture_without_a_reason_to_fail_is_stopped_on_request(
    client: Any, photo: Path, site: Site, monkeypatch: Any
) -> None:
    def endless(*args: Any, progress: Any, **options: Any) -> Iterator[None]:
        while True:
            progress(0.5, "judging")
            time.sleep(0.01)
        yield

    monkeypatch.setattr(site.worker.analyser, "stages", endless)
    answer = _send(client, photo)
    assert 'http-equiv="refresh"' in answer.text and "Cancel" in answer.text
    client.post(f"{answer.url.path}/stop")
    assert "Stopped" in _done(client, answer)[1]


def test_a_fault_of_ours_is_said_without_what_it_holds(
    client: Any, photo: Path, site: Site, monkeypatch: Any, caplog: Any
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise ValueError("cannot read anna-at-the-beach.png")

    monkeypatch.setattr(site.worker.analyser, "stages", broken)
    with caplog.at_level(logging.DEBUG):
        page = _done(client, _send(client, photo))[1]
    assert "Something went wrong here" in page and "anna" not in _main(page)
    assert "ValueError in" in caplog.text and "anna" not in caplog.text


def test_what_comes_is_told_as_it_comes(client: Any, photo: Path) -> None:
    answer = client.post("/analyse", files={"file": ("x.png", photo.read_bytes())}, follow_redirects=False)
    told = client.get(f"{answer.headers['location']}/events")
    assert (
        told.headers["content-type"].startswith("text/event-stream")
        and told.headers["cache-control"] == "no-cache"
    )
    events = re.findall(r"^event: (\w+)$", told.text, re.MULTILINE)
    assert events[-1] == "done" and {"result", "why", "steady", "traces", "files", "cancel"} <= set(events)
    last = client.get(f"{answer.headers['location']}/events?since=999")
    assert "event: result" not in last.text and "event: done" in last.text


def test_two_pictures_are_compared(client: Any, tmp_path: Path) -> None:
    for number, size in ((0, 64), (1, 80)):
        Image.fromarray(toyface(number, size)).save(tmp_path / f"{number}.png")
    files = [("file", (f"{k}.png", (tmp_path / f"{k}.png").read_bytes())) for k in (0, 1)]
    page = _done(client, client.post("/compare", files=files))[1]
    assert page.count("<figure") == 4 and "One over the other" in page


def test_a_batch_and_the_analysis_of_a_row(client: Any, tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "batch.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(photo, "=one.png")
        archive.writestr("notes.txt", "text")
        archive.write(photo, "<b>two</b>.png")
    address, page = _done(client, _send(client, path, "batch", "files"))
    assert page.count("<tr>") == 4 and "<b>two" not in page and "Not a picture or video" in page
    table = client.get(f"{address}/batch.csv").content.decode("utf-8-sig").splitlines()
    assert len(table) == 4 and table[1].startswith("'=one.png,")
    assert [each["name"] for each in client.get(f"{address}/batch.json").json()][1] == "notes.txt"
    opened, shown = _done(client, client.post(f"{address}/files/0"))
    assert opened != address and "=one.png" in shown and "How steady the answer is" in shown
    for number in (1, 3, -1, 999):
        assert client.post(f"{address}/files/{number}").status_code == 404, number


def test_too_much_is_refused_archive_by_archive(client: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")  # 120 kB
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(3):
            archive.write(tmp_path / "noise.png", f"{number}.png")
    sent = (tmp_path / "x.zip").read_bytes()
    small = Limits(files=5, bytes_archive=400_000)
    assert len(sent) < small.bytes_archive < 2 * len(sent)
    files = [("files", ("a.png", (tmp_path / "noise.png").read_bytes())) for _ in range(6)]
    assert client.post("/batch", files=files).status_code == 413


def test_a_drawn_box_is_judged_alone(client: Any, photo: Path) -> None:
    address, _ = _done(client, _send(client, photo))
    box = {"x": 25, "y": 25, "width": 25, "height": 25}
    _, page = _done(client, client.post(f"{address}/box", data=box))
    assert "part of anna-at-the-beach.png" in page and "40 × 40" in page
    for wrong in ({"x": -1}, {"x": "nan"}, {"width": 0}, {"height": 101}, {"x": "inf"}, {"y": ""}):
        assert client.post(f"{address}/box", data={**box, **wrong}).status_code in (400, 422), wrong


def test_signs_of_life(client: Any, photo: Path, site: Site) -> None:
    assert client.post("/here", data={"tab": "1"}).status_code == 204
    _done(client, _send(client, photo))
    visit = site.visits.of(client.cookies["crossfake"])
    assert visit is not None
    client.post("/here", data={"tab": "1"})
    assert list(visit.tabs) == ["1"]
    client.post("/leave", data={"tab": "1"})
    assert not visit.tabs and visit.left
    for number in range(100):
        client.post("/here", data={"tab": str(number)})
    assert len(visit.tabs) <= 32
    assert client.post("/here", data={"tab": "x" * 65}).status_code == 422


def test_training_pictures_are_shown_only_where_that_was_chosen(client: Any, photo: Path) -> None:
    """The tests' analyser was told to; a server's default is not."""
    assert "Most alike among the training pictures" in _done(client, _send(client, photo))[1]
    assert ServeSettings((Path("x"),)).alike is False


def test_metrics_count_no_names(client: Any, photo: Path) -> None:
    _send(client, photo)
    metrics = client.get("/metrics").text
    assert 'route="page"' in metrics and "anna" not in metrics and "/case/" not in metrics
    assert json.dumps(client.get("/healthz").json())
