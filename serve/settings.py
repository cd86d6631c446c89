"""What ``detect serve`` is told: what to serve, and to whom."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from crossfake.bounds import Bounds, check_bounds
from crossfake.detect.settings import Bundle
from crossfake.errors import UserError
from crossfake.options import Folder, Option, There
from crossfake.serve.intake.limits import Limits

_SHORTEST_TOKEN = 16
_ANYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class ServeSettings:
    """What to serve, and to whom.

    Attributes:
        bundles: run of 'detect train' or a bundle; repeated, several side by side [default: the newest finished run,
            and all that lie in --models].
        host: name or address to listen on; beyond this machine with a token.
        port: 0: a free one.
        token: that callers must bear. Browsers ask for it as the password of any user.
        models: bundles that are served when none is named. It is where 'detect import' puts what it reads.
        public_url: how browsers reach it through a proxy: https://facts.example.
        trusted_proxies: a proxy whose word on who asks is taken (X-Forwarded-For); repeated. It is an address or a
            network.
        alike: show the training pictures that a detector finds most alike. They are strangers' faces, and persuade.
        page: serve the page, not the API alone.
        rate: requests per minute of one client, of those that begin something.
        concurrent: analyses at once.
        face_model: YuNet's ONNX file.
        device: ``auto``, cpu, cuda or cuda:N.
        limits: of uploads.

    Raises:
        UserError: no bundle, a port or rate that is none, a weak token, or none where one is needed, a public URL that
            is no origin, a proxy that is no address.
    """

    bundles: Annotated[tuple[Bundle, ...], Option("--bundle")]
    host: str = "127.0.0.1"
    port: Annotated[int, Bounds(0, 65_535)] = 7860
    token: Annotated[str | None, Option(envvar="CROSSFAKE_TOKEN")] = None
    limits: Limits = field(default_factory=Limits)
    models: Folder = Path("models")
    page: bool = True
    alike: bool = False
    device: str = "auto"
    face_model: There | None = None
    rate: Annotated[int, Bounds(1, 10**6)] = 60
    concurrent: Annotated[int, Bounds(1, 1024)] = 2
    public_url: str | None = None
    trusted_proxies: Annotated[tuple[str, ...], Option("--trusted-proxy", metavar="ADDRESS")] = ()

    def __post_init__(self) -> None:
        if not self.bundles:
            raise UserError("there is no detector to serve", hint="name one with --bundle")
        check_bounds(self)
        make = "make one with 'openssl rand -hex 24' and give it as --token or CROSSFAKE_TOKEN"
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not _is_typeable(self.token)):
            raise UserError(
                f"a token needs {_SHORTEST_TOKEN} or more letters, digits and signs of ASCII, without spaces",
                hint=make,
            )
        if self.token is None and not is_loopback(self.host):
            raise UserError(f"{self.host} can be reached by others, and there is no token", hint=make)
        if self.public_url is not None:
            object.__setattr__(self, "public_url", _origin(self.public_url))
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise UserError(
                    f"a trusted proxy is known by its address, which {proxy!r} is not",
                    hint="give --trusted-proxy 127.0.0.1, or a network such as 10.0.0.0/8",
                ) from None

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that requests may call the server by; None: any, where it listens on all addresses."""
        from crossfake.serve.web.security import LOOPBACK, host_name

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
        f"{address!r} is no address of a site", hint="give --public-url https://facts.example, no more"
    )


def _is_typeable(token: str) -> bool:
    return token.isascii() and all("!" <= sign <= "~" for sign in token)
