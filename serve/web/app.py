"""The application: the API and the page, what stands before them, and what becomes of an error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from crossfake import __version__
from crossfake.errors import MissingDependency
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import MIB
from crossfake.serve.settings import ServeSettings

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import RedirectResponse
    from starlette.staticfiles import StaticFiles
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from crossfake.serve.intake.shares import RateLimit
    from crossfake.serve.web import api, pages
    from crossfake.serve.web.metrics import Metrics
    from crossfake.serve.web.queue import JobQueue
    from crossfake.serve.web.security import Guard, log_fault
    from crossfake.serve.web.visits import Visits
    from crossfake.serve.web.work import Worker
except ImportError as missing:
    raise MissingDependency((missing.name or "fastapi").partition(".")[0], extra="app") from missing

_WAITING = 16  # analyses that may wait, for each that runs
_SWEEP = 5.0  # seconds: how often what visitors left behind is looked for
_ABOUT = (
    "Judges faces in pictures and videos. A probability is that of being fake, among images like those that the "
    "detector was validated on. A generator that it never saw may pass as real. It is not proof. "
    "Files are kept in a private folder until the request is answered, and then deleted; names are not logged."
)


def create_app(
    settings: ServeSettings, analyser: Analyser | None = None, key: Path | None = None, warm: bool = False
) -> FastAPI:
    """What ``detect serve`` serves, as an ASGI application for any server.

    Args:
        settings: what, where, to whom.
        analyser: one that is loaded already.
        key: Ed25519 key that reports are signed with; None: the user's.
        warm: go on, in a thread, with what explanations need.
    """
    # A parser's warnings quote what strangers send
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    limits = settings.limits
    if analyser is None:
        analyser = Analyser(
            settings.bundles, limits, settings.device, settings.face_model, alike=settings.alike
        )
    queue = JobQueue(settings.concurrent, _WAITING * settings.concurrent)
    metrics = Metrics(queue)
    site = None
    if settings.page:
        secure = (settings.public_url or "").startswith("https:")
        site = pages.Site(Worker(analyser, limits, queue, key), Visits(limits), secure)
    app = FastAPI(
        title="crossfake",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{api.ROOT}/openapi.json",
        lifespan=_lifespan,
        exception_handlers={RequestValidationError: _invalid, HTTPException: _wrong},
    )
    app.state.site = site
    app.add_middleware(
        Guard,
        most=limits.bytes_archive + MIB,
        token=settings.token,
        hosts=settings.hosts,
        rate=RateLimit(settings.rate),
        metrics=metrics,
        routes=api.ROUTES,
        public=settings.public_url,
        page=site.problem if site else None,
    )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    app.include_router(api.routes(analyser, limits, queue, metrics, settings.token is not None))
    app.mount("/static", StaticFiles(directory=api.STATIC), name="static")
    if site is not None:
        app.include_router(pages.routes(site))
    else:
        app.add_route("/", lambda request: RedirectResponse(f"{api.ROOT}/docs"), include_in_schema=False)
    if warm:
        # The first visitor need not wait for what explanations need. No daemon: Python hangs or aborts when it ends
        # while one is inside torch
        threading.Thread(target=analyser.prepare, name="warm-up").start()
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While it lives what visitors left behind is deleted, and an error that nobody waits for is logged by its kind."""

    def uncaught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log_fault(context.get("exception") or RuntimeError())  # its message may quote what a client sent

    async def sweep() -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            if visits is not None:
                await asyncio.to_thread(visits.sweep)

    asyncio.get_running_loop().set_exception_handler(uncaught)
    visits = app.state.site and app.state.site.visits
    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        if visits is not None:
            visits.close()


# What FastAPI itself refuses is answered by the guard, as everything else


async def _invalid(request: Request, error: Exception) -> Any:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:3])
    raise Refused("malformed", f"the request cannot be used ({wrong})", f"see {api.ROOT}/docs")


async def _wrong(request: Request, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    known = {404: ("not-found", "there is nothing here"), 405: ("wrong-method", "not with this method")}
    code, words = known.get(error.status_code, ("malformed", str(error.detail)))
    raise Refused(code, words, f"see {api.ROOT}/docs", error.status_code, error.headers)
