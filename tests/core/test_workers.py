import os
import signal
from collections.abc import Iterator

import pytest

from crossfake.errors import UserError
from crossfake.workers import map_in_order


def _square(number: int) -> int:
    return number * number


def _killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _process(number: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_their_tasks(workers: int) -> None:
    assert list(map_in_order(_square, range(50), workers)) == [(k, k * k) for k in range(50)]
    assert list(map_in_order(_square, [], workers)) == []


def test_tasks_are_read_only_a_little_ahead() -> None:
    read = []

    def tasks() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = map_in_order(_square, tasks(), 2)
    next(results)
    assert len(read) <= 10
    results.close()  # type: ignore[attr-defined]


def test_one_worker_works_here_and_several_elsewhere() -> None:
    assert {pid for _, pid in map_in_order(_process, range(3), 1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in map_in_order(_process, range(3), 2)}


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(UserError, match="worker process was killed"):
        list(map_in_order(_killed, range(10), 2))
