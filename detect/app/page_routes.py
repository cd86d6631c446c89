"""What the page serves beside Gradio's own: a visitor's downloads, reports of finished runs. And what it does not."""

from __future__ import annotations

import html
import mimetypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from crossfake.detect.app.page_sessions import Sessions
from crossfake.errors import UserError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

# Of all that Gradio answers to, what this page needs. Left out are its file server, proxies, API, recorder and editor.
_NEEDED = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte)/[\w./-]+"
    r"|/gradio_api/(app_id|startup-events|upload|upload_progress|queue/(join|data)|heartbeat/\w+|cancel|reset|theme\.css)/?"
)
_SHOWN = {".html", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".csv", ".json", ".css"}
# A report is looked at, never run: no script, no request to anywhere, a world of its own
_SANDBOX = (
    "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_GONE = ("This result is gone", "Its picture was deleted. Analyse it again.", 404)
_HEADERS = {
    "Content-Security-Policy": _SANDBOX,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Narrow:
    """Around Gradio's application: lets through what the page needs and answers 404 to the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
            if not _NEEDED.fullmatch(path) or ".." in path:
                await Response("not found", 404)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def add_routes(app: FastAPI, sessions: Sessions, runs: Path | None) -> None:
    """Add ``/page/TOKEN/NAME`` and ``/runs/PATH``."""

    async def download(request: Request) -> Response:
        case, name = sessions.find(request.path_params["token"]), request.path_params["name"]
        make = case.downloads.get(name) if case else None
        if make is None:
            return _message(*_GONE)
        try:
            path = await run_in_threadpool(make)
        except OSError:  # the visitor has just begun something else, or left
            return _message(*_GONE)
        except UserError as error:
            return _message(error.message, error.mend or "", 422)
        shown = path.suffix in (".jpg", ".png")
        kind = "inline" if shown else "attachment"
        return FileResponse(path, filename=name, headers=_HEADERS, content_disposition_type=kind)

    async def of_run(request: Request) -> Response:
        path = run_file(runs, request.path_params["path"]) if runs else None
        if path is None:
            return _message("There is no such page", "Choose one of the list.", 404)
        return FileResponse(path, headers=_HEADERS, media_type=mimetypes.guess_type(path.name)[0])

    app.add_route("/page/{token}/{name}", download, include_in_schema=False)
    app.add_route("/runs/{path:path}", of_run, include_in_schema=False)


def run_file(runs: Path, name: str) -> Path | None:
    """A file below ``runs`` that may be shown, or None: nothing hidden, no link that leads out, known kinds only."""
    root = runs.resolve()
    if "\0" in name or any(part.startswith(".") for part in Path(name).parts):
        return None
    path = (root / name).resolve()
    fine = path.is_relative_to(root) and path.suffix.lower() in _SHOWN and path.is_file()
    return path if fine else None


def _message(what: str, mend: str, status: int) -> Response:
    page = f"<!doctype html><html lang=en><title>crossfake</title><h1>{html.escape(what)}</h1><p>{html.escape(mend)}"
    return HTMLResponse(page, status, headers=_HEADERS)
