"""``detect serve``: the page and the API in one process."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from crossfake.errors import MissingDependency, UserError
from crossfake.serve.settings import ServeSettings
from crossfake.serve.web.run_reports import Reports

if TYPE_CHECKING:
    from fastapi import FastAPI

    from crossfake.serve.engine.generators import RunGenerators

_GRACE = 3  # seconds that running requests are given when the server stops
_WAITING = 16  # analyses that may wait, for each that runs
_CONNECTIONS = 800  # at once; most systems let a process open 1,024 files


def serve(
    settings: ServeSettings,
    generators: Callable[[], RunGenerators] | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        settings: what, where, to whom.
        generators: opens those of the page's tab Generate.
        tell: is given the address once it answers; until then ``/healthz`` says ``loading``, with status 503.

    Raises:
        UserError: the port is taken, the host is not this machine's, or a bundle cannot be loaded.
        MissingDependency: the extra ``app`` is not installed.
    """
    Reports(settings.runs, settings.reports)  # a wrong one is said before anything is loaded
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency("uvicorn", extra="app") from error
    if threading.current_thread() is threading.main_thread():  # as Ctrl-C: uploads are deleted on the way out
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _listen(settings.host, settings.port) as listener:  # first: models take seconds to load
        from crossfake.serve.web.connections import PatientProtocol
        from crossfake.serve.web.loading import Loading

        port = listener.getsockname()[1]
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = settings.public_url or f"http://{name}:{port}"

        def stop() -> None:
            server.should_exit = True

        app = Loading(
            lambda: create_app(settings, generators() if generators else None, warm=True),
            ready=lambda: tell(f"crossfake answers at {address}  (Ctrl-C stops it)"),
            failed=stop,
        )
        config = uvicorn.Config(
            app,
            http=PatientProtocol,
            limit_concurrency=_CONNECTIONS,
            log_level="warning",
            access_log=False,  # addresses and paths are nobody's business
            server_header=False,
            proxy_headers=False,  # anyone could claim to be somebody else
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn shuts down, then says again what stopped it
            server.run(sockets=[listener])
        if app.problem is not None:
            raise app.problem
        tell("stopped")


def create_app(
    settings: ServeSettings, generators: RunGenerators | None = None, warm: bool = False
) -> FastAPI:
    """What :func:`serve` serves, as an ASGI application for any other server.

    Args:
        settings: what, where, to whom.
        generators: for the page's tab Generate.
        warm: go on, in a thread, with what explanations need.
    """
    from crossfake.serve.engine.analysis import Analyser
    from crossfake.serve.web.api import ROOT, create_api
    from crossfake.serve.web.queue import JobQueue

    # A parser's warnings quote what strangers send
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    reports = Reports(settings.runs, settings.reports)
    analyser = Analyser(
        settings.bundles, settings.limits, settings.device, settings.face_model, alike=settings.alike
    )
    queue = JobQueue(settings.concurrent, _WAITING * settings.concurrent)
    site = None
    if settings.page:
        from crossfake.serve.web.pages import Site
        from crossfake.serve.web.visits import Visits
        from crossfake.serve.web.work import Worker

        worker = Worker(analyser, settings.limits, queue)
        secure = (settings.public_url or "").startswith("https:")
        site = Site(worker, Visits(settings.limits), generators, reports, secure)
    app = create_api(
        analyser,
        settings.limits,
        token=settings.token,
        requests_per_minute=settings.rate,
        queue=queue,
        hosts=settings.hosts,
        public_url=settings.public_url,
        trusted_proxies=settings.trusted_proxies,
        site=site,
    )
    if site is None:
        from starlette.responses import RedirectResponse

        app.add_route("/", lambda request: RedirectResponse(f"{ROOT}/docs"), include_in_schema=False)
    if warm:
        # The first visitor need not wait for what explanations need. No daemon: Python hangs or aborts when it ends
        # while one is inside torch
        threading.Thread(target=analyser.prepare, name="warm-up").start()
    return app


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound already.

    Raises:
        UserError: it cannot be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"there is no host {host!r} here", hint="give --host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror})",
            hint="stop what listens there, or give another --port",
        ) from error
    return listener
