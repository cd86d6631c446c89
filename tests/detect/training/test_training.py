import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crossfake.detect.bundle import calibration
from crossfake.detect.bundle.bundle import load
from crossfake.detect.training import runs
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.learner import DetectorLearner
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import DetectorTraining, dry_run, train
from crossfake.errors import UserError
from crossfake.fit import loop
from crossfake.runs import Run

from ..conftest import make_shards


def _settings(real: Path, fake: Path, out: Path, **changed: object) -> TrainSettings:
    base = {"steps": 12, "batch": 8, "eval_every": 4, "device": "cpu", "augment": 0.5}
    return TrainSettings((real,), out, (fake,), **{**base, **changed})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "own", 1, seed=5, split="train")


@pytest.fixture(scope="module")
def weights(trained: Path) -> Path:
    return trained / "model" / "model.safetensors"


def test_a_run_leaves_a_bundle_that_says_where_it_comes_from(trained: Path, real: Path, fake: Path) -> None:
    run = Run(trained)
    card = json.loads((trained / "model" / "bundle.json").read_text())
    assert run.finished and run.config["kind"] == "detect"
    assert card["validation_ap"] > 0.95
    assert set(card["data_hashes"]) == {str(real), str(fake)}
    assert card["crop"] == {"policy": "none"} and card["size"] == 16 and card["labels"] == ["real", "fake"]
    assert 0 < card["threshold"] < 1 and card["temperature"] > 0
    assert card["validation_hash"] == run.config["validation_hash"]


def test_the_temperature_is_that_of_calibration(trained: Path, real: Path, fake: Path) -> None:
    detector = load(trained, "cpu")
    held = TrainingData.open((real,), (fake,), (), False).validation(2000)
    fitted = calibration.fit("temperature", detector.outputs(held.images)[0], held.labels)
    assert detector.card["temperature"] == pytest.approx(fitted["temperature"], rel=1e-3)


def _stopped_and_resumed(settings: TrainSettings, lines: int, **changed: object) -> Path:
    """Stop the training after so many validations, and go on."""

    class Stops(loop.Stopper):
        @property
        def asked(self) -> bool:  # type: ignore[override]
            return len(Run(settings.out).log_lines()) >= lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Stopper", Stops)
        train(settings)
    assert not Run(settings.out).finished
    return train(runs.resumed(settings.out, **changed))


@pytest.mark.parametrize("everything", [False, True])
def test_stopped_and_resumed_equals_never_stopped(
    everything: bool, real: Path, fake: Path, own: Path, weights: Path, tmp_path: Path
) -> None:
    more = {
        "synthetic": (own,),
        "synthetic_schedule": "curriculum",
        "ema": 0.9,
        "mixup": 0.2,
        "tune": "gradual",
        "weights": weights,
        "layer_decay": 0.8,
        "label_smoothing": 0.1,
        "recipe": "robust",
        "steps": 16,
    }
    changed = more if everything else {}
    whole = train(_settings(real, fake, tmp_path / "whole", **changed))
    part = _stopped_and_resumed(_settings(real, fake, tmp_path / "part", **changed), lines=2)
    states = [load_file(run / "model" / "model.safetensors") for run in (whole, part)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    ends = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (whole, part)]
    assert all(torch.equal(ends[0]["network"][name], ends[1]["network"][name]) for name in states[0])
    if everything:
        assert all(torch.equal(ends[0]["average"][name], ends[1]["average"][name]) for name in states[0])
        assert (
            [x.tolist() for x in ends[0]["curriculum"]] == [x.tolist() for x in ends[1]["curriculum"]] != []
        )
    cards = [json.loads((run / "model" / "bundle.json").read_text()) for run in (whole, part)]
    assert cards[0] == cards[1]
    lines = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in Run(run).log_lines()]
        for run in (whole, part)
    ]
    assert lines[0] == lines[1]


