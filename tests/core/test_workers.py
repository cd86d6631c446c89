"""Workers call functions of the standard library: not every installation lets them import this file."""

import operator
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from crossfake.errors import UserError
from crossfake.workers import map_in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_their_tasks(workers: int) -> None:
    assert list(map_in_order(operator.neg, range(50), workers)) == [(k, -k) for k in range(50)]
    assert list(map_in_order(operator.neg, [], workers)) == []


def test_tasks_are_read_only_a_little_ahead() -> None:
    read = []

    def tasks() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = map_in_order(operator.neg, tasks(), 2)
    next(results)
    assert len(read) <= 10
    results.close()  # type: ignore[attr-defined]


def test_one_worker_works_here_and_several_elsewhere() -> None:
    asks = [os.getpid] * 3
    assert {pid for _, pid in map_in_order(operator.call, asks, 1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in map_in_order(operator.call, asks, 2)}


def test_a_killed_worker_is_one_line() -> None:
    tasks: list[Callable[[], object]] = [os.getpid] * 10
    tasks[3] = partial(os._exit, 1)
    with pytest.raises(UserError, match="worker process was killed"):
        list(map_in_order(operator.call, tasks, 2))
