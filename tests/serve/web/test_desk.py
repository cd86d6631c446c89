import threading
import time
from typing import Any

import pytest

pytest.importorskip("limits")

from crossfake.serve.intake.shares import TryLater
from crossfake.serve.web.desk import Desk, Stopped, Tell


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
    desk, go = Desk(places=1), threading.Event()
    job = desk.start(_wait(go), threading.Event())
    _until(lambda: (job.share, job.words) == (0.5, "halfway"))
    go.set()
    assert job.future.result(5) == "done"


def test_the_next_waits_and_one_too_many_is_refused() -> None:
    desk, go = Desk(places=1, waiting=1), threading.Event()
    first, second = (desk.start(_wait(go), threading.Event()) for _ in range(2))
    assert (first.before, second.before) == (0, 1) and desk.counts == (1, 1)
    desk._typical = 3.0
    with pytest.raises(TryLater, match="2 requests are ahead") as caught:
        desk.start(_wait(go), threading.Event())
    assert caught.value.status == 503 and caught.value.seconds == 6
    more = desk.start(_wait(go), threading.Event(), more=True)  # goes on with what was let in
    go.set()
    assert [job.future.result(5) for job in (first, second, more)] == ["done"] * 3
    _until(lambda: desk.counts == (0, 0))


def test_work_stops_when_it_is_told_to_and_frees_its_place() -> None:
    desk, stop = Desk(places=1, waiting=0), threading.Event()
    job = desk.start(_wait(threading.Event()), stop)
    stop.set()
    with pytest.raises(Stopped):
        job.future.result(5)
    _until(lambda: desk.counts == (0, 0))
    assert desk.start(lambda tell: 1, threading.Event()).future.result(5) == 1
