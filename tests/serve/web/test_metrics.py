import pytest

pytest.importorskip("prometheus_client")
parser = pytest.importorskip("prometheus_client.parser")

from crossfake.serve.web.metrics import Metrics  # noqa: E402
from crossfake.serve.web.queue import JobQueue  # noqa: E402


def test_what_was_counted_can_be_read_by_prometheus() -> None:
    queue = JobQueue()
    queue._inside = list("abcde")
    metrics = Metrics(queue)
    metrics.observe("/api/v1/analyze", 200, 0.3)
    metrics.observe("page", 404, 0.01)
    metrics.analyses.labels("image", "fake").inc()
    metrics.refusals.labels("busy").inc()
    metrics.received.inc(1000)
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert samples["crossfake_requests_total", ("route", "/api/v1/analyze"), ("status", "200")] == 1
    assert samples["crossfake_request_seconds_bucket", ("le", "0.5"), ("route", "/api/v1/analyze")] == 1
    assert samples["crossfake_request_seconds_bucket", ("le", "0.25"), ("route", "/api/v1/analyze")] == 0
    assert samples["crossfake_analyses_total", ("kind", "image"), ("verdict", "fake")] == 1
    assert samples["crossfake_refusals_total", ("code", "busy")] == 1
    assert (samples[("crossfake_working",)], samples[("crossfake_waiting",)]) == (2, 3)
    assert samples[("crossfake_received_bytes_total",)] == 1000


def test_servers_count_for_themselves() -> None:
    one, other = Metrics(JobQueue()), Metrics(JobQueue())
    one.refusals.labels("busy").inc()
    assert b'code="busy"' in one.render() and b'code="busy"' not in other.render()
