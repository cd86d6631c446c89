"""How much of a server one client gets: requests in a minute, things at once."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from crossfake.serve.intake.headers import Refused


class TryLater(Refused):
    """Not now: the answer says in how many seconds."""

    def __init__(self, code: str, message: str, seconds: float, status: int) -> None:
        self.seconds = max(1, math.ceil(seconds))
        later = {"Retry-After": str(self.seconds)}
        super().__init__(code, message, f"try again in {self.seconds} s", status, later)


class RateLimit:
    """Requests of one client (IPv6: of a /64) within any minute.

    Example:
        >>> limit = RateLimit(1)
        >>> limit.take("192.0.2.1")
        >>> limit.take("192.0.2.1")
        Traceback (most recent call last):
        crossfake.serve.intake.shares.TryLater: more than 1 requests in a minute: try again in 60 s
    """

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            TryLater: it is one too many.
        """
        client = _network(client)
        if not self._limiter.hit(self._item, client):
            seconds = self._limiter.get_window_stats(self._item, client).reset_time - time.time()
            words = f"more than {self._item.amount} requests in a minute"
            raise TryLater("too-many-requests", words, seconds, 429)


class Shares:
    """So many of something at once, of one client (IPv6: per /64) and of all.

    Args:
        each: of one client.
        total: of all.
        what: that there is too much of, in the answer.
    """

    def __init__(self, each: int, total: int, what: str) -> None:
        self.each, self.total, self.what = each, total, what
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Hold one.

        Raises:
            TryLater: the client has as many as it may, or all have.
        """
        client = _network(client)
        if self._held[client] >= self.each:
            raise TryLater("too-many-requests", f"{self.what} of yours", 5, 429)
        if self._held.total() >= self.total:
            raise TryLater("busy", self.what, 5, 503)
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]


def _network(client: str) -> str:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(client)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return client
