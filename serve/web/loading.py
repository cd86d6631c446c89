"""What answers while detectors and the page are loaded: that they are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from crossfake import __version__

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOG = logging.getLogger("crossfake.app")
_AGAIN = 2  # seconds after which to ask again
_PAGE = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>crossfake</title>"
    b"<h1>crossfake is loading its detectors</h1><p>This page comes back by itself."
)


class Loading:
    """Makes an application in a thread, and answers 503 until it is there; then it answers everything.

    Args:
        make: makes it.
        ready: is called when it answers.
        failed: is called when ``make`` raised what is then in :attr:`problem`.
    """

    def __init__(
        self, make: Callable[[], FastAPI], ready: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        self._make, self._ready, self._failed = make, ready, failed
        self._app: ASGIApp | None = None
        self.problem: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(scope["path"], send)
        else:
            await send({"type": "websocket.close", "code": 1013})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        asyncio.get_running_loop().set_exception_handler(_uncaught)
        over = asyncio.Event()
        task = asyncio.create_task(self._load(over.wait))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        over.set()
        await task
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self, over: Callable[[], Awaitable[Any]]) -> None:
        try:
            app = await asyncio.to_thread(self._make)
            async with app.router.lifespan_context(app):
                self._app = app
                self._ready()
                await over()
        except BaseException as error:  # the thread that waits for it raises it
            self.problem = error
            self._failed()


def _uncaught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of an error in a task that nobody waits for: its kind. The message may quote what a client sent."""
    error = context.get("exception")
    _LOG.error("%s in a task that nobody waits for", type(error).__name__ if error else "an error")


async def _answer(path: str, send: Send) -> None:
    kind, body = b"text/html", _PAGE
    if path == "/healthz":
        kind, body = (
            b"application/json",
            json.dumps({"status": "loading", "version": __version__, "detectors": []}).encode(),
        )
    elif path.startswith(("/api/", "/metrics")):
        error = {
            "error": "the detectors are being loaded",
            "hint": f"try again in {_AGAIN} s",
            "code": "loading",
        }
        kind, body = b"application/json", json.dumps(error).encode()
    again = str(_AGAIN).encode()
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", again),
        (b"refresh", again),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
