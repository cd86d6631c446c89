import asyncio
import base64
import json
import logging
import time
from collections.abc import Collection
from typing import Any

import pytest

from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.shares import RateLimit, Shares, TryLater
from crossfake.serve.web import security
from crossfake.serve.web.security import LOOPBACK, PAGE, STRICT, Guard

pytest.importorskip("prometheus_client")
from crossfake.serve.web.metrics import Metrics
from crossfake.serve.web.queue import JobQueue

TOKEN = "a-token-of-some-length"
MORE = b"there is more to come"


class _Seen:
    """What came out of a guarded application."""

    def __init__(self, messages: list[Any], metrics: Metrics) -> None:
        self.status, self.metrics = messages[0]["status"], metrics
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says how long it was, and tries to allow other origins."""
    total, more = 0, True
    while more:
        message = await receive()
        total, more = total + len(message.get("body", b"")), message.get("more_body", False)
    headers = [(b"access-control-allow-origin", b"*"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(total).encode()})


def _ask(
    app: Any = _echo,
    path: str = "/api/v1/analyze",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    body: Collection[bytes] = (b"",),
    token: str | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    rate: RateLimit | None = None,
    most: int = 1000,
    page: Any = None,
) -> _Seen:
    metrics = Metrics(JobQueue())
    guard = Guard(
        app,
        most=most,
        token=token,
        hosts=hosts,
        rate=rate or RateLimit(100),
        metrics=metrics,
        routes=("/api/v1/analyze",),
        page=page,
    )
    raw = {"host": "127.0.0.1:7860", **(headers or {})}
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in raw.items()],
    }
    parts, sent = list(body), []

    async def receive() -> Any:
        if not parts:
            await asyncio.sleep(10)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or part == MORE}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return _Seen(sent, metrics)


def test_headers_by_path() -> None:
    for path, policy in (
        ("/api/v1/analyze", STRICT),
        ("/metrics", STRICT),
        ("/", PAGE),
    ):
        seen = _ask(path=path)
        assert seen.headers["content-security-policy"] == policy, path
        assert seen.headers["x-content-type-options"] == "nosniff"
        assert seen.headers["referrer-policy"] == "same-origin" and "frame-ancestors" in policy
        assert not any(name.startswith("access-control") for name in seen.headers)
    assert "unsafe" not in STRICT + PAGE and "http" not in PAGE
    assert _ask(path="/api/v1/analyze").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "127.0.0.1", "[::1]:7860", "[::1]"]
)
def test_loopback_names_are_answered(host: str) -> None:
    assert _ask(headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:7860",
        "",
        "[::2]",
        "::1",
        "localhost@x",
    ],
)
def test_other_names_are_not(host: str) -> None:
    seen = _ask(headers={"host": host})
    assert (seen.status, seen.code) == (421, "wrong-host")
    assert _ask(headers={"host": host}, hosts=None).status == 200


def test_other_sites_cannot_post() -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9", "http://127.0.0.1", "http://["):
        assert _ask(headers={"origin": origin}).code == "wrong-origin"
        assert _ask(headers={"origin": origin}, method="GET").status == 200
    assert _ask(headers={"origin": "http://127.0.0.1:7860"}).status == 200


def test_token() -> None:
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        assert _ask(headers={"authorization": good}, token=TOKEN).status == 200
    for bad in (
        "",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        "Basic !!",
        "Basic /w==",
        f"Token {TOKEN}",
    ):
        seen = _ask(headers={"authorization": bad}, token=TOKEN)
        assert (seen.status, seen.code, seen.headers["www-authenticate"]) == (401, "no-token", "Bearer"), bad
    assert _ask(path="/", method="GET", token=TOKEN).headers["www-authenticate"].startswith("Basic ")
    assert _ask(path="/healthz", method="GET", token=TOKEN).status == 200
    assert _ask(path="/metrics", method="GET", token=TOKEN).status == 401


def test_guessing_tokens_is_slowed_down() -> None:
    rate = RateLimit(2)
    codes = [_ask(headers={"authorization": "Bearer x"}, token=TOKEN, rate=rate).code for _ in range(3)]
    assert codes == ["no-token", "no-token", "too-many-requests"]


def test_rate_limit_is_per_client_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    limit = RateLimit(60)
    for _ in range(60):
        limit.take("192.0.2.1")
    now += 45
    with pytest.raises(TryLater) as caught:
        limit.take("192.0.2.1")
    assert caught.value.seconds == 15 and caught.value.status == 429
    limit.take("192.0.2.2")
    now += 15.5
    limit.take("192.0.2.1")
    one = RateLimit(1)
    one.take("2001:db8::1")
    with pytest.raises(TryLater):
        one.take("2001:db8::2")  # the same /64
    one.take("2001:db8:0:1::1")
    one.take("::ffff:192.0.2.1")
    one.take("::ffff:192.0.2.2")  # IPv4 in the clothes of IPv6


def test_rate_answer_says_when() -> None:
    rate = RateLimit(1)
    assert _ask(rate=rate).status == 200
    seen = _ask(rate=rate)
    assert seen.status == 429 and 1 <= int(seen.headers["retry-after"]) <= 60
    assert _ask(rate=rate, method="GET").status == 200 and _ask(rate=rate, path="/x").status == 429
    samples = seen.metrics.render()
    assert b'crossfake_refusals_total{code="too-many-requests"} 1.0' in samples


def test_bodies_are_cut_off() -> None:
    assert _ask(body=[b"x" * 400, b"x" * 600]).body == b"1000"
    declared = _ask(headers={"content-length": "1001"}, body=[b"x" * 400, b"x" * 601])
    assert (declared.status, declared.code, declared.headers["connection"]) == (413, "too-large", "close")
    assert b"received_bytes_total 0.0" in declared.metrics.render()  # nothing of it reached the application
    streamed = _ask(body=[b"x" * 400] * 1000)
    assert (streamed.status, streamed.code) == (413, "too-large")
    assert b"received_bytes_total 1200.0" in streamed.metrics.render()


def test_a_body_that_stops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_IDLE", 0.05)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    assert _ask(slow, body=[MORE]).status == 408


def test_bugs_are_answered_and_logged_without_names(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("cannot read anna-at-the-beach.jpg")

    with caplog.at_level(logging.DEBUG):
        seen = _ask(broken)
    assert (seen.status, seen.code) == (500, "internal") and b"anna" not in seen.body
    assert "ValueError" in caplog.text and "anna" not in caplog.text

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await _echo(scope, receive, send)
        raise Refused("late", "too late", "")

    assert _ask(late).status == 200  # one answer, not two


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    metrics = Metrics(JobQueue())
    guard = Guard(_echo, most=1, token=None, hosts=None, rate=RateLimit(1), metrics=metrics, routes=())
    asyncio.run(guard({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_what_costs_nothing_is_not_counted() -> None:
    for path in ("/analyse", "/case/x/files/1", "/api/v1/batch"):
        rate = RateLimit(2)
        codes = [_ask(path=path, rate=rate).status for _ in range(3)]
        assert codes == [200, 200, 429], path
        for free in ("/here", "/leave", "/case/x/stop"):
            assert _ask(path=free, rate=rate).status == 200


def test_browsers_are_shown_a_page_of_what_is_wrong() -> None:
    def page(error: Refused, path: str) -> str:
        return f"<main>{error.message} at {path}</main>"

    seen = _ask(path="/analyse", headers={"host": "evil.example"}, page=page)
    assert seen.status == 421 and b"does not answer to that name at /analyse" in seen.body
    assert seen.headers["content-type"].startswith("text/html") and seen.headers["hx-push-url"] == "false"
    assert _ask(path="/api/v1/x", headers={"host": "evil.example"}, page=page).code == "wrong-host"


def test_a_body_that_trickles_in_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part comes in time; all of it would take for ever."""
    monkeypatch.setattr(security, "_GRACE", 0.2)

    async def trickle(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            await asyncio.sleep(0.02)

    seen = _ask(trickle, body=[b"x"] * 200)
    assert (seen.status, seen.code) == (408, "too-slow")


def test_shares_are_of_one_client_and_of_all() -> None:
    held = Shares(1, 2, "too many are open")
    with held.enter("192.0.2.1"), held.enter("2001:db8::1"):
        for client, status in (("192.0.2.1", 429), ("2001:db8::2", 429), ("192.0.2.2", 503)):
            with pytest.raises(TryLater) as caught, held.enter(client):
                pass
            assert caught.value.status == status
    with held.enter("192.0.2.1"):
        pass
    assert not held._held


def test_slow_bodies_have_shares_and_give_them_back() -> None:
    metrics = Metrics(JobQueue())
    guard = Guard(_echo, most=1000, token=None, hosts=None, rate=RateLimit(100), metrics=metrics, routes=())
    guard._bodies = Shares(2, 3, "too many uploads are under way")
    statuses: list[int] = []

    async def ask(client: str, go: asyncio.Event) -> None:
        parts = [b"a", b"b"]

        async def receive() -> Any:
            if len(parts) == 1:
                await go.wait()
            return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        scope = {"type": "http", "path": "/x", "method": "POST", "client": (client, 1), "headers": []}
        await guard(scope, receive, send)

    async def run() -> None:
        go = asyncio.Event()
        tasks = [asyncio.create_task(ask(client, go)) for client in ("a", "a", "a", "b", "c")]
        await asyncio.sleep(0.05)
        assert [status for status in statuses if status] == [429, 503]
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert sorted(status for status in statuses if status) == [200, 200, 200, 429, 503]
    assert not guard._bodies._held and not guard._open._held


def test_forwarded_headers_go_no_further() -> None:
    seen: list[bytes] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await _echo(scope, receive, send)

    _ask(
        look,
        headers={"x-forwarded-host": "evil.example", "forwarded": "x", "x-real-ip": "1", "accept": "*/*"},
    )
    assert seen == [b"host", b"accept"]
