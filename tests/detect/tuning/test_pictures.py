import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from crossfake.detect.tuning.pictures import draw_study
from crossfake.errors import UserError

optuna = pytest.importorskip("optuna")


def search(states: str) -> tuple[Any, list[dict[str, Any]]]:
    """A study of one trial per letter (complete, pruned, failed), and what ``study.json`` says of it."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    ends = {"c": "COMPLETE", "p": "PRUNED", "f": "FAIL"}
    names = {"c": "complete", "p": "pruned", "f": "failed"}
    for letter in states:
        trial = study.ask()
        rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        trial.suggest_categorical("model", ["cnn", json.dumps({"depth": 2}), None])
        trial.suggest_categorical("augment", [0.5])
        trial.report(rate, 1)
        study.tell(trial, rate if letter == "c" else None, optuna.trial.TrialState[ends[letter]])
    told = [
        {"number": t.number, "state": names[s], "value": t.value}
        for t, s in zip(study.trials, states, strict=True)
    ]
    return study, told


@pytest.mark.parametrize("states", ["c", "cc", "fpccpfc"])
@pytest.mark.filterwarnings("error")
def test_pictures_leave_no_style_and_no_figure_behind(states: str, tmp_path: Path) -> None:
    style = dict(plt.rcParams)
    draw_study(*search(states), tmp_path, None)
    assert {file.name for file in tmp_path.iterdir()} == {"history.png", "parallel.png"}
    assert dict(plt.rcParams) == style and not plt.get_fignums()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*parallel.png"):
        draw_study(*search("c"), tmp_path / "none", None)
    assert not plt.get_fignums()
