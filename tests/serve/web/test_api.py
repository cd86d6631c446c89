import asyncio
import io
import json
import logging
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.intake.limits import MIB, Limits
from crossfake.serve.settings import ServeSettings

pytest.importorskip("fastapi")
testclient = pytest.importorskip("starlette.testclient")

from crossfake.serve.web import schemas  # noqa: E402
from crossfake.serve.web.app import create_app  # noqa: E402
from crossfake.serve.web.security import PAGE  # noqa: E402

jsonschema = pytest.importorskip("jsonschema")
BASE = "http://127.0.0.1:7860"
ANALYZE, BATCH = "/api/v1/analyze", "/api/v1/batch"
QUICK = {"explain": "false", "stability": "false"}
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
LIMITS = Limits(bytes_image=60_000, bytes_video=80_000, bytes_archive=200_000, pixels=100_000, files=4)


def _app(analyser: Analyser, rate: int = 1000, **options: Any) -> Any:
    """The API alone."""
    return create_app(ServeSettings((Path("x"),), limits=LIMITS, page=False, rate=rate, **options), analyser)


@pytest.fixture(scope="module")
def app(analyser: Analyser) -> Any:
    return _app(analyser, 100_000)


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[Any]:
    with testclient.TestClient(app, base_url=BASE) as client:
        yield client


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Uploads go to a folder of this test, and none is left there."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


