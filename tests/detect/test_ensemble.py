import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.optimize import minimize
from scipy.special import log_expit

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.calibrate import calibrate
from crossfake.detect.commands.ensemble import ensemble
from crossfake.detect.ensemble import fit_weights, make_ensemble
from crossfake.detect.evaluation.overlap import seen_by
from crossfake.detect.models import create_model
from crossfake.detect.settings import CalibrateSettings, EnsembleSettings
from crossfake.detect.training.data import TrainingData
from crossfake.errors import UserError
from crossfake.runs import Run

from .conftest import SIZE, make_shards


@pytest.fixture
def other(trained: Path, tmp_path: Path) -> Path:
    """A second, untrained member of another kind."""
    return _bundle(tmp_path / "other", trained)


def _bundle(folder: Path, like: Path, model: str = "frequency", **changed: object) -> Path:
    torch.manual_seed(1)
    card = json.loads((like / "model" / bundle.CARD).read_text())
    network = create_model(model, options={"size": SIZE})
    facts = {"model": model, "options": network.options, "temperature": 1.5}
    facts |= {"data_hashes": {"x": "y"}, "sources": ["elsewhere"]}
    seen = None if "data_hashes" in changed else Seen()  # with them: as made before there was a record
    bundle.save(folder, network, {**card, **facts, **changed}, seen)
    return folder


def _problem(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A good member, a worse one, and one that is noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    noise = rng.normal(size=(count, 3))
    return np.stack([2, 1, 0] * (2 * labels[:, None] - 1) + noise * [1.5, 1.5, 1], axis=1).T, labels


def test_the_mean() -> None:
    logits, labels = _problem()
    fitted = fit_weights("mean", logits, labels)
    np.testing.assert_allclose(fitted(logits), logits.mean(1))


def test_weights_have_the_highest_likelihood_on_the_simplex() -> None:
    logits, labels = _problem()
    fitted = fit_weights("weighted", logits, labels)
    assert fitted.bias == 0 and fitted.weights.min() >= 0 and fitted.weights.sum() == pytest.approx(1)
    assert fitted.weights[0] > fitted.weights[1] > fitted.weights[2]
    signs = 2 * labels - 1

    def loss(x: np.ndarray) -> float:  # the same problem, parametrised otherwise: softmax weights and a scale
        weights = np.exp(x[:3]) / np.exp(x[:3]).sum()
        return float(-log_expit(signs * (logits @ weights) * np.exp(x[3])).mean())

    reference = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 5000, "fatol": 1e-10})
    weights = np.exp(reference.x[:3]) / np.exp(reference.x[:3]).sum()
    np.testing.assert_allclose(fitted.weights, weights, atol=0.01)


def test_stacking_is_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    logits, labels = _problem()
    fitted, reference = fit_weights("stacked", logits, labels), LogisticRegression().fit(logits, labels)
    np.testing.assert_allclose(fitted(logits), reference.decision_function(logits), atol=1e-3)


def test_members_that_make_no_mistake_or_only_mistakes() -> None:
    labels = np.array([0, 1] * 20)
    perfect = np.stack([labels * 20.0 - 10, labels * 2.0 - 1], axis=1)
    assert np.isfinite(fit_weights("weighted", perfect, labels).weights).all()
    np.testing.assert_allclose(fit_weights("weighted", -perfect, labels).weights, [0.5, 0.5])


