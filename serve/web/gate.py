"""Around Gradio's application: what the page needs is let through, and what a client sends is rebuilt before."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from crossfake.serve.intake.headers import Refused
from crossfake.serve.web.security import too_large
from crossfake.serve.web.sessions import Sessions
from crossfake.serve.web.uploads import COOKIE, not_sent

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api"
UPLOAD, JOIN = f"{API}/upload", f"{API}/queue/join"
# Of all that Gradio answers to, what this page needs. Left out are its file server, proxies, API, recorder and editor.
_PLAIN = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte)/[\w./-]+"
    rf"|{API}/(app_id|startup-events|theme\.css)/?"
)
_OF_A_PAGE = re.compile(rf"{API}/(?:heartbeat/(?P<name>\w+)|queue/data|upload_progress)/?")
_NAME = re.compile(r"\w{1,64}", re.ASCII)  # that a browser gives one of its pages, or an upload
_MOST = 1 << 20  # bytes of an event: 500 names of files take a third of it
_MOST_TEXT = 2000
_ATOMS = (str, int, float, bool, type(None))


class Gate:
    """Answers 404 to all that the page does not need.

    An event is rebuilt from what its inputs can be. A file is the word that :class:`Uploads` gave for it, whatever
    else is said of it; a path, an address or another visitor's word gets one and the same answer.

    Args:
        app: Gradio's.
        blocks: the page.
        sessions: the visitors.
        secure: whether browsers come by HTTPS, and may send the cookie by nothing else.
    """

    def __init__(self, app: ASGIApp, blocks: gr.Blocks, sessions: Sessions, secure: bool = False) -> None:
        self.app, self.blocks, self.sessions, self.secure = app, blocks, sessions, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
        visitor = self.sessions.uploads.visitor(HTTPConnection(scope).cookies.get(COOKIE))
        if scope["method"] in ("GET", "HEAD"):
            await self._get(path, visitor, scope, receive, send)
        elif scope["method"] == "POST" and path in (JOIN, f"{API}/cancel"):
            event = await _json(receive)
            checked = self._event if path == JOIN else self._cancelled
            await self.app(*_with_body(checked(event, known(visitor)), scope, receive), send)
        elif scope["method"] == "POST" and path == f"{API}/reset":  # Gradio does nothing either
            await JSONResponse({"success": True})(scope, receive, send)
        else:
            await Response("not found", 404)(scope, receive, send)

    async def _get(self, path: str, visitor: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        if _PLAIN.fullmatch(path) and ".." not in path:
            greet = path == "/" and visitor is None
            await self.app(scope, receive, self._greeting(send) if greet else send)
        elif found := _OF_A_PAGE.fullmatch(path):
            asked = HTTPConnection(scope).query_params
            name = found["name"] or asked.get("session_hash") or asked.get("upload_id") or ""
            if not _NAME.fullmatch(name):
                raise not_sent()
            self.sessions.check(name, known(visitor))
            await self.app(scope, receive, send)
        else:
            await Response("not found", 404)(scope, receive, send)

    def _greeting(self, send: Send) -> Send:
        """Gives a browser its cookie with the page."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                made = Response()
                made.set_cookie(
                    COOKIE, self.sessions.uploads.admit(), httponly=True, samesite="lax", secure=self.secure
                )
                message = {
                    **message,
                    "headers": [*message["headers"], (b"set-cookie", made.headers["set-cookie"].encode())],
                }
            await send(message)

        return answer

    def _event(self, event: Mapping[str, Any], visitor: str) -> dict[str, Any]:
        name, number, data = self._name(event), event.get("fn_index"), event.get("data")
        function = self.blocks.fns.get(number) if type(number) is int else None
        if function is None or not isinstance(data, list) or len(data) != len(function.inputs):
            raise _unusable()
        values = [self._value(each, part, visitor) for each, part in zip(data, function.inputs, strict=True)]
        trigger = event.get("trigger_id")
        self.sessions.of(name, visitor)
        return {
            "data": values, "fn_index": number, "session_hash": name, "event_data": None,
            "trigger_id": trigger if type(trigger) is int else None,
        }  # fmt: skip

    def _value(self, value: Any, part: Any, visitor: str) -> Any:
        """What an input may be: a visitor's own files, or a word or number."""
        if part.stateful:  # held here; what a client says of it is not looked at
            return None
        if takes_files(part):
            if isinstance(value, list):
                return [self._file(each, visitor) for each in value]
            return None if value is None else self._file(value, visitor)
        if not isinstance(value, _ATOMS):
            raise not_sent()
        if isinstance(value, float) and not math.isfinite(value):
            raise _unusable()
        if isinstance(value, str) and len(value) > _MOST_TEXT:
            raise too_large(_MOST_TEXT, "a text")
        return value

    def _file(self, value: Any, visitor: str) -> dict[str, Any]:
        path = self.sessions.uploads.path(visitor, value.get("path") if isinstance(value, dict) else None)
        return {"path": str(path), "orig_name": "file", "meta": {"_type": "gradio.FileData"}}

    def _cancelled(self, event: Mapping[str, Any], visitor: str) -> dict[str, Any]:
        name, number, job = self._name(event), event.get("fn_index"), event.get("event_id")
        if type(number) is not int or not isinstance(job, str) or not _NAME.fullmatch(job):
            raise _unusable()
        self.sessions.check(name, visitor)
        return {"session_hash": name, "fn_index": number, "event_id": job}

    @staticmethod
    def _name(event: Mapping[str, Any]) -> str:
        name = event.get("session_hash")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _unusable()
        return name


def known(visitor: str | None) -> str:
    """A visitor whose browser bears the cookie.

    Raises:
        Refused: it does not.
    """
    if visitor is None:
        raise Refused("no-session", "this browser is not known here", "load the page again", 403)
    return visitor


def takes_files(part: Any) -> bool:
    """Whether an input's value is files: Gradio describes it by a model that holds ``FileData``."""
    return _holds_files(getattr(part, "data_model", None))


@lru_cache(maxsize=64)
def _holds_files(model: Any) -> bool:
    return model is not None and "FileData" in json.dumps(model.model_json_schema())


async def _json(receive: Receive) -> Mapping[str, Any]:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused("gone", "the client went away", "", 499)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _MOST:
            raise too_large(_MOST)
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise _unusable() from None
    if not isinstance(event, dict):
        raise _unusable()
    return event


def _with_body(content: Mapping[str, Any], scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """A request as it came, with another body."""
    body = json.dumps(content).encode()
    own = (b"content-length", b"content-type", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in own]
    headers = [*kept, (b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    sent = False

    async def rebuilt() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return {**scope, "headers": headers}, rebuilt


def _unusable() -> Refused:
    return Refused("malformed", "this is not an event of this page", "load the page again")
