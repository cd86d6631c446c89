import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crossfake import threads
from crossfake.threads import choosing

CPU = torch.device("cpu")


class _Machine:
    """A clock that a step moves by as many seconds as its number of threads takes."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {int(name[1:]): each for name, each in seconds.items()}
        self.count, self.now, self.used = max(self.seconds), 0.0, list[int]()

    def step(self) -> int:
        self.used.append(self.count)
        self.now += self.seconds[self.count]
        return len(self.used)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def on(**seconds: float) -> _Machine:
        machine = _Machine(**seconds)
        fake = SimpleNamespace(
            get_num_threads=lambda: machine.count,
            set_num_threads=lambda count: setattr(machine, "count", count),
        )
        monkeypatch.setattr(threads, "torch", fake)
        monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: machine.now))
        return machine

    return on


def _run(
    machine: _Machine, asked: int = 0, steps: int = 40, device: torch.device = CPU
) -> list[tuple[int, str]]:
    said: list[tuple[int, str]] = []
    with choosing(asked, steps, device, lambda count, words: said.append((count, words))) as chosen:
        assert [chosen.call(machine.step) for _ in range(steps)] == list(range(1, steps + 1))
    return said


def test_the_better_number_is_taken_and_said(on: Any) -> None:
    machine = on(n1=1.0, n4=2.0)
    assert _run(machine) == [
        (1, "computing with 1 of 4 threads: 1 s a step, 2 s with 4 (--threads chooses)"),
    ]
    assert machine.used == [4, 4, 1, 4, 1, 4, 1, 4] + [1] * 32
    assert machine.count == 4  # whoever called finds it as it was
    machine = on(n1=1.0, n4=0.5)
    assert [count for count, _ in _run(machine)] == [4] and machine.used[8:] == [4] * 32


def test_a_clear_case_is_seen_after_one_round(on: Any) -> None:
    machine = on(n1=60.0, n16=5.0)
    assert [count for count, _ in _run(machine)] == [16]
    assert machine.used.count(1) == 1


@pytest.mark.parametrize(
    ("chosen", "used"), [({"asked": 2}, 2), ({"steps": 31}, 4), ({"device": torch.device("cuda")}, 4)]
)
def test_nothing_is_measured_where_it_does_not_pay(chosen: dict[str, Any], used: int, on: Any) -> None:
    machine = on(n1=1.0, n2=1.5, n4=2.0)
    assert _run(machine, **chosen) == []
    assert set(machine.used) == {used} and machine.count == 4


def test_who_has_chosen_is_not_asked_again(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert _run(machine := on(n1=1.0, n4=2.0)) == [] and set(machine.used) == {4}
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _run(machine := on(n1=1.0, n4=2.0)) == [] and set(machine.used) == {4}


def test_items_are_measured_while_they_are_made(on: Any) -> None:
    machine = on(n1=1.0, n2=2.0)
    said: list[int] = []

    def items() -> Iterator[int]:
        for _ in range(5):
            yield machine.step()

    with choosing(0, 40, CPU, lambda count, _: said.append(count)) as chosen:
        assert list(chosen.each(items())) == [1, 2, 3, 4, 5] and not said  # an end is no quick step
        assert list(chosen.each(items())) == [6, 7, 8, 9, 10] and said == [1]


def test_an_error_passes_and_leaves_the_number(on: Any) -> None:
    machine = on(n1=1.0, n2=2.0)
    with pytest.raises(ZeroDivisionError), choosing(1, 40, CPU, lambda *_: None) as chosen:
        chosen.call(lambda: 1 // 0)
    assert machine.count == 2 and "OMP_NUM_THREADS" not in os.environ
