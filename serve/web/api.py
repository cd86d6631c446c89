"""The API's routes, and how they describe themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import FileResponse, JSONResponse, Response

from crossfake import __version__
from crossfake.detect.verdict import NOT_JUDGED, VERDICTS
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.results import SCHEMA
from crossfake.serve.intake.accepting import Received, accept, accept_all, session_folder
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits
from crossfake.serve.intake.receiving import gone, receive_files
from crossfake.serve.web import schemas
from crossfake.serve.web.metrics import CONTENT_TYPE, Metrics
from crossfake.serve.web.queue import JobQueue, Steps, Stopped, Tell
from crossfake.serve.web.security import PAGE, error_json

ROOT = "/api/v1"
STATIC = Path(__file__).parent / "static"
ROUTES = ("/healthz", "/metrics", *(f"{ROOT}/{name}" for name in ("analyze", "batch", "detectors", "docs")))
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
    503: "Busy; Retry-After says when.",
    507: "The disk is full.",
}

Explain = Annotated[bool, Query(description="Heat map, spectrum, error levels, noise.")]
Stability = Annotated[bool, Query(description="Of pictures: the score under recompression and resizing.")]
Prior = Annotated[
    float | None,
    Query(gt=0, lt=1, description="Share of fakes among such pictures; without it each detector's own."),
]
Pictures = Annotated[bool, Query(description="Put heat maps, crops and spectra in as data URIs.")]


def routes(
    analyser: Analyser, limits: Limits, queue: JobQueue, metrics: Metrics, token: bool = False
) -> APIRouter:
    """All of the API.

    Args:
        analyser: does the work, in threads.
        limits: of what is accepted.
        queue: where analyses wait for their turn; when too many do, the answer is 503 with ``Retry-After``.
        metrics: that count.
        token: say in the description that requests bear one; the guard looks at it.
    """
    router = APIRouter()
    known: list[Any] = [Depends(_known_fields)]
    secured: list[Any] = [Security(HTTPBearer(scheme_name="token", auto_error=False))] if token else []

    async def finish(
        request: Request,
        field: str,
        files: int,
        work: Callable[[list[Received], Path, Tell], Steps[dict[str, Any]]],
    ) -> Response:
        """Receive files, then work in turn: while it sends, a client holds nothing up."""
        queue.look()
        with session_folder() as folder:
            received = await receive_files(request, folder, field=field, files=files)

            def written(tell: Tell) -> Steps[bytes]:
                return json.dumps((yield from work(received, folder, tell)), allow_nan=False).encode()

            return Response(await _unless_gone(request, queue, written), media_type="application/json")

    @router.post(
        f"{ROOT}/analyze", dependencies=known + secured, **_described(schemas.Analysis), **_form("file")
    )
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

        def work(received: list[Received], folder: Path, tell: Tell) -> Steps[dict[str, Any]]:
            upload = accept(received[0].path, limits, received[0].name)
            for found in analyser.stages(  # noqa: B007
                upload, explain=explain, stability=stability, prior=prior, progress=tell
            ):
                yield
            metrics.analyses.labels(found.kind, found.verdict).inc()
            return found.to_json(pictures)

        return await finish(request, "file", 1, work)

    @router.post(
        f"{ROOT}/batch", dependencies=known + secured, **_described(schemas.Batch), **_form("files", True)
    )
    async def batch(
        request: Request, explain: Explain = False, stability: Stability = False, prior: Prior = None
    ) -> Response:
        """Analyse many files, those of zips among them.

        One after the other. A file that is not taken is listed with its problem and stops nothing.
        """

        def work(received: list[Received], folder: Path, tell: Tell) -> Steps[dict[str, Any]]:
            uploads, files = accept_all(received, folder, limits), []
            counts = dict.fromkeys(("files", "refused", *reversed(VERDICTS), NOT_JUDGED), 0)
            for upload, found, refused in analyser.analyse_each(
                uploads, tell, explain=explain, stability=stability, prior=prior
            ):
                if found:
                    metrics.analyses.labels(found.kind, found.verdict).inc()
                if refused:
                    metrics.refusals.labels(refused.code).inc()
                counts[found.verdict if found else "refused"] += 1
                files.append(
                    {
                        "name": upload.name_for_display,
                        "analysis": found and found.to_json(),
                        "problem": refused and error_json(refused),
                    }
                )
                yield
            return {"schema": SCHEMA, "files": files, "summary": {**counts, "files": len(files)}}

        return await finish(request, "files", limits.files, work)

    @router.get(
        f"{ROOT}/detectors",
        dependencies=known + secured,
        **_described(list[schemas.DetectorFacts], ()),  # type: ignore[valid-type]
    )
    def detectors() -> Response:
        """What each detector was trained and tested on, and how often it calls a real picture fake."""
        return JSONResponse([dataclasses.asdict(facts) for facts in analyser.about()])

    @router.get("/healthz", **_described(schemas.Health, ()))
    async def healthz() -> Response:
        """Is it up? Needs no token."""
        names = list(analyser.detectors)
        return JSONResponse({"status": "ok", "version": __version__, "detectors": names})

    @router.get(
        "/metrics",
        dependencies=secured,
        responses={200: {"content": {"text/plain": {}}}},
        response_class=Response,
    )
    async def metrics_() -> Response:
        """Counts and times for Prometheus. No names, addresses or pictures."""
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @router.get(f"{ROOT}/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": PAGE})

    return router


def _described(model: Any, more: tuple[int, ...] = (400, 403, 408, 413, 415, 507)) -> dict[str, Any]:
    """What FastAPI is told of a route whose answers are written in threads: their form, and that of its errors."""
    statuses = sorted((401, 421, 422, 429, 500, 503, *more))
    errors = {code: {"model": schemas.Error, "description": _WHEN[code]} for code in statuses}
    return {"response_model": model, "responses": errors}


def _form(field: str, several: bool = False) -> dict[str, Any]:
    """The form of a route that reads it by itself."""
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "properties": {field: {"type": "array", "items": file, "minItems": 1} if several else file},
        "required": [field],
        "additionalProperties": False,
    }
    content = {"multipart/form-data": {"schema": form}}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


def _known_fields(request: Request) -> None:
    """A field of the query that is misspelt would be ignored, and its sender believe otherwise."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            hint = f"use {' or '.join(sorted(known))}" if known else "leave it out"
            raise Refused("unknown-field", "the query has a field that is not known", hint)


async def _unless_gone(request: Request, queue: JobQueue, work: Callable[[Tell], Steps[bytes]]) -> bytes:
    """The result of work in a thread, in turn; it is stopped when the client goes away."""
    stop = threading.Event()
    job = queue.start(work, stop)
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
    return done.result()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
