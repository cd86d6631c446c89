"""The page as it is mounted: what its clients can reach, and that no path, address or word of others opens a file."""

import json
import logging
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from starlette.testclient import TestClient

from crossfake.datasets.toyfaces import toyface
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web.api import create_api
from crossfake.serve.web.gate import JOIN, UPLOAD, takes_files
from crossfake.serve.web.page import mount_page

BASE = "http://127.0.0.1:7860"
META = {"_type": "gradio.FileData"}
SAID = {
    "error": "this is not a file that you have sent here", "hint": "choose it again", "code": "no-such-file",
    "detail": "this is not a file that you have sent here: choose it again",
}  # fmt: skip


class _Drawn:
    """A generator of two colours, so that the page has the tab Generate with all of its inputs."""

    def names(self) -> list[str]:
        return ["drawn"]

    def layers(self, name: str) -> tuple[str, ...]:
        return ("coarse",)

    def sample(self, name: str, seeds: Any, psi: float) -> Any:
        return np.stack([toyface(seed, 64) for seed in seeds])

    interpolate = mix = sample


@pytest.fixture(scope="module")
def app(analyser: Analyser) -> Any:
    app = create_api(analyser, Limits(), requests_per_minute=100_000)
    mount_page(app, analyser, Limits(), generators=_Drawn())
    return app


@pytest.fixture(scope="module")
def server(app: Any) -> Iterator[Any]:
    with TestClient(app, base_url=BASE) as client:
        yield client


@pytest.fixture
def client(server: Any) -> Any:
    """A browser that has opened the page."""
    server.cookies.clear()
    assert server.get("/").status_code == 200
    return server


def _functions(client: Any) -> list[dict[str, Any]]:
    """All that the page can be asked to do, from its own configuration."""
    config = client.get("/config").json()
    kinds = {part["id"]: part["type"] for part in config["components"]}
    values = {part["id"]: (part.get("props") or {}).get("value") for part in config["components"]}
    return [
        {
            "id": each["id"],
            "kinds": [kinds[number] for number in each["inputs"]],
            "values": [values[number] for number in each["inputs"]],
        }
        for each in config["dependencies"]
    ]


def _join(client: Any, number: int, data: list[Any], name: str = "", **more: Any) -> Any:
    event = {
        "data": data,
        "fn_index": number,
        "session_hash": name or secrets.token_hex(5),
        "trigger_id": 1,
        **more,
    }
    return client.post(JOIN, json=event)


def _cancel(client: Any, name: str, job: str = "a") -> Any:
    return client.post("/gradio_api/cancel", json={"session_hash": name, "fn_index": 0, "event_id": job})


def _outcome(client: Any, number: int, data: list[Any]) -> str:
    """All that an event sends back."""
    name = secrets.token_hex(5)
    assert _join(client, number, data, name).status_code == 200
    return str(client.get("/gradio_api/queue/data", params={"session_hash": name}).text)


def _send(client: Any, path: Path) -> str:
    with open(path, "rb") as file:
        answer = client.post(UPLOAD, files={"files": (path.name, file)})
    assert answer.status_code == 200, answer.text
    [word] = answer.json()
    return str(word)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "anna-at-the-beach.png"
    Image.fromarray(toyface(0, 64)).save(path)
    return path


def _analyse(client: Any) -> int:
    """The event of the tab Analyse's upload."""
    return next(each["id"] for each in _functions(client) if each["kinds"] == ["file"])


def test_a_file_that_was_sent_is_analysed_once_and_by_its_sender_alone(client: Any, photo: Path) -> None:
    number, word = _analyse(client), _send(client, photo)
    mine = client.cookies["crossfake"]
    client.cookies.clear()
    client.get("/")
    assert client.cookies["crossfake"] != mine
    assert _join(client, number, [{"path": word, "meta": META}]).json() == SAID
    client.cookies.clear()
    client.cookies.set("crossfake", mine)
    said = _outcome(
        client, number, [{"path": word, "orig_name": "../x", "url": "/x", "size": 1, "meta": META}]
    )
    assert "cf-verdict" in said and "anna-at-the-beach.png" in said
    assert _join(client, number, [{"path": word, "meta": META}]).json() == SAID


