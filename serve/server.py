"""``detect serve``: the page and the API in one process."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

from crossfake.errors import MissingDependency, UserError
from crossfake.serve.settings import ServeSettings

_GRACE = 3  # seconds that running requests are given when the server stops
_CONNECTIONS = 800  # at once; most systems let a process open 1,024 files


def serve(settings: ServeSettings, tell: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM. Whoever connects while the detectors are loaded waits for that.

    Args:
        settings: what, where, to whom.
        tell: is given the address once it answers.

    Raises:
        UserError: the port is taken, the host is not this machine's, or a bundle cannot be loaded.
        MissingDependency: the extra ``app`` is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency("uvicorn", extra="app") from error
    from crossfake.serve.web.connections import PatientProtocol

    with _listen(settings.host, settings.port) as listener, _until_stopped():
        from crossfake.serve.web.app import create_app  # models take seconds to load

        config = uvicorn.Config(
            create_app(settings, warm=True),
            http=PatientProtocol,
            limit_concurrency=_CONNECTIONS,
            log_level="warning",
            access_log=False,  # addresses and paths are nobody's business
            server_header=False,
            proxy_headers=False,  # anyone could claim to be somebody else
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = settings.public_url or f"http://{name}:{listener.getsockname()[1]}"
        tell(f"crossfake answers at {address}  (Ctrl-C stops it)")
        uvicorn.Server(config).run(sockets=[listener])  # which says again what stopped it
    tell("stopped")


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Ends quietly at Ctrl-C, and at SIGTERM as then: uploads are deleted on the way out."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound already.

    Raises:
        UserError: it cannot be.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise UserError(
            f"cannot listen on {host}, port {port} ({reason})",
            hint="stop what listens there, or give another --port, or --host 127.0.0.1",
        ) from error