def _picture(number: int = 0, size: int = 64, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(toyface(number, size)).save(out, kind)
    return out.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def _ask(app: Any, parts: Iterator[bytes], gone: threading.Event | None = None) -> Any:
    """The start of the answer to a form in parts, whose sender goes away at an event."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": ANALYZE,
        "raw_path": ANALYZE.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
        "headers": [(b"host", b"127.0.0.1:7860"), (b"content-type", b"multipart/form-data; boundary=b")],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        part = next(parts, None)
        if part is not None:
            return {"type": "http.request", "body": part, "more_body": gone is None}
        while gone is not None and not gone.is_set():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return sent[0]


def _valid(answer: Any, name: str) -> None:
    """An answer holds what the description says, no more and no less."""
    schema = getattr(schemas, name).model_json_schema()
    assert schema["additionalProperties"] is False
    jsonschema.Draft202012Validator(schema).validate(answer)


def _refused(answer: Any, status: int, code: str) -> dict[str, str]:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    _valid(answer.json(), "Error")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    said: dict[str, str] = answer.json()
    return said


def test_analyze(client: Any, analyser: Analyser, tmp_path: Path) -> None:
    answer = client.post(ANALYZE, files={"file": ("../holiday é.jpg", _picture())})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    _valid(said, "Analysis")
    assert said["name"] == "holiday é.jpg" and said["kind"] == "image" and said["width"] == 64
    (tmp_path / "x").write_bytes(_picture())
    again = analyser.analyse(tmp_path / "x").to_json()
    assert said["faces"][0]["per_detector"] == again["faces"][0]["per_detector"]
    assert said["sha256"] == again["sha256"] and said["faces"][0]["stability"]
    assert "crop" not in said["faces"][0] and "picture" not in said


def test_options_of_analyze(client: Any) -> None:
    quick = client.post(ANALYZE, params=QUICK, files={"file": _picture(kind="PNG")}).json()
    assert not quick["faces"][0]["stability"] and not quick["faces"][0]["nearest"]
    shown = client.post(ANALYZE, params={**QUICK, "pictures": "true"}, files={"file": _picture()}).json()
    _valid(shown, "Analysis")
    assert shown["picture"].startswith("data:image/png;base64,") and shown["faces"][0]["crop"]
    assert (
        "explain"
        in _refused(
            client.post(ANALYZE, params={"explain": "perhaps"}, files={"file": b""}), 422, "malformed"
        )["error"]
    )


def test_video(client: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for number in range(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(toyface(number, 64), format="rgb24")))
        out.mux(stream.encode())
    answer = client.post(ANALYZE, files={"file": ("photo.jpg", (tmp_path / "v.mp4").read_bytes())})
    assert answer.status_code == 200, answer.text
    _valid(answer.json(), "Analysis")
    assert answer.json()["kind"] == "video"


def test_what_is_no_picture_is_refused(client: Any) -> None:
    for name, content, status, code in (
        ("photo.jpg", b"This is a text, whatever its name says.", 415, "not-an-image"),
        ("photo.jpg", b"", 422, "empty"),
        ("photo.jpg", _picture()[:200], 422, "damaged"),
        ("photo.png", _zip({"a.jpg": _picture()}), 415, "wrong-kind"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>" * 100, 415, "not-an-image"),
        ("large.jpg", _picture(1, 64) + bytes(60_000), 413, "too-large"),
        ("wide.png", _picture(1, 320, "WebP"), 413, "too-many-pixels"),
    ):
        said = _refused(client.post(ANALYZE, files={"file": (name, content)}), status, code)
        assert said["hint"] and name not in said["error"]


def test_forms_that_cannot_be_read_are_refused(client: Any) -> None:
    _refused(
        client.post(ANALYZE, content=_picture(), headers={"content-type": "image/jpeg"}), 415, "not-multipart"
    )
    _refused(client.post(ANALYZE, json={"file": "x"}), 415, "not-multipart")
    _refused(client.post(ANALYZE), 415, "not-multipart")
    _refused(client.post(ANALYZE, files={"photo": _picture()}), 400, "malformed")
    _refused(client.post(ANALYZE, files={"file": _picture()}, data={"extra": "1"}), 400, "malformed")
    _refused(client.post(ANALYZE, files=[("file", _picture()), ("file", _picture())]), 413, "too-many-files")
    form = {"content-type": "multipart/form-data; boundary=b"}
    for body in (
        b"",
        b"--b--\r\n",
        b"nonsense",
        FORM + _picture(),
    ):
        _refused(client.post(ANALYZE, content=body, headers=form), 400, "malformed")
    _refused(
        client.post(ANALYZE, content=FORM, headers={"content-type": "multipart/form-data"}),
        415,
        "not-multipart",
    )


def test_a_body_without_end_is_cut_off(app: Any) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield FORM + _picture()
        while True:
            taken += 10_000
            yield bytes(10_000)

    start = _ask(app, endless())
    assert start["status"] == 413 and (b"connection", b"close") in start["headers"]
    assert taken < 3 * (LIMITS.bytes_archive + MIB)  # part of it only to let the answer be seen


def test_batch_of_files(client: Any) -> None:
    files = [
        ("files", (name, content))
        for name, content in (
            ("a.jpg", _picture(1)),
            ("notes.jpg", b"text"),
            ("/etc/b.png", _picture(2, kind="PNG")),
            ("large.jpg", _picture(1) + bytes(60_000)),
        )
    ]
    answer = client.post(BATCH, files=files)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    _valid(said, "Batch")
    assert [each["name"] for each in said["files"]] == ["a.jpg", "notes.jpg", "b.png", "large.jpg"]
    codes = [(each["problem"] or {}).get("code") for each in said["files"]]
    assert codes == [None, "not-an-image", None, "too-large"]
    assert said["summary"]["files"] == 4 and said["summary"]["refused"] == 2
    _refused(client.post(BATCH, files=[*files, files[0]]), 413, "too-many-files")


def test_batch_of_a_zip(client: Any) -> None:
    content = _zip({"one/a.jpg": _picture(1), "b.png": _picture(2, kind="PNG"), "notes.txt": b"text"})
    answer = client.post(BATCH, files={"files": ("faces.zip", content)})
    assert answer.status_code == 200, answer.text
    _valid(answer.json(), "Batch")
    assert sum(each["analysis"] is not None for each in answer.json()["files"]) == 2
    mixed = client.post(BATCH, files=[("files", ("faces.zip", content)), ("files", ("c.png", _picture()))])
    assert [each["name"] for each in mixed.json()["files"]] == ["a.jpg", "b.png", "notes.txt", "c.png"]


@pytest.mark.parametrize(
    "files",
    [
        {"../../outside.jpg": b"x"},
        {"/etc/outside.jpg": b"x"},
        {"bomb.jpg": bytes(20_000_000)},
        {f"{n}.jpg": b"x" for n in range(5)},
        {"inner.zip": b"PK\3\4" + bytes(100)},
    ],
    ids=["traversal", "absolute", "bomb", "too many", "nested"],
)
def test_unsafe_archives_are_refused(client: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    answer = client.post(BATCH, files={"files": ("x.zip", _zip(files))})
    assert answer.status_code in (413, 422), answer.text
    _valid(answer.json(), "Error")
    assert not list(tmp_path.rglob("outside*"))


def test_other_routes(client: Any, analyser: Analyser) -> None:
    health = client.get("/healthz")
    assert (
        health.json()["detectors"] == list(analyser.detectors)
        and health.headers["cache-control"] == "no-store"
    )
    for each in client.get("/api/v1/detectors").json():
        _valid(each, "DetectorFacts")
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'crossfake_analyses_total{kind="image"' in metrics.text and "127.0.0.1" not in metrics.text
    assert "holiday" not in metrics.text
    _refused(client.get("/api/v1/nothing"), 404, "not-found")
    _refused(client.post("/api/v2/analyze"), 404, "not-found")
    wrong = client.get(ANALYZE)
    _refused(wrong, 405, "wrong-method")
    assert wrong.headers["allow"] == "POST"
    _refused(client.post("/healthz"), 405, "wrong-method")


def test_host_and_token(analyser: Analyser) -> None:
    app = _app(analyser, token="a-token-of-some-length")
    with testclient.TestClient(app, base_url="http://evil.example") as client:
        _refused(client.post(ANALYZE, files={"file": _picture()}), 421, "wrong-host")
    with testclient.TestClient(app, base_url=BASE) as client:
        _refused(client.post(ANALYZE, files={"file": _picture()}), 401, "no-token")
        bearer = {"authorization": "Bearer a-token-of-some-length"}
        assert (
            client.post(ANALYZE, params=QUICK, files={"file": _picture()}, headers=bearer).status_code == 200
        )
        assert client.get("/healthz").status_code == 200
        paths = client.get("/api/v1/openapi.json", headers=bearer).json()["paths"]
        assert paths[ANALYZE]["post"]["security"] == paths["/metrics"]["get"]["security"] == [{"token": []}]
        assert "security" not in paths["/healthz"]["get"]
        assert client.get("/api/v1/docs", headers=bearer).status_code == 200
        assert client.get("/api/v1/docs").status_code == 401


def test_rate_limit(analyser: Analyser) -> None:
    with testclient.TestClient(_app(analyser, 2), base_url=BASE) as client:
        for _ in range(2):
            assert client.post(ANALYZE, params=QUICK, files={"file": _picture()}).status_code == 200
        refused = client.post(ANALYZE, params=QUICK, files={"file": _picture()})
        _refused(refused, 429, "too-many-requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_busy(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    """One works, sixteen wait, the next is told to come again; the others are all answered in the end."""
    go, judge = threading.Event(), analyser.stages

    def patient(*args: Any, **options: Any) -> Any:
        assert go.wait(20)
        yield from judge(*args, **options)

    monkeypatch.setattr(analyser, "stages", patient)
    app = _app(analyser, concurrent=1)
    with testclient.TestClient(app, base_url=BASE) as client:
        answers: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.post(ANALYZE, params=QUICK, files={"file": _picture()}))
            )
            for _ in range(17)
        ]
        for thread in threads:
            thread.start()
        for _ in range(400):
            if "crossfake_waiting 16.0" in client.get("/metrics").text:
                break
            time.sleep(0.02)
        refused = client.post(ANALYZE, params=QUICK, files={"file": _picture()})
        go.set()
        for thread in threads:
            thread.join()
        _refused(refused, 503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert [answer.status_code for answer in answers] == [200] * 17
        assert "crossfake_waiting 0.0" in client.get("/metrics").text


def test_work_stops_when_the_client_goes_away(analyser: Analyser, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless(*args: Any, progress: Any, **options: Any) -> Iterator[None]:
        begun.set()
        try:
            for _ in range(2000):
                progress(0.5, "judging")
                time.sleep(0.01)
        finally:
            ended.set()
        yield

    monkeypatch.setattr(analyser, "stages", endless)
    app = _app(analyser)
    assert _ask(app, iter([FORM + _picture() + b"\r\n--b--\r\n"]), begun)["status"] == 499
    assert ended.is_set()


def test_a_client_that_goes_away_while_sending_is_no_fault(
    analyser: Analyser, caplog: pytest.LogCaptureFixture
) -> None:
    assert _ask(_app(analyser), iter([FORM + _picture()[:100]]))["status"] == 499
    assert not [record for record in caplog.records if record.name == "crossfake.app"]


def test_names_are_not_logged(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post(ANALYZE, files={"file": ("anna-at-the-beach.jpg", _picture()[:300])})
        client.post(BATCH, files={"files": ("anna-at-the-beach.zip", _zip({"anna/../x.jpg": b"x"}))})
    ours = [
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "asyncio"))
    ]
    assert not any("anna" in message for message in ours)


def test_the_description_is_valid(client: Any) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert set(schema["paths"]) == {ANALYZE, BATCH, "/api/v1/detectors", "/healthz", "/metrics"}
    for name, each in schema["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(each)
        assert each["description"] and all("description" in p for p in each["properties"].values()), name
    names = set(schema["components"]["schemas"])
    assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))) <= names
    # /metrics is text, and FastAPI's own 422 is not among the answers
    assert "HTTPValidationError" not in json.dumps(schema)


def test_docs_page_needs_nothing_else(client: Any) -> None:
    answer = client.get("/api/v1/docs")
    assert answer.status_code == 200 and answer.headers["content-security-policy"] == PAGE
    sources = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(sources) >= 4 and not re.findall(r"<script[^>]*>[^<]", answer.text)
    for source in sources:
        assert client.get(f"/api/v1/{source}").status_code == 200, source
        assert not source.startswith(("http", "//"))


def _schemathesis(app: Any, examples: int) -> None:
    """Requests made from the description: none is answered otherwise than it says, and none with a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # random bytes are no picture

    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers={"host": "127.0.0.1:7860"})
    seen: dict[str, set[int]] = {}

    for operation in schema.get_all_operations():
        made = operation.ok()

        @hypothesis.given(case=made.as_strategy())
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def check(case: Any) -> None:
            answer = case.call_and_validate(
                headers={"host": "127.0.0.1:7860"}, excluded_checks=[positive_data_acceptance]
            )
            seen.setdefault(case.path, set()).add(answer.status_code)

        check()
    assert seen["/healthz"] == {200} and 415 in seen[ANALYZE]


