"""The API: pictures and videos in, JSON out; its description, its health and its metrics."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from crossfake import __version__
from crossfake.datasets.decode import Unreadable
from crossfake.errors import MissingDependency
from crossfake.serve.engine.results import SCHEMA, Analysis
from crossfake.serve.intake.accepting import (
    Upload,
    accept,
    display_name,
    session_folder,
    unpack,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import MIB, Limits
from crossfake.serve.intake.receiving import Received, gone, receive_files
from crossfake.serve.intake.shares import Places, RateLimit
from crossfake.serve.web.openapi import ABOUT, components, docs_page, operation
from crossfake.serve.web.security import LOOPBACK, Guard, error_headers, error_json

try:
    import anyio
    import anyio.to_thread
    from fastapi import Depends, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, Response
    from starlette.exceptions import HTTPException
    from starlette.routing import Route
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from crossfake.serve.web.metrics import CONTENT_TYPE, Metrics
except ImportError as missing:
    raise MissingDependency((missing.name or "fastapi").partition(".")[0], extra="app") from missing

if TYPE_CHECKING:
    from crossfake.serve.engine.analysis import Analyser, Progress

ROOT = "/api/v1"
ROUTES = ("/healthz", "/metrics", *(f"{ROOT}/{name}" for name in ("analyze", "batch", "detectors", "docs")))
_WAITING = 16  # requests that may wait, for each that works
_OVERHEAD = MIB  # of a form around its files

Explain = Annotated[bool, Query(description="Of pictures: heat map, spectrum, nearest training pictures.")]
Stability = Annotated[bool, Query(description="Of pictures: the score under recompression and resizing.")]
Pictures = Annotated[bool, Query(description="Put heat maps, crops and spectra in as data URIs.")]


def _known_fields(request: Request) -> None:
    """A field of the query that is misspelt would be ignored, and its sender believe otherwise."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            hint = f"use {' or '.join(sorted(known))}" if known else "leave it out"
            raise Refused("unknown-field", "the query has a field that is not known", hint)


class _Stopped(Exception):
    """Raised in the thread of an analysis whose client went away."""


def create_api(
    analyser: Analyser,
    limits: Limits,
    *,
    token: str | None = None,
    requests_per_minute: int = 60,
    concurrent: int = 2,
    hosts: Collection[str] | None = LOOPBACK,
    public_url: str | None = None,
    trusted_proxies: Collection[str] = (),
) -> FastAPI:
    """The API as an ASGI application; a page may be mounted into it and is guarded likewise.

    Args:
        analyser: does the work, in threads.
        limits: of what is accepted.
        token: that all requests but ``/healthz`` must bear.
        requests_per_minute: of one client, to what is below ``/api/`` and changes or computes something.
        concurrent: analyses at once; sixteen times as many may wait, then the answer is 503 with ``Retry-After``.
        hosts: names that the Host header may give, against DNS rebinding; None: any.
        public_url: the origin that browsers come by, behind a proxy.
        trusted_proxies: addresses or networks whose word on who asks (``X-Forwarded-For``) is taken.

    Raises:
        MissingDependency: the extra ``app`` is not installed.
    """
    places = Places(concurrent, _WAITING * concurrent)
    service = _Service(analyser, limits, places)
    app = FastAPI(
        title="crossfake",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{ROOT}/openapi.json",
    )
    app.add_middleware(
        Guard,
        most=limits.bytes_archive + _OVERHEAD,
        token=token,
        hosts=hosts,
        rate=RateLimit(requests_per_minute),
        metrics=service.metrics,
        routes=ROUTES,
        public=public_url,
    )
    if trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(trusted_proxies))
    known = [Depends(_known_fields)]
    _add_errors(app)
    _add_description(app, token is not None)

    @app.post(f"{ROOT}/analyze", dependencies=known, **operation("analyze"))
    async def analyze(
        request: Request, explain: Explain = True, stability: Stability = True, pictures: Pictures = False
    ) -> Response:
        places.look()
        with session_folder() as folder:
            most = max(limits.bytes_image, limits.bytes_video) + _OVERHEAD
            [received] = await receive_files(
                request, folder, limits, field="file", kinds=("image", "video"), most=most
            )
            return await service.finish(  # in a place from here on: while it sends, a client holds nothing up
                request,
                lambda progress: service.analysis(
                    accept(received.path, limits, received.name), explain, stability, progress
                ).to_json(pictures),
            )

    @app.post(f"{ROOT}/batch", dependencies=known, **operation("batch"))
    async def batch(request: Request, explain: Explain = False, stability: Stability = False) -> Response:
        places.look()
        with session_folder() as folder:
            received = await receive_files(
                request, folder, limits, field="files", kinds=("image", "video", "archive"),
                most=limits.bytes_archive + _OVERHEAD, files=limits.files, strict=False,
            )  # fmt: skip
            return await service.finish(
                request, lambda progress: service.batch(received, folder, explain, stability, progress)
            )

    @app.get(f"{ROOT}/detectors", dependencies=known, **operation("detectors"))
    def detectors() -> Response:
        return JSONResponse([dataclasses.asdict(facts) for facts in analyser.about()])

    @app.get("/healthz", **operation("healthz"))
    async def healthz() -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "detectors": list(analyser.detectors)})

    @app.get("/metrics", **operation("metrics"))
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @app.get(f"{ROOT}/docs", include_in_schema=False)
    async def docs() -> Response:
        page, policy = docs_page(app.openapi())
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    # A page mounted at the root must not answer for the API
    methods_of = {route.path: route.methods or () for route in app.routes if isinstance(route, Route)}

    @app.api_route(
        "/api/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
    )
    async def elsewhere(request: Request) -> Response:
        if methods := methods_of.get(request.url.path):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        raise HTTPException(404)

    return app


