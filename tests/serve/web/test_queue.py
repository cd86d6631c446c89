import threading
import time
from typing import Any

import pytest

pytest.importorskip("limits")

from crossfake.serve.intake.shares import TryLater
from crossfake.serve.web.queue import JobQueue, Steps, Stopped, Tell


def _wait(event: threading.Event) -> Any:
    def work(tell: Tell) -> Steps[str]:
        while not event.wait(0.01):
            tell(0.5, "halfway")
        return "done"
        yield

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
    go.set()
    assert [job.future.result(5) for job in (first, second)] == ["done"] * 2
    _until(lambda: queue.counts == (0, 0))


def test_work_stops_when_it_is_told_to_and_frees_its_place() -> None:
    queue, stop = JobQueue(places=1, waiting=0), threading.Event()
    job = queue.start(_wait(threading.Event()), stop)
    stop.set()
    with pytest.raises(Stopped):
        job.future.result(5)
    _until(lambda: queue.counts == (0, 0))
    assert queue.start(_wait(stop), threading.Event()).future.result(5) == "done"


def test_who_pauses_goes_to_the_end_of_the_line() -> None:
    queue, order = JobQueue(places=1), list[str]()

    def work(name: str) -> Any:
        def steps(tell: Tell) -> Steps[None]:
            for number in range(3):
                order.append(f"{name}{number}")
                yield

        return steps

    begun = threading.Event()
    first = queue.start(_wait(begun), threading.Event())
    jobs = [queue.start(work(name), threading.Event()) for name in "ab"]
    begun.set()
    for job in (first, *jobs):
        job.future.result(5)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_what_is_cancelled_before_its_turn_never_begins() -> None:
    queue, go, never = JobQueue(places=1), threading.Event(), threading.Event()
    first, second = queue.start(_wait(go), threading.Event()), queue.start(_wait(never), threading.Event())
    assert second.future.cancel() and queue.counts == (1, 0)
    go.set()
    assert first.future.result(5) == "done"
    _until(lambda: queue.counts == (0, 0))