def test_requests_made_from_the_description(app: Any) -> None:
    _schemathesis(app, 8)


@pytest.mark.slow
def test_many_requests_made_from_the_description(app: Any) -> None:
    _schemathesis(app, 100)


def test_misspelt_fields_of_the_query_are_refused(client: Any) -> None:
    for path, field in (
        (ANALYZE, "explian=false"),
        (ANALYZE, "explain=false&stabilty=0"),
        (BATCH, "pictures=true"),
    ):
        said = _refused(client.post(f"{path}?{field}", files={"file": _picture()}), 422, "unknown-field")
        assert "explain" in said["hint"] and "stabilty" not in json.dumps(said)
    _refused(client.get("/api/v1/detectors?x=1"), 422, "unknown-field")


def test_who_asks_is_said_by_a_trusted_proxy_alone(analyser: Analyser) -> None:
    for trusted, codes in (((), [415, 429, 429]), (("198.51.100.0/24",), [415, 415, 429])):
        app = _app(analyser, 1, trusted_proxies=trusted)
        with testclient.TestClient(app, base_url=BASE, client=("198.51.100.7", 1)) as client:
            found = [
                client.post(ANALYZE, headers={"x-forwarded-for": address}).status_code
                for address in ("192.0.2.1", "192.0.2.2", "203.0.113.9, 192.0.2.1")
            ]
        assert found == codes, trusted