def test_no_input_of_the_page_takes_a_foreign_path(
    client: Any, photo: Path, app: Any, monkeypatch: Any
) -> None:
    """Every input of every event, from the page's own configuration: a new one is covered by itself."""
    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: asked.append(host) or [])
    uploads = app.router.routes[-1].app.sessions.uploads
    word = _send(client, photo)
    own = uploads.path(uploads.visitor(client.cookies["crossfake"]), word)
    (own.parent / "link.upload").symlink_to(photo)
    (uploads.root / "link.png").symlink_to(photo)
    paths = [
        photo, "/etc/hostname", "/nonexistent/x.png", own, f"{own.parent}/../{photo.name}", own.parent / "link.upload",
        uploads.root / "link.png", f"file={photo}", f"/gradio_api/file={photo}", "http://strangers.example/x.png",
        f"file://{photo}", "https://127.0.0.1/x.png", "", ".", f"{word}/../{word}", [word], None, 7, "\0", "x.svg",
    ]  # fmt: skip
    shapes: list[Any] = []
    for path in paths:
        path = str(path) if isinstance(path, Path) else path
        for given in (
            {"path": path, "meta": META},
            {"path": path},
            {"path": path, "url": path, "orig_name": "x", "mime_type": "image/png", "size": 1, "meta": META},
            {"url": path, "meta": META},
            {"path": path, "is_stream": True, "meta": META},
        ):
            shapes += [given, [given], [[given]], {"value": given}, {"image": given, "caption": None}]
    functions, tried = _functions(client), 0
    assert sum("file" in each["kinds"] or "uploadbutton" in each["kinds"] for each in functions) >= 5
    for function in functions:
        for at, kind in enumerate(function["kinds"]):
            if kind == "state":  # never read from an event
                continue
            tried += 1
            for shape in shapes:
                data = list(function["values"])
                data[at] = shape
                answer = _join(client, function["id"], data)
                assert (answer.status_code, answer.json()) == (422, SAID), (function, at, shape)
    assert tried > 12 and not asked
    assert "cf-verdict" in _outcome(
        client, _analyse(client), [{"path": word, "meta": META}]
    )  # it still does its work


def test_a_path_as_text_opens_nothing(client: Any, photo: Path, caplog: Any, capfd: Any) -> None:
    for function in _functions(client):
        for at, kind in enumerate(function["kinds"]):
            data = list(function["values"])
            data[at] = str(photo)
            answer = _join(client, function["id"], data)
            if kind in ("file", "uploadbutton"):
                assert answer.json() == SAID
    said = _outcome(client, _analyse(client), [None])
    assert "cf-verdict" not in said
    assert "anna" not in caplog.text and "anna" not in "".join(capfd.readouterr())


def test_without_the_gate_handlers_take_no_foreign_path_either(app: Any, photo: Path, client: Any) -> None:
    """Gradio's own check, which mounting leaves off, and ours in every handler."""
    gate = app.router.routes[-1].app
    assert gate.blocks.has_launched
    page = TestClient(gate.app, base_url=BASE)
    for function in _functions(client):
        for at, kind in enumerate(function["kinds"]):
            if kind not in ("file", "uploadbutton"):
                continue
            for path in (str(photo), "/nonexistent.png", str(gate.sessions.uploads.root / "x")):
                data = list(function["values"])
                data[at] = {"path": path, "meta": META}
                said = _outcome(page, function["id"], data)
                assert "anna" not in said and "cf-verdict" not in said, function
    assert takes_files(next(part for part in gate.blocks.blocks.values() if part.get_block_name() == "file"))


