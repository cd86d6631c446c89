"""Tasks on a Ray cluster."""

import operator
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossfake import cluster
from crossfake.datasets.settings import PrepareSettings
from crossfake.errors import UserError
from crossfake.executor import Demand, ExecutorSettings, map_in_order


def test_results_come_in_order_and_tasks_are_read_a_little_ahead(ray: ExecutorSettings) -> None:
    read = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = map_in_order(operator.neg, tasks(), where=ray)
    assert next(results) == (0, 0) and len(read) < 20
    assert list(results) == [(k, -k) for k in range(1, 100)]


def test_a_worker_that_dies_is_replaced(ray: ExecutorSettings, tmp_path: Path) -> None:
    """The first try kills its process, the second one answers."""
    once = "7 if os.path.exists(p) else (os.mkdir(p), os._exit(1))"
    tasks: list[Callable[[], Any]] = [os.getpid, partial(eval, once, {"os": os, "p": str(tmp_path / "x")})]
    assert [found for _, found in map_in_order(operator.call, tasks, where=ray)][1] == 7


@pytest.mark.slow
def test_a_task_that_kills_its_worker_each_time_is_a_line(ray: ExecutorSettings) -> None:
    with pytest.raises(UserError, match=r"died 4 times .*: perhaps memory is short there"):
        list(map_in_order(operator.call, [partial(os._exit, 1)], where=ray))


def test_a_users_error_crosses_as_it_is(ray: ExecutorSettings) -> None:
    wrong = partial(PrepareSettings, "toyfaces", Path("x"))
    with pytest.raises(UserError, match="toyfaces never ends: say how many"):
        list(map_in_order(operator.call, [wrong], where=ray))


def test_what_no_machine_can_hold(ray: ExecutorSettings) -> None:
    with pytest.raises(UserError, match="no machine of the Ray cluster can hold neg: 64 cores"):
        list(map_in_order(operator.neg, [1], where=ray, demand=Demand(cpus=64)))
    cluster.Tasks(operator.neg, Demand(gpus=1))  # one without GPUs does without
    with pytest.raises(UserError, match="1 GPUs"):
        cluster.Tasks(operator.neg, Demand(gpus=1), insists=True)


def test_a_folder_travels_without_its_checkpoints(ray: ExecutorSettings, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"much")
    (tmp_path / "run" / "card.json").write_text("{}")
    sent = cluster.Sent(tmp_path / "run")
    [(_, place)] = map_in_order(operator.call, [sent.there], where=ray)
    assert [file.name for file in place.iterdir()] == ["card.json"]


def test_options_that_need_ray() -> None:
    with pytest.raises(UserError, match="--address and --store are for Ray: add --executor ray"):
        ExecutorSettings(store="s3://x")
