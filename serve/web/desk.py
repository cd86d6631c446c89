"""Long work for many visitors: a few at a time, the others wait and are told so, and anyone can stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from typing import Generic, TypeVar

from crossfake.errors import UserError

T = TypeVar("T")
Tell = Callable[[float, str], None]
_LOOK = 0.15  # seconds between two looks at how far it is


class Stopped(Exception):
    """The visitor cancelled, left, or began something else."""


class Busy(UserError):
    """More wait than there is room for."""


@dataclass(frozen=True)
class Step:
    """How far work is: a share in [0, 1], None while it waits for its turn, and what is being done."""

    share: float | None
    words: str


class Desk:
    """Runs so many jobs at once, and lets so many wait.

    Args:
        places: jobs at once.
        waiting: jobs that may wait; the next is refused.
    """

    def __init__(self, places: int = 2, waiting: int = 16) -> None:
        self.places, self.waiting = places, waiting
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="page")
        self._inside: list[object] = []
        self._lock = threading.Lock()

    def start(self, work: Callable[[Tell], T], stop: threading.Event) -> Job[T]:
        """Queue ``work(tell)``. It calls ``tell(share, words)`` now and then, which raises once ``stop`` is set.

        Raises:
            Busy: too many wait already.
        """
        job = Job(self, work, stop)
        with self._lock:
            if len(self._inside) >= self.places + self.waiting:
                raise Busy(
                    f"The server is busy: {len(self._inside)} others are before you",
                    hint="try again in a minute",
                )
            self._inside.append(job)
        job.future = self._pool.submit(job.run)
        job.future.add_done_callback(lambda _: self._leave(job))
        return job

    def before(self, job: object) -> int:
        """How many have to finish before this one begins; 0 when it is running."""
        with self._lock:
            return max(0, self._inside.index(job) - self.places + 1) if job in self._inside else 0

    def _leave(self, job: object) -> None:
        with self._lock:
            self._inside.remove(job)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Job(Generic[T]):
    """Work in progress: iterate over it for its steps, then take its :meth:`result`."""

    def __init__(self, desk: Desk, work: Callable[[Tell], T], stop: threading.Event) -> None:
        from concurrent.futures import Future

        self._desk, self._work, self._stop = desk, work, stop
        self._step = Step(0.0, "")
        self.future: Future[T] = Future()

    def run(self) -> T:
        self._tell(0.0, "")
        return self._work(self._tell)

    def _tell(self, share: float, words: str) -> None:
        if self._stop.is_set():
            raise Stopped
        self._step = Step(share, words)

    def __iter__(self) -> Iterator[Step]:
        """Steps as they are taken, the first at once.

        Raises:
            Stopped: ``stop`` was set; the work ends at its next step.
        """
        shown: Step | None = None
        try:
            while not self.future.done():
                before = self._desk.before(self)
                step = Step(None, f"Waiting: {before} before you") if before else self._step
                if step != shown and (step.words or shown is None):
                    shown = step
                    yield step
                if self._stop.is_set():
                    self.future.cancel()
                    raise Stopped
                try:
                    self.future.exception(_LOOK)
                except TimeoutError:
                    continue
        except GeneratorExit:  # the browser is gone
            self._stop.set()
            raise

    def result(self) -> T:
        """What the work returned; what it raised is raised."""
        return self.future.result()
