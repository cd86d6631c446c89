import asyncio
import json
import logging
import threading
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI

from crossfake.errors import UserError
from crossfake.serve.web.loading import Loading


async def _get(app: Any, path: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [],
        "query_string": b"",
        "scheme": "http",
        "server": ("x", 1),
        "client": ("y", 1),
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def _run(make: Any, during: Any) -> tuple[Loading, list[str]]:
    """Live through a start and an end of the server, with ``during(app, ready)`` between them."""
    told: list[str] = []

    async def live() -> Loading:
        ready, messages = asyncio.Event(), [{"type": "lifespan.startup"}]
        over = asyncio.Event()

        async def receive() -> Any:
            if not messages:
                await over.wait()
                return {"type": "lifespan.shutdown"}
            return messages.pop()

        async def send(message: Any) -> None:
            told.append(message["type"])

        app = Loading(
            make, lambda: (told.append("ready"), ready.set()), lambda: (told.append("failed"), ready.set())
        )  # type: ignore[arg-type, return-value]
        task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
        await during(app, ready)
        over.set()
        await asyncio.wait_for(task, 20)
        return app

    return asyncio.run(live()), told


def test_loading_is_said_until_the_application_is_there_and_then_it_answers() -> None:
    go, lived = threading.Event(), []

    def make() -> Any:
        assert go.wait(20)
        import contextlib

        @contextlib.asynccontextmanager
        async def lifespan(app: Any) -> Any:
            lived.append("begin")
            yield
            lived.append("end")

        app = FastAPI(lifespan=lifespan)
        app.get("/healthz")(lambda: {"status": "ok"})
        return app

    async def during(app: Loading, ready: asyncio.Event) -> None:
        await asyncio.sleep(0.05)
        for path in ("/healthz", "/", "/api/v1/analyze", "/analyse"):
            status, headers, body = await _get(app, path)
            assert (
                status == 503 and int(headers["retry-after"]) > 0 and headers["cache-control"] == "no-store"
            )
            if path == "/healthz":
                assert json.loads(body)["status"] == "loading"
            elif path.startswith("/api"):
                assert json.loads(body)["code"] == "loading"
            else:
                assert b"loading" in body and "refresh" in headers
        go.set()
        await asyncio.wait_for(ready.wait(), 20)
        assert json.loads((await _get(app, "/healthz"))[2]) == {"status": "ok"}

    app, told = _run(make, during)
    assert told == ["lifespan.startup.complete", "ready", "lifespan.shutdown.complete"]
    assert lived == ["begin", "end"] and app.problem is None


def test_what_goes_wrong_while_loading_ends_the_server() -> None:
    def make() -> Any:
        raise UserError("the bundle holds no detector")

    async def during(app: Loading, ready: asyncio.Event) -> None:
        await asyncio.wait_for(ready.wait(), 20)

    app, told = _run(make, during)
    assert "failed" in told and isinstance(app.problem, UserError)


def test_errors_that_nobody_waits_for_are_logged_by_kind(caplog: pytest.LogCaptureFixture) -> None:
    async def during(app: Loading, ready: asyncio.Event) -> None:
        await asyncio.wait_for(ready.wait(), 20)
        asyncio.get_running_loop().call_exception_handler(
            {"message": "anna.jpg", "exception": ValueError("anna.jpg")}
        )

    with caplog.at_level(logging.DEBUG):
        _run(FastAPI, during)
    assert "ValueError" in caplog.text and "anna" not in caplog.text
