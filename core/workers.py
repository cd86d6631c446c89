"""Worker processes that start clean, stop with their parent and leave Ctrl-C to it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from crossfake.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 4  # tasks per worker


def map_in_order(work: Callable[[T], R], tasks: Iterable[T], workers: int = 0) -> Iterator[tuple[T, R]]:
    """Each task with its result, in the order of the tasks; no more than a few are read ahead, so memory is flat.

    Args:
        work: a function at the top of a module, or a ``functools.partial`` of one: it is sent to other processes.
        tasks: what it is called with, one at a time.
        workers: processes; 0 is one per core, and 1 works here.

    Raises:
        UserError: a worker was killed.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        for task in tasks:
            yield task, work(task)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads may hang
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ProcessPoolExecutor(workers, spawn, initializer=_start) as pool:
        with _interrupts_ignored():
            for _ in range(workers):  # each finds no idle worker and starts one
                pool.submit(os.getpid)
        try:
            for task in tasks:
                waiting.append((task, pool.submit(work, task)))
                if len(waiting) > _AHEAD * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, perhaps for want of memory",
                hint="run the same again with fewer --workers",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[T, Future[R]]]) -> tuple[T, R]:
    task, future = waiting.popleft()
    return task, future.result()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile are deaf to Ctrl-C from birth, and none is half started when it comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start() -> None:
    import cv2

    cv2.setNumThreads(1)  # there is a worker per core already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers wait for ever for a parent that was killed: each holds the others' pipe open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
