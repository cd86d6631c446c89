import threading
import time
from typing import Any

import pytest

pytest.importorskip("limits")

from crossfake.serve.intake.shares import TryLater
from crossfake.serve.web.queue import JobQueue, Stopped, Tell


def _wait(event: threading.Event) -> Any:
    def work(tell: Tell) -> str:
        while not event.wait(0.01):
            tell(0.5, "halfway")
        return "done"

    return work


def _until(true: Any) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it never came to that")


def test_a_job_tells_how_far_it_is_and_gives_its_result() -> None:
    queue, go = JobQueue(places=1), threading.Event()
    job = queue.start(_wait(go), threading.Event())
    _until(lambda: (job.share, job.words) == (0.5, "halfway"))
    go.set()
    assert job.future.result(5) == "done"


def test_the_next_waits_and_one_too_many_is_refused() -> None:
    queue, go = JobQueue(places=1, waiting=1), threading.Event()
    first, second = (queue.start(_wait(go), threading.Event()) for _ in range(2))
    assert (first.before, second.before) == (0, 1) and queue.counts == (1, 1)
    queue._typical = 3.0
    with pytest.raises(TryLater, match="2 requests are ahead") as caught:
        queue.start(_wait(go), threading.Event())
    assert caught.value.status == 503 and caught.value.seconds == 6
    more = queue.start(_wait(go), threading.Event(), more=True)  # goes on with what was let in
    go.set()
    assert [job.future.result(5) for job in (first, second, more)] == ["done"] * 3
    _until(lambda: queue.counts == (0, 0))


def test_work_stops_when_it_is_told_to_and_frees_its_place() -> None:
    queue, stop = JobQueue(places=1, waiting=0), threading.Event()
    job = queue.start(_wait(threading.Event()), stop)
    stop.set()
    with pytest.raises(Stopped):
        job.future.result(5)
    _until(lambda: queue.counts == (0, 0))
    assert queue.start(lambda tell: 1, threading.Event()).future.result(5) == 1