class _Service:
    """What the routes share."""

    def __init__(self, analyser: Analyser, limits: Limits, places: Places) -> None:
        self.analyser, self.limits, self.places = analyser, limits, places
        self.turns = anyio.CapacityLimiter(places.concurrent)
        self.metrics = Metrics(self._working, lambda: places.inside - self._working())

    def _working(self) -> int:
        return int(self.turns.borrowed_tokens)

    async def finish(self, request: Request, work: Callable[[Progress], dict[str, Any]]) -> Response:
        """Take a place and work in a thread, in turn; stop when the client goes away."""
        stop = threading.Event()
        answer: bytes | None = None
        problem: Exception | None = None

        def progress(share: float, what: str) -> None:
            if stop.is_set():
                raise _Stopped

        def task() -> bytes:
            progress(0.0, "")
            start = time.perf_counter()
            made = json.dumps(work(progress), allow_nan=False).encode()
            self.places.took(time.perf_counter() - start)
            return made

        async def watch(scope: anyio.CancelScope) -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            stop.set()
            scope.cancel()

        try:
            with self.places.enter():
                async with anyio.create_task_group() as group:
                    group.start_soon(watch, group.cancel_scope)
                    try:
                        answer = await anyio.to_thread.run_sync(task, limiter=self.turns)
                    except Exception as error:
                        problem = error
                    group.cancel_scope.cancel()
        finally:
            stop.set()  # also when the server shuts down
        if answer is None and (problem is None or isinstance(problem, _Stopped)):
            raise gone()
        if isinstance(problem, Unreadable):
            problem = _damaged(problem)
        if problem is not None:
            raise problem
        return Response(answer, media_type="application/json")

    def analysis(self, upload: Upload, explain: bool, stability: bool, progress: Progress) -> Analysis:
        if upload.kind == "video":
            made = self.analyser.video(upload, progress=progress)
        else:
            made = self.analyser.image(upload, explain=explain, stability=stability, progress=progress)
        self.metrics.analyses.labels(made.kind, made.verdict).inc()
        return made

    def batch(
        self, received: list[Received], folder: Path, explain: bool, stability: bool, progress: Progress
    ) -> dict[str, Any]:
        uploads: list[Received | Upload] = [*received]
        if any(each.kind == "archive" for each in received):
            if len(received) > 1:
                raise Refused(
                    "mixed", "a zip came with other files", "send one zip, or pictures and videos", 422
                )
            inside = folder / "inside"
            inside.mkdir(mode=0o700)
            uploads = [*unpack(accept(received[0].path, self.limits, received[0].name), inside, self.limits)]
        files: list[dict[str, Any]] = []
        counts = {"files": len(uploads), "refused": 0, "fake": 0, "uncertain": 0, "real": 0, "not judged": 0}
        for number, each in enumerate(uploads):

            def part(share: float, what: str, done: int = number) -> None:
                progress((done + share) / len(uploads), what)

            part(0.0, "")
            name, made = self._one(each, explain, stability, part)
            if isinstance(made, Refused):
                self.metrics.refusals.labels(made.code).inc()
                counts["refused"] += 1
                files.append({"name": name, "analysis": None, "problem": error_json(made)})
            else:
                counts[made.verdict] += 1
                files.append({"name": name, "analysis": made.to_json(), "problem": None})
        return {"schema": SCHEMA, "files": files, "summary": counts}

    def _one(
        self, each: Received | Upload, explain: bool, stability: bool, progress: Progress
    ) -> tuple[str, Analysis | Refused]:
        """One file of a batch: its name to show, and what is said of it or why nothing is."""
        name = display_name(each.name) if isinstance(each, Received) else each.name_for_display
        try:
            if isinstance(each, Received):
                if each.problem is not None:
                    raise each.problem
                each = accept(each.path, self.limits, each.name)
            elif each.problem:
                raise Refused(each.code, each.problem, "leave it out or replace it")
            return each.name_for_display, self.analysis(each, explain, stability, progress)
        except Unreadable as error:
            return name, _damaged(error)
        except Refused as error:
            return name, error


def _damaged(error: Unreadable) -> Refused:
    """Without the path that the message of the error holds."""
    return Refused("damaged", f"the file cannot be read ({error.reason})", "send it anew, or another")


def _add_errors(app: FastAPI) -> None:
    """What FastAPI itself refuses is answered in the same form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:3])
        return _answer(Refused("malformed", f"the request cannot be used ({wrong})", f"see {ROOT}/docs"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        known = {404: ("not-found", "there is nothing here"), 405: ("wrong-method", "not with this method")}
        code, words = known.get(error.status_code, ("malformed", str(error.detail)))
        answer = _answer(Refused(code, words, f"see {ROOT}/docs", error.status_code))
        answer.headers.update(error.headers or {})
        return answer


def _answer(error: Refused) -> JSONResponse:
    return JSONResponse(error_json(error), error.status, error_headers(error))


def _add_description(app: FastAPI, token: bool) -> None:
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema["components"] = {"schemas": components()}
            if token:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"token": []}]
                schema["paths"]["/healthz"]["get"]["security"] = []
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
