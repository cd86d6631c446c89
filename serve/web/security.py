"""What stands between strangers and the analyser: host, origin, token, rate, size, time, and the headers of answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import logging
import time
import traceback
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from crossfake.datasets.decode import Unreadable
from crossfake.errors import UserError
from crossfake.serve.intake.headers import Refused, refusal
from crossfake.serve.intake.limits import MIB
from crossfake.serve.intake.shares import RateLimit, Shares

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from crossfake.serve.web.metrics import Metrics

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN = frozenset({"/healthz"})  # without a token
FREE = ("/here", "/leave", "/stop")  # the ends of paths that cost nothing
_IDLE, _LONGEST, _DRAIN = 30.0, 600.0, 2.0  # seconds: without a byte of a body; for it; for what is too much
_GRACE, _SLOWEST = 20.0, 16 * 1024  # a body may take so many seconds, and one more for so many bytes
_BODIES, _REQUESTS = (8, 64), (100, 400)  # that come in slowly, and that are open, of one client and of all
_FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip", b"x-original-")  # who else claims to ask
_LOG = logging.getLogger("crossfake.app")

STRICT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # no-referrer makes browsers send forms with "Origin: null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}


class Guard:
    """Middleware around everything that is served.

    Args:
        app: what is guarded.
        most: bytes of a body.
        token: that requests must bear (``Bearer TOKEN``, or for browsers Basic with it as the password).
        hosts: names and addresses that the Host header may give; None: any.
        rate: of requests that change or compute something, and of wrong tokens.
        public: the origin that browsers come by, behind a proxy.
        metrics: that count.
        routes: paths counted under their own name; the others are ``page``.
        page: what a browser is shown of an error, by it and the path; None: there is no page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most: int,
        token: str | None,
        hosts: Collection[str] | None,
        rate: RateLimit,
        metrics: Metrics,
        routes: Collection[str],
        public: str | None = None,
        page: Callable[[Refused, str], str] | None = None,
    ) -> None:
        self._bodies = Shares(*_BODIES, "too many uploads are under way")
        self._open = Shares(*_REQUESTS, "too many requests are open")
        self.app, self.most, self.hosts, self.rate = app, most, hosts, rate
        self.metrics, self.routes, self.public, self.page = metrics, frozenset(routes), public, page
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {"content-security-policy": STRICT if of_api(scope["path"]) else PAGE, **_HEADERS}
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                for name, value in own.items():
                    headers.setdefault(name, value)
            await send(message)

        client = scope["client"][0] if scope.get("client") else "unknown"
        body = _Body(receive, self.most, self.metrics.received.inc, lambda: self._bodies.enter(client))
        kept = [(name, value) for name, value in scope["headers"] if not name.lower().startswith(_FORWARDED)]
        scope = {**scope, "headers": kept}
        problem: Refused | None = None
        try:
            with self._open.enter(client):
                self._check(scope, client)
                await self.app(scope, body, answer)
        except (UserError, Unreadable) as error:
            problem = refusal(error)
            self.metrics.refusals.labels(problem.code).inc()
        except Exception as error:  # no visitor sees what went wrong inside: the log does
            log_fault(error)
            problem = Refused("internal", "something went wrong here", "tell whoever runs the server", 500)
        finally:
            body.close()
            if problem is not None and not status:
                if problem.status == 413:
                    await body.drain()
                await error_response(problem, scope["path"], self.page)(scope, body, answer)
            route = scope["path"] if scope["path"] in self.routes else "page"
            self.metrics.observe(route, status, time.perf_counter() - start)

    def _check(self, scope: Scope, client: str) -> None:
        """Raise :class:`Refused` by what the head of a request says."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, path = headers.get(b"host", ""), scope["path"]
        if self.hosts is not None and host_name(host) not in self.hosts:
            names = " or ".join(sorted(self.hosts))
            hint = f"use {names}, or start it with another --host"
            raise Refused("wrong-host", "this server does not answer to that name", hint, 421)
        origin = headers.get(b"origin")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and not self._own(origin, host):
            raise Refused("wrong-origin", "another site's page sent this", "send it from a program", 403)
        given = headers.get(b"authorization", "")
        if self._token is not None and path not in OPEN and not self._bears(given):
            if given:
                self.rate.take(client)
            raise Refused("no-token", "this needs the token", "send 'Authorization: Bearer TOKEN'", 401)
        if changes and not path.endswith(FREE):
            self.rate.take(client)
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > self.most:
            raise too_large(self.most)

    def _own(self, origin: str, host: str) -> bool:
        """Whether the page that sends is of this server, by the address that it was asked for."""
        if self.public is not None:
            if origin.lower() == self.public:
                return True
            if host.lower() == _netloc(self.public):  # by HTTP, say
                return False
        return _netloc(origin) == host.lower()

    def _bears(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(value.strip().encode(), self._token or b"")


class _Body:
    """The body as it comes in; cut off where it gets too long or too slow.

    Args:
        receive: where it comes from.
        most: bytes of it.
        count: is told how many bytes came.
        share: is held from the first part to the last, of a body that does not come at once.
    """

    def __init__(
        self,
        receive: Receive,
        most: int,
        count: Callable[[float], None],
        share: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._receive, self.most, self._count, self._share = receive, most, count, share
        self.total, self.more, self._start = 0, True, time.monotonic()
        self._held = contextlib.ExitStack()
        self._slow = False

    async def __call__(self) -> Message:
        if not self.more:  # what comes is the end of the connection, and may be waited for
            return await self._receive()
        left = self._start + min(_LONGEST, _GRACE + self.total / _SLOWEST) - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), min(_IDLE, left))
        except TimeoutError:
            self.close()
            raise Refused("too-slow", "the rest of the request did not come", "send it again", 408) from None
        self.more = message["type"] == "http.request" and message.get("more_body", False)
        self.total += len(message.get("body", b""))
        self._count(len(message.get("body", b"")))
        if not self.more:
            self.close()
        elif not self._slow:
            self._slow = True
            self._held.enter_context(self._share())
        if self.total > self.most:
            raise too_large(self.most)
        return message

    def close(self) -> None:
        self._held.close()

    async def drain(self) -> None:
        """Read on for a moment and keep nothing: a client that is still sending would not see the answer."""
        left = self.most
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                while self.more and left > 0:
                    message = await self._receive()
                    self.more = message.get("more_body", False)
                    left -= len(message.get("body", b""))


def of_api(path: str) -> bool:
    """Whether programs ask for it, and are answered in JSON."""
    return path.startswith("/api/") or path in ("/healthz", "/metrics")


def too_large(most: int) -> Refused:
    """What is said of a body beyond a limit."""
    size = f"{most / MIB:,.0f} MiB" if most >= MIB else f"{most:,} bytes"
    return Refused("too-large", f"the request has more than {size}", "send less", 413)


def error_json(error: Refused) -> dict[str, str]:
    """``{error, hint, code}``, as all errors are answered."""
    return {"error": error.message, "hint": error.hint or "", "code": error.code}


def error_response(
    error: Refused, path: str = "/api/", page: Callable[[Refused, str], str] | None = None
) -> Response:
    """An error as its asker reads it: a page for browsers, JSON for the others."""
    headers = {"HX-Push-Url": "false", **error.headers}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer" if of_api(path) else 'Basic realm="crossfake", charset="UTF-8"'
    if error.status in (408, 413):
        headers["Connection"] = "close"
    if page is not None and not of_api(path):
        return Response(page(error, path), error.status, headers, "text/html")
    return Response(json.dumps(error_json(error)), error.status, headers, "application/json")


def log_fault(error: BaseException) -> None:
    """Of a fault of our own the kind and the place, not the message: that may hold what a client sent."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" in {place[0].filename}, line {place[0].lineno}" if place else ""
    _LOG.error("%s%s", type(error).__name__, where)


def host_name(host: str) -> str:
    """The Host header without its port, in lower case; an IPv6 address keeps its brackets."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host.lower()


def _netloc(origin: str) -> str:
    """Host and port of an Origin header; empty for ``null`` and for what is no address."""
    with contextlib.suppress(ValueError):
        return urlsplit(origin).netloc.lower()
    return ""