def test_the_public_origin(analyser: Analyser) -> None:
    app = _app(analyser, public_url="https://facts.example")
    with testclient.TestClient(app, base_url=BASE) as client:
        for host, origin, status in (
            ("facts.example", "https://facts.example", 415),
            ("127.0.0.1:7860", "https://facts.example", 415),
            ("127.0.0.1:7860", "http://127.0.0.1:7860", 415),
            ("facts.example", "http://facts.example", 403),
            ("127.0.0.1:7860", "https://facts.example.evil", 403),
            ("other.example", "https://facts.example", 421),
        ):
            assert client.post(ANALYZE, headers={"host": host, "origin": origin}).status_code == status, (
                host,
                origin,
            )


def test_clients_that_send_slowly_hold_no_place(analyser: Analyser) -> None:
    """As many as have places send a byte now and then; whoever sends all is answered."""
    app = _app(analyser, concurrent=1)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": ANALYZE,
        "raw_path": ANALYZE.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "server": ("127.0.0.1", 7860),
        "headers": [(b"host", b"127.0.0.1:7860"), (b"content-type", b"multipart/form-data; boundary=b")],
    }
    whole = FORM + _picture() + b"\r\n--b--\r\n"

    async def ask(number: int, slow: bool) -> int:
        parts, sent, over = [whole[:50]] if slow else [whole], [], asyncio.Event()

        async def receive() -> Any:
            if not parts:
                await over.wait()
            return {"type": "http.request", "body": parts.pop(), "more_body": slow}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({**scope, "client": (f"192.0.2.{number}", 1)}, receive, send)
        return int(sent[0]["status"])

    async def all_of_them() -> None:
        slow = [asyncio.create_task(ask(number, True)) for number in range(40)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in slow)
        assert await asyncio.wait_for(ask(99, False), 20) == 200
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(all_of_them())
