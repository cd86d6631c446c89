from pathlib import Path

import pytest

from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError

_PLACES = {"real": (Path("a"),), "out": Path("b"), "fake": (Path("c"),)}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"batch": 2}, "a batch at least 4"),
        ({"steps": 0}, "must be positive"),
        ({"augment": 1.5}, "augment is a share"),
        ({"synthetic_ratio": -0.1}, "synthetic_ratio is a share"),
        ({"label_smoothing": 2}, "label_smoothing is a share"),
        ({"ema": 1.0}, "--ema 0.999"),
        ({"layer_decay": 0.0}, "--layer-decay"),
        ({"mixup": -1.0}, "mixup is not negative"),
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
    from dataclasses import asdict

    from crossfake.runs import Run

    settings = TrainSettings(**_PLACES, weights=Path("w"), tune="gradual", options={"head": "nearest"})  # type: ignore[arg-type]
    Run.create(tmp_path / "run", asdict(settings), kind="detect")
    again = TrainSettings.resumed(tmp_path / "run", steps=7)
    assert again.resume and again.steps == 7 and again.out == tmp_path / "run"
    for name in ("real", "fake", "weights", "tune", "options", "match_steps", "lr"):
        assert getattr(again, name) == getattr(settings, name)
