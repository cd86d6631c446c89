"""Training on windows of native pixels, and in pairs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.training import runs
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.reopening import reopen
from crossfake.detect.training.sampling import Sampler
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import DetectorTraining, train
from crossfake.detect.view import View, Windows
from crossfake.errors import UserError

from ..conftest import make_native, make_shards

WINDOW = View("native", 16)


def _settings(native: tuple[Path, Path], out: Path, **changed: object) -> TrainSettings:
    base = {
        "view": "native",
        "window": 16,
        "steps": 12,
        "batch": 16,
        "eval_every": 6,
        "device": "cpu",
        "recipe": "plain",
    }
    return TrainSettings((native[0],), out, (native[1],), **{**base, **changed})  # type: ignore[arg-type]


def test_a_native_bundle_carries_its_view_and_judges_lists_of_any_size(
    native_run: Path, native: tuple[Path, Path]
) -> None:
    detector = bundle.load(native_run, "cpu")
    assert detector.view == View("native", 16, 5) and detector.size == 16
    fakes, reals = (ShardSet(folder).read_each(range(48, 60)) for folder in reversed(native))
    assert detector.score(fakes).mean() > detector.score(reals).mean() + 0.2
    logits, features, error = detector.outputs_and_error(fakes)
    assert logits.shape == error.shape == (12,) and len(features) == 12 and (error > 0).any()
    alone = [detector.outputs([image])[0][0] for image in fakes[:3]]
    assert np.allclose(alone, logits[:3])
    assert detector(fakes[0]) == pytest.approx(detector.score(fakes[:1])[0])
    windows = detector.view.cut(fakes)
    each = detector.outputs(Windows(windows.images, np.ones(len(windows.images), np.int64)))[0]
    assert np.allclose(windows.mean(each), logits)
    assert bundle.load(native_run, "cpu", windows=1).outputs(fakes[:1])[0] == pytest.approx(each[0])


def test_the_spread_of_windows_widens_the_interval(
    native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    from crossfake.detect.calibrate import calibrate
    from crossfake.detect.settings import CalibrateSettings

    calibrated = Path(shutil.copytree(native_run, tmp_path / "calibrated"))
    calibrate(CalibrateSettings(calibrated, bootstrap=100, device="cpu"))
    detector = bundle.load(calibrated, "cpu")
    fakes = ShardSet(native[1]).read_each(range(48, 60))
    logits, features, error = detector.outputs_and_error(fakes)
    wide, narrow = detector.judge(fakes), detector.judge_outputs(logits, features)
    assert [j.probability for j in wide] == [j.probability for j in narrow]
    for one, other, apart in zip(wide, narrow, error, strict=True):
        assert (
            one.low is not None and other.low is not None and one.high is not None and other.high is not None
        )
        assert (one.low < other.low and one.high > other.high) if apart else one.low == other.low


def test_the_card_is_calibrated_with_as_many_windows_as_it_judges_with(
    native_run: Path, native: tuple[Path, Path]
) -> None:
    detector = bundle.load(native_run, "cpu")
    found = reopen(detector)
    held = found.data.validation()
    assert held.digest == detector.card["validation_hash"] and found.data.view == detector.view
    assert isinstance(held.images, Windows) and held.images.counts.max() == 5
    assert len(held.images) == len(held.labels) == 24
    few = found.data.validation(windows=2)
    assert isinstance(few.images, Windows) and set(few.images.counts) == {2} and few.digest == held.digest


def test_training_is_resumed_with_the_same_windows(native: tuple[Path, Path], tmp_path: Path) -> None:
    whole = train(_settings(native, tmp_path / "whole", pair=True))
    half = _settings(native, tmp_path / "half", pair=True)
    with pytest.raises(KeyboardInterrupt):
        train(half, on_validation=_interrupt)
    resumed = train(runs.resumed(half.out))
    assert bundle.load(whole, "cpu").hash == bundle.load(resumed, "cpu").hash


def _interrupt(step: int, figures: dict[str, float]) -> None:
    raise KeyboardInterrupt


def test_partners_share_window_and_draws(native: tuple[Path, Path], tmp_path: Path) -> None:
    training = DetectorTraining(_settings(native, tmp_path / "run", pair=True, recipe="plain"))
    for step in range(3):
        batch = training.batch(step).int()
        reals, fakes = batch[:8], batch[8:]
        apart = fakes - reals
        assert set(torch.unique(apart).tolist()) == {0, 25}  # the grid, at the same places, mirrored alike
    single = DetectorTraining(_settings(native, tmp_path / "other"))
    apart = single.batch(0)[8:].int() - single.batch(0)[:8].int()
    assert set(torch.unique(apart).tolist()) != {0, 25}


def test_a_quarter_of_the_reals_is_edited_and_their_partners_alike(
    native: tuple[Path, Path], tmp_path: Path
) -> None:
    plain, benign, paired, both = (
        DetectorTraining(_settings(native, tmp_path / "run", batch=64, **changed))
        for changed in ({}, {"benign": True}, {"pair": True}, {"pair": True, "benign": True})
    )
    changed = (plain.batch(0) != benign.batch(0)).flatten(1).any(1)
    assert 2 <= changed[:32].sum() <= 16 and not changed[32:].any()
    changed = (paired.batch(0) != both.batch(0)).flatten(1).any(1)
    assert changed[:32].any() and (changed[32:] | ~changed[:32]).all()


def test_windows_depend_on_seed_and_step_only(native: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (DetectorTraining(_settings(native, tmp_path / "run")) for _ in range(2))
    assert torch.equal(one.batch(5), other.batch(5)) and not torch.equal(one.batch(5), one.batch(6))


def test_pairs_keep_the_sources_of_reals_balanced(tmp_path: Path) -> None:
    """A generator's photos may be mostly of one source: the other is still drawn as often."""
    large, small = make_native(tmp_path / "photos", 0, 60), make_native(tmp_path / "small", 0, 20, "small")
    fakes = [
        make_native(tmp_path / f"of-{f.name}", 1, n, parent=f.name) for f, n in ((large, 60), (small, 20))
    ]
    data = TrainingData.open((large, small), fakes, (), True, view=WINDOW)
    sampler = Sampler(data, 16, 0.5, 0, pair=True, balance="none")
    assert len(sampler.real) == len(sampler.given) == 1
    apart = Sampler(data, 16, 0.5, 0, pair=True)
    counts = {large: 0, small: 0}
    for step in range(20):
        places = apart.places(step, apart.rng(step))
        for (stratum, at), (kind, position) in zip(places[:8], places[8:], strict=True):
            shards, row = stratum.where(at)
            counts[shards.path] += 1
            fake, number = kind.where(position)
            assert fake.columns["parent"][number] == shards.ids()[row]
    assert counts[small] > 40 and counts[large] > 40


