"""The page's addresses: forms that begin something, what is said of it as it comes, and downloads."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from crossfake.datasets.types import Box
from crossfake.serve.intake.accepting import Received
from crossfake.serve.intake.headers import Refused
from crossfake.serve.showing import TABS, render
from crossfake.serve.web.visits import COOKIE, Case, Visit, Visits
from crossfake.serve.web.work import Worker, problem

_LOOK = 0.1  # seconds between two looks at how far it is
# A report is looked at, never run: no script, no request to anywhere, a world of its own
_SANDBOX = (
    "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Site:
    """All pages.

    Args:
        worker: does the work.
        visits: the visitors.
        secure: browsers come by HTTPS.
    """

    def __init__(self, worker: Worker, visits: Visits, secure: bool = False) -> None:
        self.worker, self.visits, self.secure = worker, visits, secure

    def page(self, tab: str, case: Case | None = None, said: str = "") -> str:
        """A whole page; ``said`` is what is wrong, as HTML."""
        return render(
            f"{tab}.html",
            tab=tab,
            case=case,
            status=self.status(case) if case else "",
            said=said,
            limits=self.worker.limits,
            facts=self.worker.analyser.about(),
        )

    def problem(self, error: Refused, path: str) -> str:
        """What a browser is shown of an error: the form that it came from, and why."""
        tab = path.strip("/").partition("/")[0]
        return self.page(tab if tab in TABS else "analyse", said=problem(error))

    @staticmethod
    def status(case: Case) -> str:
        """How far a case is, or why it ended."""
        if case.over or case.job is None:
            return case.status
        if before := case.job.before:
            return render("status.html", share=None, words=f"Waiting: {before} before you")
        return render("status.html", share=case.job.share, words=case.job.words)

    def visit(self, request: Request) -> Visit | None:
        """Who asks, if that is known."""
        return self.visits.of(request.cookies.get(COOKIE))

    def case(self, request: Request, token: str) -> Case:
        """A case of the visitor who asks.

        Raises:
            Refused: there is none of that name; the answer is the same whatever the name was.
        """
        visit = self.visit(request)
        case = visit.cases.get(token) if visit else None
        if case is None:
            raise _gone()
        return case

    async def send(self, request: Request, tab: str, field: str, files: int) -> Response:
        """Take the files of a form, begin, and lead to where the result will be."""
        self.worker.queue.look()
        cookie, visit = self._welcome(request)
        case, received = await self.visits.receive(request, visit, tab, field=field, files=files)
        if tab == "analyse":
            self.worker.analyse(case, received[0])
        elif tab == "batch":
            self.worker.batch(case, received)
        elif len(received) < 2:
            raise Refused("malformed", "this is one picture", "choose two to compare", 400)
        else:
            self.worker.compare(case, received)
        return self._lead(case, cookie)

    def open_file(self, request: Request, case: Case, number: int, box: Box | None = None) -> Response:
        """Analyse one of a case's files, or the part of it around a box, in a case of its own."""
        if not 0 <= number < len(case.files) or not case.files[number].path.is_file():
            raise _gone()
        cookie, visit = self._welcome(request)
        opened = visit.begin("analyse")
        taken = opened.take(case.files[number].path)
        self.worker.analyse(opened, Received(taken, case.files[number].name), box)
        return self._lead(opened, cookie)

    def _welcome(self, request: Request) -> tuple[str, Visit]:
        """The visit of whoever asks, begun where there is none."""
        visit = self.visit(request)
        return (request.cookies[COOKIE], visit) if visit else self.visits.open()

    def _lead(self, case: Case, cookie: str) -> Response:
        answer = RedirectResponse(case.path, 303)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", secure=self.secure)
        return answer

    async def events(self, case: Case, since: int) -> AsyncIterator[ServerSentEvent]:
        """The status and each part when it changes; the work is stopped when nobody is told of it."""
        case.watching += 1
        try:
            said = None
            while True:
                over, status = case.over, await run_in_threadpool(self.status, case)
                for name in [name for name, version in case.versions.items() if version > since]:
                    yield ServerSentEvent(raw_data=case.parts[name], event=name)
                since = max(since, case.version if over else max(case.versions.values(), default=0))
                if status != said:
                    said = status
                    yield ServerSentEvent(raw_data=status or " ", event="status")
                if over:
                    yield ServerSentEvent(raw_data=" ", event="cancel")
                    yield ServerSentEvent(raw_data=" ", event="done")
                    return
                await asyncio.sleep(_LOOK)
        finally:
            case.watching -= 1
            case.seen = time.monotonic()


def routes(site: Site) -> APIRouter:
    """The page's routes."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    find = Annotated[Case, Depends(site.case)]
    percent = Annotated[float, Form(ge=0, le=100, allow_inf_nan=False)]
    tab_name = Annotated[str, Form(max_length=64)]

    def form(tab: str, field: str, files: int) -> None:
        """The empty form of a tab, and where it sends to."""

        @router.get("/" if tab == "analyse" else f"/{tab}")
        def show() -> Response:
            return HTMLResponse(site.page(tab))

        @router.post(f"/{tab}")
        async def send(request: Request) -> Response:
            return await site.send(request, tab, field, files)

    form("analyse", "file", 1)
    form("compare", "file", 2)
    form("batch", "files", site.worker.limits.files)

    @router.get("/case/{token}")
    def show(request: Request, case: find) -> Response:
        case.seen = time.monotonic()
        return HTMLResponse(site.page(case.kind, case))

    @router.get("/case/{token}/events", response_class=EventSourceResponse)
    async def events(case: find, since: int = 0) -> AsyncIterator[ServerSentEvent]:
        async for event in site.events(case, since):
            yield event

    @router.post("/case/{token}/stop")
    def stop(request: Request, case: find) -> Response:
        case.stop.set()
        return (
            Response(status_code=204) if "hx-request" in request.headers else RedirectResponse(case.path, 303)
        )

    @router.post("/case/{token}/files/{number}")
    def open_file(request: Request, case: find, number: int) -> Response:
        return site.open_file(request, case, number)

    @router.post("/case/{token}/box")
    def open_part(
        request: Request, case: find, x: percent, y: percent, width: percent, height: percent
    ) -> Response:
        if min(width, height) < 1:
            raise Refused("malformed", "this is no box on a picture", "draw it again", 400)
        return site.open_file(request, case, 0, (x / 100, y / 100, width / 100, height / 100))

    @router.get("/case/{token}/{name}")
    def download(case: find, name: str) -> Response:
        make_file = case.downloads.get(name)
        if make_file is None:
            raise _gone()
        try:
            path = make_file()
        except OSError:  # the visitor has just left
            raise _gone() from None
        shown = path.suffix == ".jpg"
        stem = Path(case.files[0].name).stem if case.kind == "analyse" else ""
        return FileResponse(
            path,
            filename=f"{stem}-{name}".lstrip("-"),
            headers={"Content-Security-Policy": _SANDBOX},
            content_disposition_type="inline" if shown else "attachment",
        )

    @router.post("/here")
    def here(request: Request, tab: tab_name) -> Response:
        if visit := site.visit(request):
            visit.here(tab)
        return Response(status_code=204)

    @router.post("/leave")
    def leave(request: Request, tab: tab_name) -> Response:
        if visit := site.visit(request):
            visit.leave(tab)
        return Response(status_code=204)

    return router


def _gone() -> Refused:
    return Refused("no-such-case", "this result is gone, or is not yours", "send the file again", 404)