@pytest.mark.parametrize("method", ["mean", "weighted", "stacked"])
def test_the_ensemble_is_a_bundle(
    method: str, trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    run = make_ensemble(
        EnsembleSettings((trained, other), (real,), (fake,), tmp_path / "e", method, device="cpu")
    )
    assert Run(run).finished and Run(run).config["kind"] == "detect"
    detector = bundle.load(run, device="cpu")
    members = [bundle.load(path, device="cpu") for path in (trained, other)]
    data = TrainingData.open([real], [fake], [], force=False)
    held = data.validation(2000)
    images, labels = held.images, held.labels
    scaled = np.stack([member.outputs(images)[0] / member.card["temperature"] for member in members], axis=1)
    fitted = fit_weights(method, scaled, labels)
    logits, features = detector.outputs(images)
    np.testing.assert_allclose(logits, fitted(scaled), atol=1e-4)
    np.testing.assert_allclose(features[:, :2], scaled, atol=1e-4)
    card = detector.card
    assert card["validation_hash"] == held.digest and card["size"] == SIZE and card["validation_ap"] > 0.5
    assert [facts["hash"] for facts in card["members"]] == [member.hash for member in members]
    assert card["data_hashes"].items() >= {**members[0].card["data_hashes"], "x": "y"}.items()
    assert "elsewhere" in card["sources"] and card["members"][1]["data_hashes"] == {"x": "y"}
    for number, member in enumerate(members):  # each is there to be used by itself
        copied = bundle.load(run / "model" / "members" / f"{number:02d}", device="cpu")
        assert copied.hash == member.hash and copied.card == member.card


def test_an_ensemble_of_an_ensemble(
    trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    first = make_ensemble(EnsembleSettings((trained, other), (real,), (fake,), tmp_path / "e", device="cpu"))
    second = make_ensemble(
        EnsembleSettings((first, trained), (real,), (fake,), tmp_path / "f", "mean", device="cpu")
    )
    assert bundle.load(second, device="cpu").outputs(np.zeros((1, SIZE, SIZE, 3), np.uint8))[0].shape == (1,)


def test_it_is_calibrated_as_one_detector(
    trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    run = make_ensemble(EnsembleSettings((trained, other), (real,), (fake,), tmp_path / "run", device="cpu"))
    result = calibrate(CalibrateSettings(run, (real,), (fake,), bootstrap=100, device="cpu"))
    (judged,) = bundle.load(run, "cpu").judge(ShardSet(real).read_many([100]))
    assert judged.low is not None and judged.high is not None and judged.low <= judged.high
    assert result["card"]["model"] == "ensemble" and len(result["card"]["members"]) == 2
    assert result["card"]["calibration"]["interval"] and judged.novelty is not None


def test_it_needs_no_members_bundle_any_more(
    trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    run = make_ensemble(EnsembleSettings((trained, other), (real,), (fake,), tmp_path / "e", device="cpu"))
    image = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), dtype=np.uint8)
    before = bundle.load(run, device="cpu").score(image)
    moved = (run / "model").rename(tmp_path / "moved")
    for file in other.iterdir():
        file.unlink()
    assert bundle.load(moved, device="cpu").score(image) == before


def test_members_that_do_not_go_together(
    trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    def refused(message: str, *bundles: Path, method: str = "mean") -> None:
        with pytest.raises(UserError, match=message):
            make_ensemble(EnsembleSettings(bundles, (real,), (fake,), tmp_path / "e", method, device="cpu"))
        assert not (tmp_path / "e").exists()

    refused("at least two", trained)
    refused("are the same detector", trained, trained)
    refused("another crop than", trained, _bundle(tmp_path / "c", trained, crop={"policy": "face"}))
    refused("another size than", trained, _bundle(tmp_path / "s", trained, "npr", size=32))
    refused("no method 'best'", trained, other, method="best")
    refused("holds no detector", trained, tmp_path / "nothing")


def test_data_of_another_crop_is_refused(trained: Path, other: Path, fake: Path, tmp_path: Path) -> None:
    real, fakes = (make_shards(tmp_path / name, label, crop="face") for label, name in enumerate("rf"))
    with pytest.raises(UserError, match="prepare it the same way$"):
        make_ensemble(EnsembleSettings((trained, other), (real,), (fakes,), tmp_path / "e", device="cpu"))


def test_a_member_may_not_have_been_trained_on_what_validates(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    seen = make_shards(tmp_path / "seen", 0, split="train", prefix="real")  # the groups of real, all to train
    member = _bundle(tmp_path / "m", trained, data_hashes={str(seen): ShardSet(seen).hash})
    with pytest.raises(UserError, match="group 'real-.* was trained on by .*m"):
        make_ensemble(EnsembleSettings((trained, member), (real,), (fake,), tmp_path / "e", device="cpu"))


def test_test_rows_are_not_read(
    trained: Path, other: Path, real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    original = ShardSet.read
    monkeypatch.setattr(
        ShardSet,
        "read",
        lambda self, row: read.add(str(self.columns["split"][row])) or original(self, row),
    )
    make_ensemble(EnsembleSettings((trained, other), (real,), (fake,), tmp_path / "e", device="cpu"))
    assert "test" not in read and "val" in read


def test_the_command(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    other = _bundle(tmp_path / "other", trained, data_hashes={"x": "y"})
    result = CliRunner().invoke(
        ensemble,
        [
            str(trained),
            str(other),
            "--real",
            str(real),
            "--fake",
            str(fake),
            "--out",
            str(tmp_path / "e"),
            "--method",
            "weighted",
            "--device",
            "cpu",
            "--force",
        ],
    )
    assert result.exit_code == 0, result.output
    assert (
        "weight" in result.output
        and "note: " in result.output
        and f"--bundle {tmp_path / 'e'}" in result.output
    )


def test_members_whose_folders_are_gone_are_refused_or_told(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    old = _bundle(tmp_path / "old", trained, data_hashes={"x": "y"})
    with pytest.raises(
        UserError, match="x was trained on and is not there as it was: put it back where .*old"
    ):
        make_ensemble(
            EnsembleSettings((trained, old), (real,), (fake,), tmp_path / "e", "mean", device="cpu")
        )
    run = make_ensemble(
        EnsembleSettings((trained, old), (real,), (fake,), tmp_path / "e", "mean", device="cpu", force=True)
    )
    (note,) = bundle.load(run, device="cpu").card["notes"]
    assert note == "x was trained on and is not there as it was: overlap with it is unchecked"
    assert seen_by(bundle.load(run, device="cpu")).unknown == ("x was trained on and is not there as it was",)


def test_a_member_of_another_working_directory_is_checked_by_hash(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    member = _bundle(tmp_path / "m", trained, data_hashes={"typed/real": ShardSet(real).hash})
    run = make_ensemble(
        EnsembleSettings((trained, member), (real,), (fake,), tmp_path / "e", "mean", device="cpu")
    )
    assert bundle.load(run, device="cpu").card["notes"] == []


def test_without_folders_it_takes_those_that_its_members_share(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    twin = shutil.copytree(trained, tmp_path / "twin")
    network = create_model("cnn", options={"size": SIZE})
    bundle.save(twin / "model", network, json.loads((twin / "model" / bundle.CARD).read_text()))
    run = make_ensemble(EnsembleSettings((trained, twin), out=tmp_path / "e", device="cpu"))
    card = bundle.load(run, device="cpu").card
    assert card["validation_hash"] == Run(trained).config["validation_hash"] and card["notes"] == []
    assert Run(run).config["real"] == [str(real)] and Run(run).config["fake"] == [str(fake)]
    assert [part["share"] for part in card["validation_shares"]] == [0.5, 0.5]
    assert card["trained_with"]["real"] == [ShardSet(real).hash] and card["trained_with"]["batch"] == 16


def test_weights_count_images_as_repetitions() -> None:
    logits, labels = _problem()
    times = np.where(logits[:, 0] * (2 * labels - 1) < 0, 4, 1)  # where the best member errs
    for method in ("weighted", "stacked"):
        weighed = fit_weights(method, logits, labels, times / times.mean())
        repeated = fit_weights(method, logits.repeat(times, axis=0), labels.repeat(times))
        np.testing.assert_allclose(weighed.weights, repeated.weights, atol=0.02)
        assert np.abs(weighed.weights - fit_weights(method, logits, labels).weights).max() > 0.1