def test_what_cannot_be_paired_or_seen_is_one_line(native: tuple[Path, Path], tmp_path: Path) -> None:
    photos, made = native
    stray = make_native(tmp_path / "stray", 1)
    with pytest.raises(UserError, match="there are no pairs"):
        DetectorTraining(_settings((photos, stray), tmp_path / "run", pair=True))
    with pytest.raises(UserError, match="even number"):
        _settings(native, tmp_path / "run", pair=True, batch=9)
    with pytest.raises(UserError, match="smaller than the window of 32"):
        DetectorTraining(_settings(native, tmp_path / "run", window=32))
    aligned = make_shards(tmp_path / "aligned", 0)
    with pytest.raises(UserError, match="resized: a native view"):
        DetectorTraining(_settings((aligned, made), tmp_path / "run"))
    with pytest.raises(UserError, match="which an aligned view does not take"):
        DetectorTraining(_settings(native, tmp_path / "run", view="aligned"))
    with pytest.raises(UserError, match="no view 'whole'"):
        _settings(native, tmp_path / "run", view="whole")


def test_a_bundle_of_another_view_is_one_line(
    native_run: Path, native: tuple[Path, Path], real: Path
) -> None:
    detector = bundle.load(native_run, "cpu")
    with pytest.raises(UserError, match="resized: a native view"):
        detector.check_data(ShardSet(real))
    detector.check_data(ShardSet(native[0]))
    with pytest.raises(UserError, match="leave --windows out"):
        replace(detector, card={**detector.card, "view": None}, windows=3)
    card = json.loads((detector.path / "bundle.json").read_text())
    assert card["view"] == {"pixels": "native", "window": 16, "windows": 5}


def test_a_control_of_a_run_in_pairs_has_none(
    native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    control = runs.control(native_run, out=tmp_path / "control")
    assert control.view == "native" and control.window == 16 and not control.pair
    assert not [line for line in runs.differences(control) if "pair" in line]
