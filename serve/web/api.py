"""The application: the API's routes, its description, its health and its metrics; the page beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from crossfake import __version__
from crossfake.datasets.decode import Unreadable
from crossfake.datasets.filetypes import HEAD, is_archive
from crossfake.detect.verdict import NOT_JUDGED, VERDICTS
from crossfake.errors import MissingDependency
from crossfake.serve.engine.results import SCHEMA, Analysis
from crossfake.serve.intake.accepting import Upload, accept, display_name, session_folder, unpack
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import MIB, Limits

try:
    from fastapi import Depends, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.docs import get_swagger_ui_html
    from starlette.exceptions import HTTPException
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.staticfiles import StaticFiles
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from crossfake.serve.intake.receiving import Received, gone, receive_files
    from crossfake.serve.intake.shares import RateLimit
    from crossfake.serve.web import schemas
    from crossfake.serve.web.metrics import CONTENT_TYPE, Metrics
    from crossfake.serve.web.queue import JobQueue, Stopped
    from crossfake.serve.web.security import LOOPBACK, PAGE, Guard, error_json, error_response
except ImportError as missing:
    raise MissingDependency((missing.name or "fastapi").partition(".")[0], extra="app") from missing

if TYPE_CHECKING:
    from crossfake.serve.engine.analysis import Analyser, Progress
    from crossfake.serve.web.pages import Site

ROOT = "/api/v1"
STATIC = Path(__file__).parent / "static"
ROUTES = ("/healthz", "/metrics", *(f"{ROOT}/{name}" for name in ("analyze", "batch", "detectors", "docs")))
_SWEEP = 5.0  # seconds: how often what visitors left behind is looked for
_ABOUT = (
    "Judges faces in pictures and videos. A probability is that of being fake, among images like those that the "
    "detector was validated on. A generator that it never saw may pass as real. It is not proof. "
    "Files are kept in a private folder until the request is answered, and then deleted; names are not logged."
)
_WHEN = {
    400: "The request is no readable form.",
    401: "The token is missing or wrong.",
    403: "A page of another site sent this.",
    408: "The rest of the request did not come in time.",
    413: "Too many bytes, pixels, files or seconds.",
    415: "Neither a picture nor a video, by its content.",
    421: "The Host header is not a name of this server.",
    422: "A damaged or unsafe file, or an unknown field.",
    429: "Too many requests; Retry-After says when.",
    500: "A bug, or a damaged detector.",
    503: "Busy, or loading; Retry-After says when.",
    507: "The disk is full.",
}

Explain = Annotated[bool, Query(description="Of pictures: heat map, spectrum, error levels, noise.")]
Stability = Annotated[bool, Query(description="Of pictures: the score under recompression and resizing.")]
Prior = Annotated[
    float | None,
    Query(gt=0, lt=1, description="Share of fakes among such pictures; without it each detector's own."),
]
Pictures = Annotated[bool, Query(description="Put heat maps, crops and spectra in as data URIs.")]


def create_api(
    analyser: Analyser,
    limits: Limits,
    *,
    token: str | None = None,
    requests_per_minute: int = 60,
    queue: JobQueue | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    public_url: str | None = None,
    trusted_proxies: Collection[str] = (),
    site: Site | None = None,
) -> FastAPI:
    """The API, and the page where there is one, as an ASGI application.

    Args:
        analyser: does the work, in threads.
        limits: of what is accepted.
        token: that all requests but ``/healthz`` must bear.
        requests_per_minute: of one client, of those that change or compute something.
        queue: where analyses wait for their turn; when too many do, the answer is 503 with ``Retry-After``.
        hosts: names that the Host header may give, against DNS rebinding; None: any.
        public_url: the origin that browsers come by, behind a proxy.
        trusted_proxies: addresses or networks whose word on who asks (``X-Forwarded-For``) is taken.
        site: the page.
    """
    queue = queue or JobQueue()
    metrics = Metrics(lambda: queue.counts[0], lambda: queue.counts[1])
    service = _Service(analyser, limits, queue, metrics)
    app = FastAPI(
        title="crossfake",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{ROOT}/openapi.json",
        lifespan=_sweeping(site),
    )
    page = site.problem if site else None
    app.add_middleware(
        Guard,
        most=limits.bytes_archive + MIB,
        token=token,
        hosts=hosts,
        rate=RateLimit(requests_per_minute),
        metrics=metrics,
        routes=ROUTES,
        public=public_url,
        page=page,
    )
    if trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(trusted_proxies))
    _add_errors(app, page)
    _add_routes(app, service)
    _add_description(app, token is not None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if site is not None:
        from crossfake.serve.web.pages import routes

        app.include_router(routes(site))
    return app


def _add_routes(app: FastAPI, service: _Service) -> None:
    known, limits = [Depends(_known_fields)], service.limits

    @app.post(f"{ROOT}/analyze", dependencies=known, **_described(schemas.Analysis, "file"))
    async def analyze(
        request: Request,
        explain: Explain = True,
        stability: Stability = True,
        pictures: Pictures = False,
        prior: Prior = None,
    ) -> Response:
        """Analyse one picture or video.

        Every face is judged by every detector. Without explanation and stability the answer is quick.
        """
        service.queue.look()
        with session_folder() as folder:
            [received] = await receive_files(request, folder, field="file")
            return (
                await service.finish(  # in its turn from here on: while it sends, a client holds nothing up
                    request,
                    lambda progress: service.analysis(received, explain, stability, prior, progress).to_json(
                        pictures
                    ),
                )
            )

    @app.post(f"{ROOT}/batch", dependencies=known, **_described(schemas.Batch, "files"))
    async def batch(
        request: Request, explain: Explain = False, stability: Stability = False, prior: Prior = None
    ) -> Response:
        """Analyse many files, or one zip of them.

        One after the other. A file that is not taken is listed with its problem and stops nothing.
        """
        service.queue.look()
        with session_folder() as folder:
            received = await receive_files(request, folder, field="files", files=limits.files)
            return await service.finish(
                request, lambda progress: service.batch(received, folder, explain, stability, prior, progress)
            )

    @app.get(f"{ROOT}/detectors", dependencies=known, **_described(list[schemas.DetectorFacts]))  # type: ignore[valid-type]
    def detectors() -> Response:
        """What each detector was trained and tested on, and how often it calls a real picture fake."""
        return JSONResponse([dataclasses.asdict(facts) for facts in service.analyser.about()])

    @app.get("/healthz", **_described(schemas.Health))
    async def healthz() -> Response:
        """Is it up? Needs no token. Until all is loaded: 503, with the status `loading`."""
        names = list(service.analyser.detectors)
        return JSONResponse({"status": "ok", "version": __version__, "detectors": names})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Counts and times for Prometheus. No names, addresses or pictures."""
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @app.get(f"{ROOT}/docs", include_in_schema=False)
    async def docs() -> Response:
        made = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"API of crossfake {__version__}",
            swagger_js_url="../../static/vendor/swagger-ui-bundle.js",
            swagger_css_url="../../static/vendor/swagger-ui.css",
            swagger_favicon_url="../../static/favicon.png",
        )
        page = bytes(made.body).decode()
        [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = PAGE.replace("script-src 'self'", f"script-src 'self' 'sha256-{digest}'")
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _described(model: Any, field: str = "") -> dict[str, Any]:
    """What FastAPI is told of a route whose answers are written in threads: their form, and that of its errors."""
    statuses = [code for code in _WHEN if field or code in (401, 421, 422, 429, 500, 503)]
    made: dict[str, Any] = {
        "response_model": model,
        "responses": {code: {"model": schemas.Error, "description": _WHEN[code]} for code in statuses},
    }
    if field:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        several = {"type": "array", "items": file, "minItems": 1}
        form = {
            "type": "object",
            "properties": {field: file if field == "file" else several},
            "required": [field],
            "additionalProperties": False,
        }
        content = {"multipart/form-data": {"schema": form}}
        made["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return made


def _known_fields(request: Request) -> None:
    """A field of the query that is misspelt would be ignored, and its sender believe otherwise."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            hint = f"use {' or '.join(sorted(known))}" if known else "leave it out"
            raise Refused("unknown-field", "the query has a field that is not known", hint)


class _Service:
    """What the routes share."""

    def __init__(self, analyser: Analyser, limits: Limits, queue: JobQueue, metrics: Metrics) -> None:
        self.analyser, self.limits, self.queue, self.metrics = analyser, limits, queue, metrics

    async def finish(self, request: Request, work: Callable[[Progress], dict[str, Any]]) -> Response:
        """Work in a thread, in turn; stop when the client goes away."""
        stop = threading.Event()
        job = self.queue.start(lambda progress: json.dumps(work(progress), allow_nan=False).encode(), stop)
        done = asyncio.wrap_future(job.future)
        left = asyncio.ensure_future(_disconnected(request))
        either: tuple[asyncio.Future[Any], ...] = (done, left)
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not done.done():  # what it works on stays until it has ended
                stop.set()
                job.future.cancel()
                await asyncio.wait({done})
        if done.cancelled() or isinstance(done.exception(), Stopped):
            raise gone()
        if isinstance(error := done.exception(), Unreadable):
            raise _damaged(error)
        return Response(done.result(), media_type="application/json")

    def analysis(
        self, each: Received | Upload, explain: bool, stability: bool, prior: float | None, progress: Progress
    ) -> Analysis:
        upload = each if isinstance(each, Upload) else accept(each.path, self.limits, each.name)
        if upload.kind == "archive":
            raise Refused("wrong-kind", "archives are not taken here", f"send it to {ROOT}/batch", 415)
        if upload.kind == "video":
            made = self.analyser.video(upload, prior=prior, progress=progress)
        else:
            made = self.analyser.image(
                upload, explain=explain, stability=stability, prior=prior, progress=progress
            )
        self.metrics.analyses.labels(made.kind, made.verdict).inc()
        return made

    def batch(
        self,
        received: list[Received],
        folder: Path,
        explain: bool,
        stability: bool,
        prior: float | None,
        progress: Progress,
    ) -> dict[str, Any]:
        files: list[dict[str, Any]] = []
        uploads: Sequence[Received | Upload] = self._unpacked(received, folder)
        counts = dict.fromkeys(("files", "refused", *reversed(VERDICTS), NOT_JUDGED), 0)
        counts["files"] = len(uploads)
        for number, each in enumerate(uploads):

            def part(share: float, what: str, done: int = number) -> None:
                progress((done + share) / len(uploads), what)

            part(0.0, "")
            name = display_name(each.name) if isinstance(each, Received) else each.name_for_display
            analysis, problem = None, None
            try:
                if isinstance(each, Upload) and each.problem:
                    raise Refused(each.code, each.problem, "leave it out or replace it")
                made = self.analysis(each, explain, stability, prior, part)
                counts[made.verdict] += 1
                analysis = made.to_json()
            except (Unreadable, Refused) as error:
                refused = error if isinstance(error, Refused) else _damaged(error)
                self.metrics.refusals.labels(refused.code).inc()
                counts["refused"] += 1
                problem = error_json(refused)
            files.append({"name": name, "analysis": analysis, "problem": problem})
        return {"schema": SCHEMA, "files": files, "summary": counts}

    def _unpacked(self, received: list[Received], folder: Path) -> list[Received] | list[Upload]:
        """The files of a request, or of the one archive that came."""
        if not any(_is_archive(each.path) for each in received):
            return received
        if len(received) > 1:
            raise Refused("mixed", "a zip came with other files", "send one zip, or pictures and videos")
        return unpack(accept(received[0].path, self.limits, received[0].name), folder, self.limits)


def _is_archive(path: Path) -> bool:
    with open(path, "rb") as file:
        return is_archive(file.read(HEAD))


def _damaged(error: Unreadable) -> Refused:
    """Without the path that the message of the error holds."""
    return Refused("damaged", f"the file cannot be read ({error.reason})", "send it anew, or another")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sweeping(site: Site | None) -> Any:
    """A lifespan in which what visitors left behind is deleted."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while site is not None:
                await asyncio.sleep(_SWEEP)
                await asyncio.to_thread(site.visits.sweep)

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            if site is not None:
                site.visits.close()

    return lifespan


def _add_errors(app: FastAPI, page: Callable[[Refused, str], str] | None) -> None:
    """What FastAPI itself refuses is answered in the same form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:3])
        refused = Refused("malformed", f"the request cannot be used ({wrong})", f"see {ROOT}/docs")
        return error_response(refused, request.url.path, page)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        known = {404: ("not-found", "there is nothing here"), 405: ("wrong-method", "not with this method")}
        code, words = known.get(error.status_code, ("malformed", str(error.detail)))
        refused = Refused(code, words, f"see {ROOT}/docs", error.status_code)
        answer = error_response(refused, request.url.path, page)
        answer.headers.update(error.headers or {})
        return answer


def _add_description(app: FastAPI, token: bool) -> None:
    """FastAPI's own description, without the form of its own errors, and with the token."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            parts = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                parts.pop(name, None)
            if token:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"token": []}]
                schema["paths"]["/healthz"]["get"]["security"] = []
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
