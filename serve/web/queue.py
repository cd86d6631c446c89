"""Long work of the page and of the API: a few at a time, the others wait, and anyone can stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from crossfake.serve.intake.shares import TryLater

T = TypeVar("T")
Tell = Callable[[float, str], None]
Steps = Generator[None, None, T]  # work that pauses now and then, so that others come in between


class Stopped(Exception):
    """The visitor cancelled, left, or the client went away."""


class JobQueue:
    """Runs so many jobs at once, and lets so many wait.

    Args:
        places: jobs at once.
        waiting: jobs that may wait; the next is refused.
    """

    def __init__(self, places: int = 2, waiting: int = 32) -> None:
        self.places, self.waiting = places, waiting
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="analysis")
        self._inside: list[object] = []
        self._lock = threading.Lock()
        self._typical = 1.0  # seconds of a recent job, smoothed

    def look(self) -> None:
        """Raise :class:`TryLater` if one more would be too many."""
        if len(self._inside) >= self.places + self.waiting:
            seconds = min(60.0, self._typical * (self.waiting + 1) / self.places)
            raise TryLater("busy", f"{len(self._inside)} requests are ahead", seconds, 503)

    def start(self, work: Callable[[Tell], Steps[T]], stop: threading.Event) -> Job[T]:
        """Queue ``work(tell)``. It calls ``tell(share, words)`` now and then, which raises once ``stop`` is set.

        Raises:
            TryLater: too many wait.
        """
        with self._lock:
            self.look()
            job = Job(self, work, stop)
            self._inside.append(job)
        self._pool.submit(job.step)
        return job

    def again(self, job: Job[T]) -> None:
        """To the end of the line, with what was let in already."""
        with self._lock:
            self._inside.remove(job)
            self._inside.append(job)
        self._pool.submit(job.step)

    def leave(self, job: Job[T], seconds: float) -> None:
        """A job is over, after so many seconds of work."""
        with self._lock:
            self._inside.remove(job)
            self._typical += 0.2 * (seconds - self._typical)

    def before(self, job: object) -> int:
        """How many have to finish before this one begins; 0 when it is running."""
        with self._lock:
            return max(0, self._inside.index(job) - self.places + 1) if job in self._inside else 0

    @property
    def counts(self) -> tuple[int, int]:
        """How many run, and how many wait."""
        running = min(len(self._inside), self.places)
        return running, len(self._inside) - running


class Job(Generic[T]):
    """Work in progress.

    Attributes:
        future: its result.
        share: how much is done, in [0, 1].
        words: what is being done.
    """

    def __init__(self, queue: JobQueue, work: Callable[[Tell], Steps[T]], stop: threading.Event) -> None:
        self._queue, self._stop = queue, stop
        self._steps, self._worked = work(self._tell), 0.0
        self.future: Future[T] = Future()
        self.future.add_done_callback(lambda _: queue.leave(self, self._worked))
        self.share, self.words = 0.0, "Starting"

    @property
    def before(self) -> int:
        """How many have to finish before it begins."""
        return self._queue.before(self)

    def step(self) -> None:
        """Work up to the next pause."""
        if not (self.future.running() or self.future.set_running_or_notify_cancel()):
            return
        start = time.monotonic()
        try:
            self._tell(self.share, "")
            next(self._steps)
            end = partial(self._queue.again, self)
        except StopIteration as over:
            end = partial(self.future.set_result, over.value)
        except BaseException as error:  # whoever waits for the result raises it
            self._steps.close()
            end = partial(self.future.set_exception, error)
        self._worked += time.monotonic() - start
        end()

    def _tell(self, share: float, words: str) -> None:
        if self._stop.is_set():
            raise Stopped
        self.share, self.words = share, words or self.words
