"""What the page serves beside Gradio's own: uploads, a visitor's downloads, reports of finished runs."""

from __future__ import annotations

import html
import mimetypes
import re
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from crossfake.errors import UserError
from crossfake.serve.web.gate import UPLOAD, known
from crossfake.serve.web.run_pages import Reports
from crossfake.serve.web.sessions import Sessions
from crossfake.serve.web.uploads import COOKIE

if TYPE_CHECKING:
    from fastapi import FastAPI

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


def add_routes(app: FastAPI, sessions: Sessions, reports: Reports) -> None:
    """Add ``/page/TOKEN/NAME``, ``/runs/PATH``, and an upload in place of Gradio's, which takes files from anybody."""

    async def upload(request: Request) -> Response:
        from gradio.routes import file_upload_statuses as progress  # what Gradio tells the browser

        visitor, name = (
            known(sessions.uploads.visitor(request.cookies.get(COOKIE))),
            request.query_params.get("upload_id"),
        )
        if name is None or not re.fullmatch(r"\w{1,64}", name, re.ASCII):
            return JSONResponse(await sessions.uploads.receive(request, visitor))
        progress.track(name)
        try:
            words = await sessions.uploads.receive(
                request, visitor, lambda file, count: progress.append(name, file, bytes(count))
            )
            return JSONResponse(words)
        finally:
            progress.set_done(name)

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
            return _message(error.message, error.hint or "", 422)
        shown = path.suffix in (".jpg", ".png")
        kind = "inline" if shown else "attachment"
        return FileResponse(path, filename=name, headers=_HEADERS, content_disposition_type=kind)

    async def of_run(request: Request) -> Response:
        path = await run_in_threadpool(reports.file, request.path_params["path"])
        if path is None:
            return _message("There is no such page", "Choose one of the list.", 404)
        return FileResponse(path, headers=_HEADERS, media_type=mimetypes.guess_type(path.name)[0])

    app.add_route(UPLOAD, upload, methods=["POST"], include_in_schema=False)
    app.add_route("/page/{token}/{name}", download, include_in_schema=False)
    app.add_route("/runs/{path:path}", of_run, include_in_schema=False)


def _message(what: str, hint: str, status: int) -> Response:
    page = f"<!doctype html><html lang=en><title>crossfake</title><h1>{html.escape(what)}</h1><p>{html.escape(hint)}"
    return HTMLResponse(page, status, headers=_HEADERS)
