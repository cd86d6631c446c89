"""How many threads of torch compute: one or all, whichever is quicker here and now.

When another process holds a core, threads that wait for one another at the end of every layer are slower than a single
one: measured, two of two cores at a quarter of one's rate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from crossfake.device import rank_world

T = TypeVar("T")
_ASIDE = 2  # steps that allocate
_ROUNDS = 3  # of a step with one thread and one with all
_CLEAR = 3.0  # times as slow: no further round is needed
_WORTH = 4  # times as many steps as are measured: else the work is done before it pays


class Threads:
    """Calls pieces of work with the number of threads that was asked for, or finds the better one meanwhile.

    Args:
        asked: so many; 0 measures.
        steps: how many pieces there will be.
        device: where they are computed: there is nothing to choose on a GPU.
        decided: called once with the number and what to say of it.

    Attributes:
        measured: seconds of each measured step, by number of threads.
    """

    def __init__(
        self, asked: int, steps: int, device: torch.device, decided: Callable[[int, str], None]
    ) -> None:
        self._decided, self.measured = decided, dict[int, list[float]]()
        self._turns: list[int] = []
        every = torch.get_num_threads()
        if asked:
            torch.set_num_threads(asked)
            return
        # whoever set the variable, or torchrun, has chosen
        free = device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and rank_world()[1] == 1
        count = _ASIDE + 2 * _ROUNDS
        if free and every > 1 and steps >= _WORTH * count:
            self._every = every
            self._turns = [every] * _ASIDE + [1, every] * _ROUNDS
            self.measured = {1: [], every: []}

    @property
    def measuring(self) -> bool:
        """Whether the better number is not known yet."""
        return bool(self._turns)

    def call(self, work: Callable[[], T]) -> T:
        """What one piece of work returns."""
        if not self._turns:
            return work()
        count = self._turns[0]
        torch.set_num_threads(count)
        started = time.perf_counter()
        found = work()
        if len(self._turns) <= 2 * _ROUNDS:
            self.measured[count].append(time.perf_counter() - started)
        del self._turns[0]
        # the quickest of each counts: some steps do more than others, and some are disturbed
        quickest = {count: min(seconds) for count, seconds in self.measured.items() if seconds}
        if len(quickest) == 2:
            slower, quicker = max(quickest.values()), min(quickest.values())
            if not self._turns or slower > _CLEAR * quicker:
                self._choose(quickest)
        return found

    def _choose(self, quickest: dict[int, float]) -> None:
        self._turns = []
        best = min(quickest, key=lambda count: quickest[count])
        torch.set_num_threads(best)
        other = next(count for count in quickest if count != best)
        self._decided(
            best,
            f"computing with {best} of {self._every} threads: {quickest[best]:.2g} s a step, "
            f"{quickest[other]:.2g} s with {other} (--threads chooses)",
        )

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of whose computing is a piece of work."""
        iterator = iter(items)
        while True:
            try:
                item = self.call(partial(next, iterator))
            except StopIteration:
                return
            yield item


@contextmanager
def choosing(
    asked: int, steps: int, device: torch.device, decided: Callable[[int, str], None]
) -> Iterator[Threads]:
    """:class:`Threads`, after which the number is as it was."""
    before = torch.get_num_threads()
    try:
        yield Threads(asked, steps, device, decided)
    finally:
        torch.set_num_threads(before)