def test_what_is_no_event_of_this_page_is_refused(client: Any, caplog: Any, capfd: Any) -> None:
    number = _analyse(client)
    good = {"data": [None], "fn_index": number, "session_hash": "abc"}
    for change in (
        {"data": []}, {"data": [None, None]}, {"data": {"0": None}}, {"data": None}, {"fn_index": 10_000},
        {"fn_index": True}, {"fn_index": None}, {"session_hash": None}, {"session_hash": "../anna"},
        {"session_hash": "x" * 65},
    ):  # fmt: skip
        answer = client.post(JOIN, json={**good, **change})
        assert (answer.status_code, answer.json()["code"]) == (422, "malformed"), change
    for event in ({}, [], None, "x"):
        assert client.post(JOIN, json=event).json()["code"] == "malformed"
    slider = next(each for each in _functions(client) if "slider" in each["kinds"])
    for number_text in ("NaN", "-Infinity", "1e999"):
        body = json.dumps({"data": slider["values"], "fn_index": slider["id"], "session_hash": "abc"})
        assert "0.7" in body
        answer = client.post(JOIN, content=body.replace("0.7", number_text))
        assert (answer.status_code, answer.json()["code"]) == (422, "malformed"), number_text
    assert client.post(JOIN, content=b"[" * 100_000).status_code == 422
    assert client.post(JOIN, content=b" " * (2 << 20)).status_code == 413
    assert (
        client.post(
            "/gradio_api/cancel", json={"session_hash": "abc", "fn_index": 0, "event_id": "a b"}
        ).status_code
        == 422
    )
    assert "anna" not in caplog.text + "".join(capfd.readouterr())


def test_gradios_faults_are_logged_without_what_was_sent(client: Any, caplog: Any, capfd: Any) -> None:
    slider = next(each for each in _functions(client) if "slider" in each["kinds"])
    data = [
        value if kind != "dropdown" else "anna-at-the-beach"
        for kind, value in zip(slider["kinds"], slider["values"], strict=True)
    ]
    with caplog.at_level(logging.ERROR):
        _outcome(client, slider["id"], data)  # it is not among the choices
    assert "in " in caplog.text and "line" in caplog.text
    assert "anna" not in caplog.text + "".join(capfd.readouterr())


def test_a_visitor_without_a_cookie_can_look_and_nothing_else(client: Any, photo: Path) -> None:
    client.cookies.clear()
    with open(photo, "rb") as file:
        refused = client.post(UPLOAD, files={"files": file})
    assert (refused.status_code, refused.text) == (403, "this browser is not known here: load the page again")
    for answer in (
        _join(client, 0, []), _cancel(client, "abc"), client.get("/gradio_api/queue/data?session_hash=abc"),
        client.get("/gradio_api/heartbeat/abc"),
        client.get("/gradio_api/upload_progress?upload_id=abc"),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (403, "no-session")
    assert client.get("/config").status_code == 200
    cookie = client.get("/").headers["set-cookie"]
    assert (
        "HttpOnly" in cookie
        and "samesite=lax" in cookie.lower()
        and "set-cookie" not in client.get("/").headers
    )


def test_another_visitors_page_is_not_to_be_had(client: Any, photo: Path) -> None:
    name = secrets.token_hex(5)
    assert (
        _join(client, _analyse(client), [{"path": _send(client, photo), "meta": META}], name).status_code
        == 200
    )
    client.cookies.clear()
    client.get("/")
    for answer in (
        client.get("/gradio_api/queue/data", params={"session_hash": name}),
        client.get(f"/gradio_api/heartbeat/{name}"), _join(client, _analyse(client), [None], name),
        _cancel(client, name),
    ):  # fmt: skip
        assert answer.json() == SAID


def test_only_what_the_page_needs_is_let_through(client: Any) -> None:
    for path in ("/", "/config", "/theme.css", "/gradio_api/app_id", "/gradio_api/startup-events"):
        assert client.get(path).status_code == 200, path
    assert client.post("/gradio_api/reset", json={"anything": 1}).json() == {"success": True}
    for path in (
        "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/file/etc/passwd", 
        "/gradio_api/proxy=http://x", "/gradio_api/info", "/gradio_api/vibe-code",
        "/gradio_api/run/predict", "/gradio_api/call/run", "/monitoring",
        "/monitoring/summary", "/gradio_api/process_recording", "/login", "/assets/..%2fx",
        "/gradio_api/component_server",
        "/gradio_api/stream/x/1/1/playlist.m3u8", "/gradio_api/deep_link", "/gradio_api/runs", "/gradio_api/dev/reload",
        "/gradio_api/queue/status", "/gradio_api/token", "/gradio_api/custom_component/1/client/component/x",
    ):  # fmt: skip
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert client.request(method, path).status_code in (404, 405), (method, path)
    assert client.put(JOIN).status_code in (404, 405) and client.post("/").status_code == 404
