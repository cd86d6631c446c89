"""How much of a server one client gets, and how much there is: requests in a minute, things at once, places."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator

from crossfake.serve.intake.headers import Refused

_MOST_CLIENTS = 10_000


class TryLater(Refused):
    """Not now: the answer says in how many seconds."""

    def __init__(self, code: str, message: str, seconds: float, status: int) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(code, message, f"try again in {self.seconds} s", status)


class RateLimit:
    """A bucket of tokens per client (IPv6: per /64), full at first, refilled evenly.

    Args:
        per_minute: size of a bucket, and how many tokens flow in within a minute.

    Example:
        >>> limit = RateLimit(1)
        >>> limit.take("192.0.2.1", now=0.0)
        >>> limit.take("192.0.2.1", now=30.0)
        Traceback (most recent call last):
        crossfake.serve.intake.shares.TryLater: more than 1 requests in a minute: try again in 30 s
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}  # client: tokens left, and when

    def take(self, client: str, now: float | None = None) -> None:
        """Take one token.

        Raises:
            TryLater: there is none.
        """
        now = time.monotonic() if now is None else now
        client, rate = _network(client), self.per_minute / 60
        left, then = self._buckets.get(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * rate)
        if left < 1:
            raise TryLater(
                "too-many-requests",
                f"more than {self.per_minute} requests in a minute",
                (1 - left) / rate,
                429,
            )
        if len(self._buckets) >= _MOST_CLIENTS:  # forget those whose bucket is full again, then the oldest
            fresh = {
                c: (n, t) for c, (n, t) in self._buckets.items() if n + (now - t) * rate < self.per_minute
            }
            self._buckets = dict(list(fresh.items())[-_MOST_CLIENTS // 2 :])
        self._buckets.pop(client, None)
        self._buckets[client] = (left - 1, now)


class Places:
    """So many requests at once inside, working or waiting; the next one is told that the server is busy.

    Args:
        concurrent: analyses that run at once.
        waiting: requests that may wait for them.
    """

    def __init__(self, concurrent: int, waiting: int) -> None:
        self.concurrent, self.waiting, self.inside = concurrent, waiting, 0
        self.typical = 1.0  # seconds of a recent request, smoothed

    def look(self) -> None:
        """Raise :class:`TryLater` if there is no place now."""
        if self.inside >= self.concurrent + self.waiting:
            seconds = min(60.0, self.typical * (self.waiting + 1) / self.concurrent)
            raise TryLater("busy", f"{self.inside} requests are ahead", seconds, 503)

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            TryLater: there is none.
        """
        self.look()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def took(self, seconds: float) -> None:
        """Learn how long one analysis takes."""
        self.typical += 0.2 * (seconds - self.typical)


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
