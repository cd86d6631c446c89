"""``detect serve``: the page and the API in one process."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from crossfake.bounds import Bounds, check_bounds
from crossfake.errors import MissingDependency, UserError
from crossfake.runs import DEFAULT_ROOT
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web.run_pages import Reports
from crossfake.serve.web.security import LOOPBACK, host_name

if TYPE_CHECKING:
    from fastapi import FastAPI

    from crossfake.serve.engine.analysis import Analyser
    from crossfake.serve.engine.generators import RunGenerators

_SHORTEST_TOKEN = 16
_GRACE = 3  # seconds that running requests are given when the server stops
_CONNECTIONS = 800  # at once; most systems let a process open 1,024 files
_ANYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class ServeSettings:
    """What to serve, and to whom.

    Attributes:
        bundles: runs of ``detect train`` or bundle folders; several are asked side by side.
        host: name or address to listen on. Beyond this machine only with a token.
        port: 0 takes a free one.
        token: that the API and the page ask for; browsers ask for it as the password of any user.
        limits: of uploads.
        runs: folder whose generators the page offers.
        reports: pages below ``runs``, or folders of them, that the page shows to everybody.
        page: serve the page, not the API alone.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        face_model: YuNet's ONNX file.
        requests_per_minute: of one client to the API.
        concurrent: analyses of the API at once.
        public_url: the origin that browsers come by when a proxy stands before the server: ``https://facts.example``.
        trusted_proxies: addresses or networks of proxies whose ``X-Forwarded-For`` says who asks.

    Raises:
        UserError: no bundle, a port or rate that is none, a weak token, or none where one is needed, a public URL that
            is no origin, a proxy that is no address, a report that is not there.
    """

    bundles: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: Annotated[int, Bounds(0, 65_535)] = 7860
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    runs: Path = DEFAULT_ROOT
    reports: tuple[Path, ...] = ()
    page: bool = True
    device: str = "auto"
    face_model: Path | None = None
    requests_per_minute: Annotated[int, Bounds(1, 10**6)] = 60
    concurrent: Annotated[int, Bounds(1, 1024)] = 2
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.bundles:
            raise UserError("there is no detector to serve", mend="name one with --bundle")
        check_bounds(self)
        make = "make one with 'openssl rand -hex 24' and give it as --token or CROSSFAKE_TOKEN"
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not _plain(self.token)):
            raise UserError(
                f"a token needs {_SHORTEST_TOKEN} or more letters, digits and signs of ASCII, without spaces",
                mend=make,
            )
        if self.token is None and not is_loopback(self.host):
            raise UserError(f"{self.host} can be reached by others, and there is no token", mend=make)
        if self.public_url is not None:
            object.__setattr__(self, "public_url", _origin(self.public_url))
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise UserError(
                    f"a trusted proxy is known by its address, which {proxy!r} is not",
                    mend="give --trusted-proxy 127.0.0.1, or a network such as 10.0.0.0/8",
                ) from None
        Reports(self.runs, self.reports)

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that requests may call the server by; None: any, where it listens on all addresses."""
        if self.host in _ANYWHERE:
            return None
        name = f"[{self.host}]" if ":" in self.host else self.host.lower()
        public = {host_name(urlsplit(self.public_url).netloc)} if self.public_url else set()
        return LOOPBACK | {name} | public


def is_loopback(host: str) -> bool:
    """Whether a name or an address stands for this machine alone.

    Example:
        >>> is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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
    from crossfake.serve.web.api import create_api

    if settings.page and find_spec("gradio") is None:  # before models are loaded
        raise MissingDependency("gradio", extra="app")
    # A parser's warnings quote what strangers send
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    analyser = Analyser(settings.bundles, settings.limits, settings.device, settings.face_model)
    app = create_api(
        analyser,
        settings.limits,
        token=settings.token,
        requests_per_minute=settings.requests_per_minute,
        concurrent=settings.concurrent,
        hosts=settings.hosts,
        public_url=settings.public_url,
        trusted_proxies=settings.trusted_proxies,
    )
    app.state.analyser = analyser
    _add_page(app, analyser, settings, generators)
    if warm:
        # The first visitor need not wait for what explanations need. After the page, so that nobody waits for this
        # either. No daemon: Python hangs or aborts when it ends while one is inside torch
        threading.Thread(target=analyser.prepare, name="warm-up").start()
    return app


def _add_page(
    app: FastAPI, analyser: Analyser, settings: ServeSettings, generators: RunGenerators | None
) -> None:
    if settings.page:
        from crossfake.serve.web.page import mount_page

        mount_page(
            app, analyser, settings.limits, generators=generators,
            reports=Reports(settings.runs, settings.reports), public_url=settings.public_url,
        )  # fmt: skip
    else:
        from fastapi.responses import RedirectResponse

        from crossfake.serve.web.api import ROOT

        app.add_route("/", lambda request: RedirectResponse(f"{ROOT}/docs"), include_in_schema=False)


def _origin(address: str) -> str:
    """Scheme, name and port of an address, as browsers send it.

    Raises:
        UserError: it is none, or more.
    """
    parts = urlsplit(address.strip().rstrip("/").lower())
    with contextlib.suppress(ValueError):
        bare = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme in ("http", "https") and parts.hostname and bare:
            standard = {"http": 80, "https": 443}[parts.scheme] == parts.port
            return f"{parts.scheme}://{parts.netloc.rpartition(':')[0] if standard else parts.netloc}"
    raise UserError(
        f"{address!r} is no address of a site", mend="give --public-url https://facts.example, no more"
    )


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
        raise UserError(f"there is no host {host!r} here", mend="give --host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror})",
            mend="stop what listens there, or give another --port",
        ) from error
    return listener


def _plain(token: str) -> bool:
    return token.isascii() and all("!" <= sign <= "~" for sign in token)
