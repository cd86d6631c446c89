"""Where the cells of an experiment run. Every way gives the same numbers."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from crossfake.bounds import Bounds, check_bounds
from crossfake.errors import UserError
from crossfake.experiments.run.cells import (
    CellSpec,
    run_cell,
)
from crossfake.stopping import StoppedByUser

Outcome = tuple[CellSpec, Exception | None]
_ATTEMPTS = 3  # of a cell whose process dies


class Executor(Protocol):
    """Runs cells in any order, and gives each back with the error that it ended in, or None."""

    def run(self, specs: Sequence[CellSpec], cells: Path) -> Iterator[Outcome]:
        """Each cell's files are in ``cells / key`` when it is given back without an error.

        Raises:
            UserError: the user stopped the experiment.
        """
        ...


@dataclass(frozen=True)
class Local:
    """This machine: one cell after another in this process, or several at a time in a process each.

    A process of its own gives its memory back, and takes nothing with it when it dies.

    Attributes:
        workers: cells at a time; each gets its share of the cores.
    """

    workers: Annotated[int, Bounds(1, 1024)] = 1

    def __post_init__(self) -> None:
        check_bounds(self)

    def run(self, specs: Sequence[CellSpec], cells: Path) -> Iterator[Outcome]:
        """As of :class:`Executor`."""
        if self.workers == 1:
            for spec in specs:
                yield spec, attempt(spec, cells)
            return
        with futures.ThreadPoolExecutor(self.workers) as pool:
            threads = max(1, (os.cpu_count() or 1) // self.workers)
            running = {pool.submit(_isolated, spec, cells, threads): spec for spec in specs}
            try:
                for done in futures.as_completed(running):
                    yield running[done], done.result()
            except KeyboardInterrupt as error:  # the processes had it too, and end with a checkpoint
                raise StoppedByUser("the experiment") from error
            finally:
                pool.shutdown(cancel_futures=True)


def attempt(spec: CellSpec, cells: Path) -> Exception | None:
    """Run a cell; returns what went wrong, unless that is the user's wish to stop."""
    try:
        run_cell(spec, cells / spec.key)
    except StoppedByUser:
        raise
    except Exception as error:  # one cell that fails, however it does, ends no other
        return error
    return None


def _isolated(spec: CellSpec, cells: Path, threads: int) -> Exception | None:
    spawn = multiprocessing.get_context("spawn")
    for _ in range(_ATTEMPTS):
        with futures.ProcessPoolExecutor(1, spawn, _start, (threads,)) as pool:
            try:
                return pool.submit(attempt, spec, cells).result()
            except BrokenProcessPool:
                continue
    return UserError(
        f"its process died {_ATTEMPTS} times, perhaps for want of memory", hint="use fewer --workers"
    )


def _start(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
