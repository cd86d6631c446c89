"""Trials of a search on a Ray cluster are those that are run here."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossfake.detect.settings import TuneSettings
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.tuning import cluster as trials_there
from crossfake.detect.tuning import tune as tuning
from crossfake.detect.tuning.trials import open_study
from crossfake.executor import ExecutorSettings

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def asked(
    data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[partial[TuneSettings]]:
    """A search of four points, without the training that follows it."""
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text("lr: [1e-4, 1e-3]\naugment: [0.0, 0.5]\n")
    base = TrainSettings(
        (data[0],), Path(), (data[1],), steps=4, batch=16, eval_every=2, device="cpu", seed=3
    )

    def settings(out: Path, **more: Any) -> TuneSettings:
        return TuneSettings(replace(base, out=out), space, **{"method": "grid", "pruner": "none", **more})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "finish", lambda *_: None)
        patch.setattr(tuning, "_pictures", lambda *_: None)
        yield partial(settings)


@pytest.fixture(scope="module")
def grid(asked: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the search that was made here, and its result."""
    out = tmp_path_factory.mktemp("here") / "grid"
    return out, tuning.tune(asked(out))


def found(result: dict[str, Any]) -> list[Any]:
    names = ("state", "value", "step", "validation", "validation_hash", "data_hashes", "seed")
    return sorted(
        ([trial["params"], *(trial[name] for name in names)] for trial in result["trials"]), key=str
    )


def test_a_grid_is_the_same(asked: Any, grid: Any, stored: ExecutorSettings, tmp_path: Path) -> None:
    (out, here), there = grid, tuning.tune(asked(tmp_path / "ray"), stored)
    assert len(found(here)) == 4 and found(here) == found(there)
    assert here["best"]["value"] == there["best"]["value"]
    for number in range(4):
        folders = [folder / f"trials/000{number}" for folder in (out, tmp_path / "ray")]
        files = [{file.name.partition(".1")[0] for file in folder.iterdir()} for folder in folders]
        assert files[0] == files[1]


def test_one_at_a_time_proposals_are_the_same_and_poor_trials_end(
    asked: Any, ray: ExecutorSettings, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"method": "bayes", "pruner": "hyperband", "trials": 5, "workers": 1}
    here = tuning.tune(asked(tmp_path / "here", **more))
    there = tuning.tune(asked(tmp_path / "ray", **more), ray)
    assert [trial["params"] for trial in here["trials"]] == [trial["params"] for trial in there["trials"]]
    assert found(here) == found(there)


class Dying:
    """Stands for the judge: kills the worker that asks it first."""

    def __init__(self, judge: Any, mark: Path) -> None:
        self.judge, self.mark, self.is_poor = judge, mark, self

    def remote(self, *asked: Any) -> Any:
        if not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return self.judge.is_poor.remote(*asked)


def dying(job: Any, sent: Any, judge: Any, mark: Path, trial: Any) -> Any:
    return trial(job, sent, Dying(judge, mark))


def test_the_trial_of_a_dying_worker_is_taken_up_again(
    asked: Any, grid: Any, ray: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    _, here = grid
    mark = tmp_path / "died"
    monkeypatch.setattr(trials_there, "_trial", partial(dying, mark=mark, trial=trials_there._trial))
    there = tuning.tune(asked(tmp_path / "ray"), ray)
    assert mark.exists() and found(here) == found(there)


def test_a_stopped_search_goes_on(
    asked: Any, grid: Any, ray: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, here = grid
    with monkeypatch.context() as patch:
        update = tuning.tqdm.update

        def stopped(bar: Any, *_: Any) -> None:
            update(bar)
            tuning.Stopper.asked = True  # as Ctrl-C does

        patch.setattr(tuning.tqdm, "update", stopped)
        patch.setattr(tuning.Stopper, "asked", False)
        part = tuning.tune(asked(tmp_path / "ray"), ray)
    assert len(part["trials"]) < 4 and part["comparison"] is None
    running = [t for t in open_study(_plan(asked(tmp_path / "ray"))).trials if t.state.name == "RUNNING"]
    assert running, "one was under way"
    whole = tuning.tune(asked(tmp_path / "ray"), ray)
    assert found(whole) == found(here)


def _plan(settings: TuneSettings) -> Any:
    return tuning._planned(settings)[0]
