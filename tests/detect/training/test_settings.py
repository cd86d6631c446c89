from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from crossfake.detect.training import runs
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.runs import Run

_PLACES = {"real": (Path("a"),), "out": Path("b"), "fake": (Path("c"),)}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"batch": 2}, "--batch 2 is out of range: give a whole number from 4"),
        ({"steps": 0}, "--steps 0 is out of range"),
        ({"augment": 1.5}, "--augment 1.5 is out of range: give a number from 0 to 1"),
        ({"synthetic_ratio": -0.1}, "--synthetic-ratio -0.1 is out of range"),
        ({"label_smoothing": 2}, "--label-smoothing 2 is out of range"),
        ({"ema": 1.0}, "--ema 1.0 is out of range: give a number from 0, below 1"),
        ({"layer_decay": 0.0}, "--layer-decay"),
        ({"mixup": -1.0}, "--mixup -1.0 is out of range"),
        ({"mixup": float("nan")}, "--mixup nan is out of range"),
        ({"lr": -1.0}, "--lr -1.0 is out of range: give a number above 0"),
        ({"lr": float("nan")}, "--lr nan is out of range"),
        ({"lr": float("inf")}, "--lr inf is out of range"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0 is out of range"),
        ({"weight_decay": float("inf")}, "--weight-decay inf is out of range"),
        ({"seed": -1}, "--seed -1 is out of range: give a whole number from 0"),
        ({"seed": 2**31}, "--seed 2147483648 is out of range"),
        ({"synthetic_schedule": "curriculum"}, "curriculum of synthetic fakes needs some: name them"),
        ({"synthetic_schedule": "warmup"}, "warmup of synthetic fakes needs some"),
        ({"recipe": "none"}, "no recipe 'none'"),
        ({"tune": "half"}, "no tune 'half': choose one of scratch, full, probe, gradual"),
        ({"balance": "label"}, "no balance 'label'"),
        ({"synthetic_schedule": "late"}, "no synthetic_schedule 'late'"),
        ({"tune": "probe"}, "needs a network that has learnt something: give --pretrained"),
        ({"tune": "scratch", "pretrained": True}, "from scratch takes no weights"),
        ({"recipe": "sbi", "synthetic": (Path("d"),)}, "makes its fakes from the reals"),
        ({"recipe": "sbi", "batch": 9}, "an even number"),
    ],
)
def test_bad_settings_are_one_line(bad: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        TrainSettings(**{**_PLACES, **bad})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_settings_are_kept_as_yaml_can_hold_them(tmp_path: Path) -> None:
    settings = TrainSettings(**_PLACES, weights=Path("w"), tune="gradual", options={"head": "nearest"})  # type: ignore[arg-type]
    Run.create(tmp_path / "run", asdict(settings), kind="detect")
    again = runs.resumed(tmp_path / "run", steps=7)
    assert again.resume and again.steps == 7 and again.out == tmp_path / "run"
    for name in ("real", "fake", "weights", "tune", "options", "match_steps", "lr"):
        assert getattr(again, name) == getattr(settings, name)


@pytest.mark.parametrize("config", [{"kind": "synth", "synthetic": []}, {"kind": "detect"}])
def test_what_is_no_training_is_neither_resumed_nor_matched(config: dict[str, Any], tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"steps": 1, **config}, kind=config["kind"])
    run.log({"loss": 1.0}, 1)
    for use in (runs.resumed, runs.control):
        with pytest.raises(UserError, match="run holds no training: name a run of 'detect train'"):
            use(run.path)
    with pytest.raises(UserError, match="run holds no training"):
        runs.matched(TrainSettings(**_PLACES, match_steps=run.path))  # type: ignore[arg-type]


def test_the_control_of_a_curriculum_has_none(tmp_path: Path) -> None:
    own = {"synthetic": (Path("d"),), "synthetic_schedule": "curriculum"}
    settings = TrainSettings(**_PLACES, **own)  # type: ignore[arg-type]
    run = Run.create(tmp_path / "run", asdict(settings), kind="detect")
    run.log({"loss": 1.0}, 1)
    run.finish()
    control = runs.control(run.path, out=tmp_path / "control")
    assert (
        control.synthetic == () and control.synthetic_schedule == "constant" and not runs.differences(control)
    )
    other = runs.control(run.path, out=tmp_path / "control", synthetic=(Path("e"),))
    assert other.synthetic_schedule == "curriculum"
    with pytest.raises(UserError, match="warmup of synthetic fakes needs some"):
        runs.control(run.path, out=tmp_path / "control", synthetic_schedule="warmup")