def test_stopped_between_validations_equals_never_stopped(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(_settings(real, fake, tmp_path / "whole"))

    class Stops(loop.Stopper):
        @property
        def asked(self) -> bool:  # type: ignore[override]
            Stops.calls += 1
            return Stops.calls >= 7

        calls = 0

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Stopper", Stops)
        train(_settings(real, fake, tmp_path / "part"))
    assert torch.load(tmp_path / "part/checkpoints/last.pt", weights_only=True)["step"] == 7
    part = train(runs.resumed(tmp_path / "part"))
    losses = [[line["loss"] for line in Run(run).log_lines()] for run in (whole, part)]
    assert losses[0] == losses[1]


def test_a_run_begun_by_an_earlier_version_goes_on_to_the_bit(real: Path, fake: Path, tmp_path: Path) -> None:
    """Its checkpoint as that version wrote it, and steps made one by one in place of the loop."""
    settings = _settings(real, fake, tmp_path / "run", ema=0.9)
    training = DetectorTraining(settings)
    learner, held, losses = training.learner, training.held, list[torch.Tensor]()
    facts = {"data_hashes": training.data.hashes(), "validation_hash": held.digest}
    run = Run.create(
        settings.out,
        {**dataclasses.asdict(settings), **facts, "validation_shares": training.shares()},
        kind="detect",
    )
    for step in range(12):
        losses.append(learner.train_step(training.batch(step), training.sampler.labels)["loss"])
        if learner.step == 6:
            state = {
                part: getattr(learner, part).state_dict() for part in ("network", "average", "optimizer")
            }
            state |= {"step": 6, "losses": losses, "best": learner.best, "stale": learner.stale}
            torch.save(state | {"curriculum": []}, run.checkpoints / "last.pt")
        if learner.step % 4 == 0:
            mean = float(torch.stack(losses).mean())
            figures = learner.validate(held.images, held.labels, training.weighed)
            losses.clear()
            if learner.step == 8:
                across = {"loss": mean, **figures}  # of steps before the checkpoint, and after it
    train(runs.resumed(run.path))
    ended = torch.load(run.checkpoints / "last.pt", weights_only=True)
    assert ended.keys() == {*state, "curriculum"} and ended["step"] == 12 and ended["losses"] == []
    for part in ("network", "average"):
        assert all(
            torch.equal(value, ended[part][name])
            for name, value in getattr(learner, part).state_dict().items()
        )
    assert (ended["best"]["ap"], ended["best"]["step"]) == (learner.best["ap"], learner.best["step"])
    first = Run(run.path).log_lines()[0]
    assert {k: v for k, v in first.items() if k not in ("step", "images_per_second")} == across


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


def test_a_loss_that_is_not_finite_stops(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a step size that settings would refuse runs away at once
    monkeypatch.setattr("crossfake.detect.training.settings.check_bounds", lambda settings: None)
    with pytest.raises(
        UserError, match=r"loss is not finite at step 4: train with a smaller --lr and another"
    ):
        train(_settings(real, fake, tmp_path / "run", lr=1e38))
    with pytest.raises(UserError, match="holds a run already"):
        train(_settings(real, fake, tmp_path / "run"))
    settings = _settings(real, fake, tmp_path / "later", steps=400)
    with pytest.raises(
        UserError, match=r"not finite at step 8; the last good state.*with --resume and a smaller --lr"
    ):
        _stopped_and_resumed(settings, 1, lr=1e38)


def test_a_stop_keeps_no_state_that_is_not_finite(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Stopper, "asked", True)
    settings = _settings(real, fake, tmp_path / "run", eval_every=100)
    train(settings)
    kept = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    monkeypatch.setattr(DetectorLearner, "means", lambda self: {"loss": float("nan")})
    with pytest.raises(UserError, match="loss is not finite at step 2; the last good state"):
        train(runs.resumed(settings.out))
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == kept


def test_a_run_does_not_go_on_with_other_data(real: Path, fake: Path, own: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fake, tmp_path / "first")
    settings = _settings(real, folder, tmp_path / "run")
    train(settings)
    moved = folder.rename(tmp_path / "moved")
    train(runs.resumed(settings.out, fake=(moved,)))
    config = Run(settings.out).config
    for other in ((own,), (fake, own)):
        with pytest.raises(UserError, match=f"{own} is not among the data of {settings.out} as it was"):
            train(runs.resumed(settings.out, fake=other))
    assert Run(settings.out).config == config
    Run.create(settings.out, {**config, "validation_hash": "0"}, kind="detect", resume=True)
    with pytest.raises(UserError, match="validation images of .*run have changed: resume with the data"):
        train(runs.resumed(settings.out))


def test_nothing_to_resume_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        runs.resumed(tmp_path / "none")


def test_the_control_of_a_run_makes_as_many_steps_and_validations(
    real: Path, fake: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(
        real, fake, tmp_path / "with", synthetic=(own,), steps=200, eval_every=5, patience=2, lr=3e-3, seed=3
    )
    run = Run(train(settings))
    steps = [line["step"] for line in run.log_lines()]
    assert steps[-1] < 200
    control = runs.control(run.path, out=tmp_path / "without")
    assert (control.steps, control.batch, control.seed, control.eval_every) == (200, 8, 3, 5)
    assert control.stop_after == steps[-1] and control.synthetic == () and control.fake == (fake,)
    capsys.readouterr()
    without = Run(train(control))
    assert [line["step"] for line in without.log_lines()] == steps and without.finished
    assert "changes more" not in capsys.readouterr().out
    other = runs.matched(
        TrainSettings((real,), tmp_path / "x", (fake,), match_steps=run.path, lr=1e-5, batch=4)
    )
    assert (other.steps, other.batch, other.stop_after) == (200, 8, steps[-1])
    assert any("lr 1e-05 instead of 0.003" in difference for difference in runs.differences(other))
    with pytest.raises(UserError, match="holds no training to match"):
        runs.matched(TrainSettings((real,), tmp_path / "x", (fake,), match_steps=tmp_path))
    shutil.copytree(run.path, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "finished.json").unlink()
    with pytest.raises(UserError, match="unfinished has not finished"):
        runs.control(tmp_path / "unfinished", out=tmp_path / "x")
    shutil.rmtree(run.path)  # its control goes on without it
    assert runs.differences(runs.resumed(without.path)) == []


def test_a_control_sees_reals_as_the_run_does(real: Path, fake: Path, own: Path, tmp_path: Path) -> None:
    """However many generators of one's own there are: they change how many numbers the choice of images takes."""
    others = make_shards(tmp_path / "others", 1, seed=9, split="train", prefix="o")
    runs = [
        DetectorTraining(
            _settings(real, fake, tmp_path / "x", synthetic=synthetic, recipe="wang2020", augment=0.5)
        )
        for synthetic in ((), (own, others))
    ]
    for step in range(8):
        without, with_own = (training.batch(step)[:4] for training in runs)
        assert torch.equal(without, with_own)


def test_sbi_trains_on_reals_only(tmp_path: Path) -> None:
    real = make_shards(tmp_path / "faces", 0, crop="face")
    settings = TrainSettings(
        (real,), tmp_path / "run", recipe="sbi", steps=4, batch=8, eval_every=2, device="cpu"
    )
    run = Run(train(settings))
    card = json.loads((run.model / "bundle.json").read_text())
    assert card["recipe"] == "sbi" and set(card["data_hashes"]) == {str(real)}
    assert "not run" in card["audit"]["summary"]


def test_a_nearest_neighbour_head_remembers_in_place_of_steps(real: Path, fake: Path, tmp_path: Path) -> None:
    import crossfake.detect.training.train as training

    options = {"tower": "test_vit", "tower_size": 16, "head": "nearest"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_BANK", 32)
        run = train(_settings(real, fake, tmp_path / "run", model="clip_probe", options=options))
    card = json.loads((run / "model" / "bundle.json").read_text())
    assert card["options"]["bank"] == [16, 16] and card["step"] == 0
    assert len(load(run).score(np.zeros((3, 16, 16, 3), np.uint8))) == 3


def test_validations_are_reported_and_may_end_a_training(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EnoughError(Exception):
        pass

    seen: list[int] = []

    def look(step: int, figures: dict[str, float]) -> None:
        assert {"val_ap", "val_auc", "loss"} <= set(figures)
        seen.append(step)
        if len(seen) == 2:
            raise EnoughError

    closed: list[Path] = []
    monkeypatch.setattr(Run, "close", lambda run: closed.append(run.path))
    with pytest.raises(EnoughError):
        train(_settings(real, fake, tmp_path / "run"), on_validation=look)
    assert seen == [4, 8] and closed == [tmp_path / "run"]


def test_a_dry_run_leaves_nothing_behind(real: Path, fake: Path, weights: Path, tmp_path: Path) -> None:
    text = dry_run(_settings(real, fake, tmp_path / "run", weights=weights, tune="probe"), steps=2)
    for part in ("M frozen", "images/s", "memory", "12 steps of 8 images at most", "min without validation"):
        assert part in text
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "many", 1, count=600, seed=6, split="train")


def test_the_log_and_the_card_say_how_each_generator_does(
    real: Path, fake: Path, many: Path, tmp_path: Path
) -> None:
    run = Run(train(_settings(real, fake, tmp_path / "run", synthetic=(many,))))
    card = json.loads((run.model / "bundle.json").read_text())
    assert {"val_ap", "val_ap/fake grid", "val_ap/many grid"} <= set(run.log_lines()[0])
    shares = [(part["kind"], part["share"]) for part in card["validation_shares"]]
    assert shares == [("real", 0.5), ("fake", 0.25), ("synthetic", 0.25)]
    assert card["validation_shares"][2]["images"] > 2 * card["validation_shares"][1]["images"]
    assert [{k: part[k] for k in part if k != "ap"} for part in card["validation_shares"]] == run.config[
        "validation_shares"
    ]
    detector = load(run.path, "cpu")
    training = DetectorTraining(_settings(real, fake, tmp_path / "x", synthetic=(many,)))
    held, weights = training.held, training.weighed.weights
    fitted = calibration.by_temperature(detector.outputs(held.images)[0], held.labels, weights)
    assert detector.threshold == pytest.approx(fitted["threshold"], abs=1e-3)
    assert detector.card["temperature"] == pytest.approx(fitted["temperature"], rel=1e-3)
    logits = detector.outputs(held.images)[0]
    assert card["validation_ap"] == pytest.approx(
        average_precision_score(held.labels, logits, sample_weight=weights), abs=1e-3
    )
    events = EventAccumulator(str(run.path)).Reload()
    assert any(re.fullmatch("val_ap/many.grid", name) for name in events.Tags()["scalars"])


def test_a_run_keeps_the_weights_that_it_began_with(
    real: Path, fake: Path, many: Path, tmp_path: Path
) -> None:
    """With another ratio, or another's weights, its best state so far would be one by another figure."""
    settings = _settings(real, fake, tmp_path / "run", synthetic=(many,))
    like = dataclasses.replace(settings, synthetic_ratio=0.25)
    run = Run(train(settings, weigh_as=like))
    shares = [part["share"] for part in run.config["validation_shares"]]
    assert shares == [0.5, 0.375, 0.125]
    card = json.loads((run.model / "bundle.json").read_text())
    assert [part["share"] for part in card["validation_shares"]] == shares
    assert card["trained_with"]["synthetic_ratio"] == 0.25 and run.config["synthetic_ratio"] == 0.5
    resumed = DetectorTraining(runs.resumed(run.path, synthetic_ratio=1.0))
    assert list(resumed.weighed.shares.values()) == shares and not resumed.alike


def test_a_run_begun_without_weights_goes_on_without(
    real: Path,
    fake: Path,
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To the bit as it would have ended: same states, same choice, same threshold."""
    import crossfake.detect.training.train as training

    with monkeypatch.context() as before:  # a version whose validation images count alike
        before.setattr(training.Weighed, "as_batches", lambda kinds, sampler: training.Weighed.alike(kinds))
        whole = train(_settings(real, fake, tmp_path / "whole", synthetic=(many,)))

        class Stops(loop.Stopper):
            @property
            def asked(self) -> bool:  # type: ignore[override]
                return len(Run(tmp_path / "part").log_lines()) >= 1

        before.setattr(loop, "Stopper", Stops)
        part = train(_settings(real, fake, tmp_path / "part", synthetic=(many,)))
    config = {k: v for k, v in Run(part).config.items() if k not in ("kind", "validation_shares")}
    Run.create(part, config, kind="detect", resume=True)
    train(runs.resumed(part))
    assert "began when every validation image counted alike, and goes on so" in capsys.readouterr().out
    assert "validation_shares" not in Run(part).config
    cards = [json.loads((run / "model" / "bundle.json").read_text()) for run in (whole, part)]
    assert cards[0] == cards[1]
    states = [load_file(run / "model" / "model.safetensors") for run in (whole, part)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
