"""Evaluation, calibration and ensembles of detectors of native pixels."""

from dataclasses import replace
from pathlib import Path

import pytest

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.ensemble import make_ensemble
from crossfake.detect.evaluation.evaluate import evaluate
from crossfake.detect.settings import EnsembleSettings, EvaluateSettings, TuneSettings
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.detect.tuning.tune import tune
from crossfake.detect.view import View
from crossfake.errors import UserError

from ..conftest import make_native


def test_a_native_set_is_evaluated_by_windows_as_predict_judges(
    native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = EvaluateSettings(native_run, native, bootstrap=0, device="cpu", out=tmp_path / "evaluation")
    result = evaluate(settings)
    assert result["overall"]["auc"] > 0.9 and result["n"] == 24
    detector = bundle.load(native_run, "cpu")
    expected = [
        score
        for folder in native
        for score in detector.score(ShardSet(folder).read_each(ShardSet(folder).select(split="test")))
    ]
    lines = (tmp_path / "evaluation" / "scores.csv").read_text().splitlines()
    place = lines[0].split(",").index("score")
    assert [float(line.split(",")[place]) for line in lines[1:]] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "evaluation" / "evaluation.html").is_file()


def test_sets_of_other_pixels_are_one_line(native_run: Path, real: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resized: a native view"):
        evaluate(EvaluateSettings(native_run, (real,), bootstrap=0, device="cpu"))
    small = make_native(tmp_path / "small", 0, least=12)
    with pytest.raises(UserError, match=r"smaller than the window of 16"):
        evaluate(EvaluateSettings(native_run, (small,), bootstrap=0, device="cpu"))


def test_an_aligned_detector_does_not_take_native_sets(
    real: Path, fake: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    run = train(
        TrainSettings((real,), tmp_path / "run", (fake,), steps=2, batch=8, device="cpu", recipe="plain")
    )
    with pytest.raises(UserError, match="native pixels, which an aligned view does not take"):
        evaluate(EvaluateSettings(run, native, bootstrap=0, device="cpu"))


def test_a_search_validates_on_what_its_trainings_see(native: tuple[Path, Path], tmp_path: Path) -> None:
    base = TrainSettings(
        (native[0],),
        tmp_path / "tune",
        (native[1],),
        view="native",
        window=16,
        steps=4,
        batch=8,
        eval_every=4,
        device="cpu",
        recipe="plain",
    )
    space = tmp_path / "space.yaml"
    space.write_text("lr: {choices: [0.001, 0.01]}\n")
    result = tune(TuneSettings(base, space, method="grid", pruner="none", bootstrap=10))
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 2
    assert result["comparison"]["tuned"]["ap"]["value"] > 0
    assert bundle.load(tmp_path / "tune" / "best", "cpu").view == View("native", 16, 5)
    space.write_text("window: {choices: [16, 20]}\n")
    with pytest.raises(UserError, match="not for searching"):
        tune(TuneSettings(base, space, bootstrap=10))


def test_an_ensemble_sees_as_its_members_do(
    native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    base = TrainSettings(
        (native[0],),
        tmp_path / "other",
        (native[1],),
        view="native",
        window=16,
        steps=20,
        batch=16,
        eval_every=10,
        device="cpu",
        recipe="plain",
        seed=1,
    )
    other = train(base)
    found = bundle.load(
        make_ensemble(EnsembleSettings((native_run, other), out=tmp_path / "both", device="cpu")), "cpu"
    )
    assert found.view == View("native", 16, 5)
    crops = ShardSet(native[1]).read_each([50, 51])
    assert found.outputs(crops)[0].shape == (2,)
    wider = train(replace(base, window=20, out=tmp_path / "wider"))
    with pytest.raises(UserError, match="was trained on another size"):
        make_ensemble(EnsembleSettings((native_run, wider), out=tmp_path / "none", device="cpu"))
