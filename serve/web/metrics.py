"""What Prometheus reads at ``/metrics``: counts and times, never a name, an address or a picture."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)

from crossfake import __version__
from crossfake.serve.web.queue import JobQueue

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        queue: says how many analyses run, and how many wait.
    """

    def __init__(self, queue: JobQueue) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "crossfake_requests", "Requests by route and status.", ("route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "crossfake_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.analyses = Counter(
            "crossfake_analyses",
            "Files analysed, by kind and verdict.",
            ("kind", "verdict"),
            registry=registry,
        )
        self.refusals = Counter(
            "crossfake_refusals", "Requests and files not taken, by code.", ("code",), registry=registry
        )
        self.received = Counter("crossfake_received_bytes", "Bytes of request bodies.", registry=registry)
        working = Gauge("crossfake_working", "Analyses that run.", registry=registry)
        working.set_function(lambda: queue.counts[0])
        waiting = Gauge("crossfake_waiting", "Requests that wait for their turn.", registry=registry)
        waiting.set_function(lambda: queue.counts[1])
        Info("crossfake", "The software.", registry=registry).info({"version": __version__})

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)
