import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossfake.detect.training import TrainSettings, train
from crossfake.errors import UserError
from crossfake.runs import Run


def _settings(real: Path, fake: Path, out: Path, **changed: object) -> TrainSettings:
    base = {"steps": 12, "batch": 8, "eval_every": 4, "device": "cpu", "augment": 0.5}
    return TrainSettings((real,), out, (fake,), **{**base, **changed})


def test_a_run_leaves_a_bundle_that_says_where_it_comes_from(trained: Path, real: Path, fake: Path) -> None:
    run = Run(trained)
    card = json.loads((trained / "model" / "bundle.json").read_text())
    assert run.finished and run.config["kind"] == "detect"
    assert card["validation_ap"] > 0.95
    assert set(card["data_hashes"]) == {str(real), str(fake)}
    assert card["crop"] == {"policy": "none"} and card["size"] == 16 and card["labels"] == ["real", "fake"]
    assert 0 < card["threshold"] < 1 and card["temperature"] > 0
    assert card["validation_hash"] == run.config["validation_hash"]


def test_stopped_and_resumed_equals_never_stopped(real: Path, fake: Path, tmp_path: Path) -> None:
    whole = train(_settings(real, fake, tmp_path / "whole"))

    part = tmp_path / "part"
    import crossfake.detect.training as training

    class StopsAtEight(training.Stopper):
        calls = 0

        @property
        def asked(self) -> bool:  # type: ignore[override]
            StopsAtEight.calls += 1
            return len(Run(part).log_lines()) >= 2

    patch = pytest.MonkeyPatch()
    patch.setattr(training, "Stopper", StopsAtEight)
    train(_settings(real, fake, part))
    patch.undo()
    assert not Run(part).finished and StopsAtEight.calls
    train(TrainSettings.resumed(part))
    states = [load_file(run / "model" / "model.safetensors") for run in (whole, part)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    cards = [json.loads((run / "model" / "bundle.json").read_text()) for run in (whole, part)]
    assert cards[0] == cards[1]


def test_training_stops_when_validation_no_longer_improves(
    real: Path, fake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(
        real, fake, tmp_path / "run", steps=200, eval_every=5, patience=2, lr=3e-3, augment=0.0
    )
    run = Run(train(settings))
    assert run.log_lines()[-1]["step"] < 200
    assert "no better AP" in capsys.readouterr().out
    best = max(run.log_lines(), key=lambda line: line["val_ap"])
    assert json.loads((run.model / "bundle.json").read_text())["step"] == best["step"]


def test_a_loss_that_is_not_finite_stops(real: Path, fake: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite at step 4.*--lr"):
        train(_settings(real, fake, tmp_path / "run", lr=float("inf")))


@pytest.mark.parametrize("bad", [{"batch": 2}, {"steps": 0}, {"augment": 1.5}, {"synthetic_ratio": -0.1}])
def test_bad_settings_are_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(UserError):
        TrainSettings((Path("a"),), Path("b"), (Path("c"),), **bad)


def test_nothing_to_resume_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        TrainSettings.resumed(tmp_path / "none")
