import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.firewall import Seen, count_overlap
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle.bundle import load
from crossfake.detect.bundle.novelty import noticed_words
from crossfake.detect.calibrate import BEFORE, calibrate, format_table
from crossfake.detect.commands.calibrate import calibrate as command
from crossfake.detect.evaluation import metrics
from crossfake.detect.settings import CalibrateSettings
from crossfake.detect.training.reopening import reopen
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.errors import UserError

from .conftest import SIZE, make_shards


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "model", tmp_path / "bundle"))


def _settings(bundle: Path, real: Path, fake: Path, **changed: Any) -> CalibrateSettings:
    options = {"method": "temperature", "bootstrap": 100, "coverage": 0.6, "device": "cpu", **changed}
    return CalibrateSettings(bundle, (real,), (fake,), **options)


def _card(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "bundle.json").read_text()))


def test_a_calibrated_bundle_judges_with_all_it_learnt(copy: Path, real: Path, fake: Path) -> None:
    before = (copy / "bundle.json").read_text()
    result = calibrate(_settings(copy, real, fake, method="beta"))
    assert (copy / BEFORE).read_text() == before
    card = _card(copy)
    assert card["calibration"]["method"] == result["chosen"] == "beta"
    assert card["validation_hash"] == json.loads(before)["validation_hash"]
    detector = load(copy, device="cpu")
    images = ShardSet(fake).read_many(range(96, 120))
    judgements = detector.judge(images)
    assert [judgement.probability for judgement in judgements] == detector.score(images).tolist()
    for judgement in judgements:
        assert judgement.low is not None and judgement.high is not None and judgement.novelty is not None
        assert judgement.low <= judgement.probability <= judgement.high
    logits, features = detector.outputs(images)
    strange = detector.judge_outputs(logits, 100 - 50 * features)
    assert all("out-of-distribution" in judgement.reasons for judgement in strange)
    assert all(judgement.verdict == "uncertain" for judgement in strange)
    table = format_table(result)
    assert "* beta" in table and "saw these images" in table


def test_a_source_left_out_says_how_often_strangers_are_noticed(
    copy: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    with ShardWriter(tmp_path / "noise", SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for number, image in enumerate(
            np.random.default_rng(0).integers(0, 256, (60, SIZE, SIZE, 3), np.uint8)
        ):
            writer.append(image, Row(0, "noise", "", "train" if number < 30 else "val", f"n{number}"))
    settings = CalibrateSettings(
        copy, (real, tmp_path / "noise"), (fake,), "temperature", bootstrap=100, device="cpu", force=True
    )
    noticed = {each["source"]: each for each in calibrate(settings)["card"]["novelty"]["noticed"]}
    assert set(noticed) == {"real", "noise"} and noticed["noise"]["n"] == 30 and noticed["real"]["n"] == 24
    low, high = noticed["noise"]["interval"]
    assert (
        low < noticed["noise"]["flagged"] < high and noticed["noise"]["flagged"] > noticed["real"]["flagged"]
    )
    assert f"noise {round(30 * noticed['noise']['flagged'])} of 30" in noticed_words(
        load(copy, "cpu").card["novelty"]
    )
    assert calibrate(_settings(copy, real, fake))["card"]["novelty"]["noticed"] == []


@pytest.mark.parametrize("novelty", ["knn", None])
def test_calibrating_again_leaves_no_old_files(
    copy: Path, real: Path, fake: Path, novelty: str | None
) -> None:
    for kind in ("knn", novelty):
        result = calibrate(_settings(copy, real, fake, novelty=kind, coverage=None))
    assert "abstention" not in result["card"] and ("novelty" in _card(copy)) == (novelty is not None)
    kept = {
        json.loads((copy / name).read_text()).get("novelty", {}).get("file")
        for name in ("bundle.json", BEFORE)
    }
    assert {path.name for path in copy.glob("novelty-*")} == kept - {None}
    assert len(load(copy, device="cpu").judge(ShardSet(real).read_many(range(3)))) == 3


def test_auto_takes_the_best_cross_validated_likelihood(copy: Path, real: Path, fake: Path) -> None:
    result = calibrate(_settings(copy, real, fake, method="auto", novelty=None, prior=0.2))
    losses = {name: result["figures"][name]["nll"] for name in ("temperature", "beta", "isotonic")}
    assert result["chosen"] == min(losses, key=lambda name: losses[name])
    assert result["card"]["calibration"]["prior"] == 0.2


def test_other_validation_images_are_refused_unless_told(copy: Path, real: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", 1, seed=5)
    with pytest.raises(UserError, match="not the validation images"):
        calibrate(_settings(copy, real, other))
    assert not (copy / BEFORE).exists()
    result = calibrate(_settings(copy, real, other, force=True))
    assert "other validation images" in result["notes"][0]
    assert _card(copy)["validation_hash"] != json.loads((copy / BEFORE).read_text())["validation_hash"]
    seen, shards = Seen.load(copy), ShardSet(other)
    assert seen is not None and _card(copy)["seen"] == seen.digest
    rows = shards.select(split="val")
    assert count_overlap(seen.only("validated on"), shards, rows) == (len(rows), 0)


def test_test_rows_are_never_read(
    copy: Path, real: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Path, int]] = []
    original = ShardSet.read
    monkeypatch.setattr(
        ShardSet, "read", lambda self, row: read.append((self.path, row)) or original(self, row)
    )
    calibrate(_settings(copy, real, fake))
    test = {(folder, int(row)) for folder in (real, fake) for row in ShardSet(folder).select(split="test")}
    assert read and not test.intersection(read)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "platt"},
        {"novelty": "energy"},
        {"coverage": 1.0},
        {"prior": 1.5},
        {"quantile": 99},
        {"bootstrap": 3},
    ],
)
def test_bad_settings_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        CalibrateSettings(Path("b"), (Path("r"),), (Path("f"),), **wrong)


def test_the_command_prints_the_table(copy: Path, real: Path, fake: Path) -> None:
    words = [
        "--bundle",
        str(copy),
        "--real",
        str(real),
        "--fake",
        str(fake),
        "--bootstrap",
        "100",
        "--method",
        "temperature",
    ]
    found = CliRunner().invoke(command, [*words, "--device", "cpu", "--coverage", "0.95"])
    assert found.exit_code == 0, found.output
    assert "NLL" in found.output and "abstains on" in found.output and "novelty knn" in found.output
    assert "was never measured" in found.output
    assert "nothing can be called fake at this coverage with fewer than 19 groups" in found.output


def test_force_does_not_calibrate_on_what_was_trained_on(
    copy: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    trained_on = ShardSet(fake)
    rng = np.random.default_rng(8)
    for prefix, message in (("fake", r"group 'fake-\d'"), ("new", r"image \d+ of .*new was trained on")):
        folder = tmp_path / prefix
        with ShardWriter(folder, SIZE, attributes={"crop": {"policy": "none"}}) as writer:
            for number in range(10):
                fresh = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
                writer.append(fresh, Row(1, "x", "grid", "train", f"fresh-{number}"))
                writer.append(trained_on.read(number), Row(1, "x", "grid", "val", f"{prefix}-{number}"))
        with pytest.raises(UserError, match=message):
            calibrate(_settings(copy, real, folder, force=True))
    assert not (copy / BEFORE).exists()


def test_a_temperature_cannot_shift_a_prior() -> None:
    with pytest.raises(UserError, match="cannot shift a prior: use --method beta"):
        CalibrateSettings(Path("b"), (Path("r"),), (Path("f"),), method="temperature", prior=0.1)


@pytest.fixture(scope="module")
def with_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with own fakes, most of the fakes that validate, and its data beside it."""
    root = tmp_path_factory.mktemp("with")
    real, fake = (make_shards(root / name, label, 60) for label, name in enumerate(("real", "fake")))
    own = make_shards(root / "own", 1, 400, seed=5, split="train")
    train(
        TrainSettings(
            (real,),
            root / "run",
            (fake,),
            (own,),
            steps=8,
            batch=8,
            eval_every=8,
            lr=3e-3,
            augment=0.0,
            device="cpu",
        )
    )
    return root


def test_a_run_with_own_fakes_is_calibrated_on_its_own_validation_rows(
    with_own: Path, tmp_path: Path
) -> None:
    """As in README: with no folders at all, and with all but the own ones."""
    run = Path(shutil.copytree(with_own / "run", tmp_path / "run"))
    card = _card(run / "model")
    for real, fake in (((), ()), ((with_own / "real",), (with_own / "fake",))):
        result = calibrate(CalibrateSettings(run, real, fake, "beta", bootstrap=100, device="cpu"))
        assert result["card"]["validation_hash"] == card["validation_hash"]
        assert result["images"][1] > 3 * result["images"][0]  # of the images most are fake
        assert result["card"]["calibration"]["prior"] == pytest.approx(0.5)  # but not of what they count
        kinds = {part["kind"]: part["share"] for part in result["card"]["validation_shares"]}
        assert kinds == pytest.approx({"real": 0.5, "fake": 0.25, "synthetic": 0.25})
        told = [note for note in result["notes"] if "is taken as well" in note]
        assert told == ([f"{with_own / 'own'} was trained with, too, and is taken as well"] if real else [])
    detector = load(run, "cpu")
    reopened = reopen(detector)
    held = reopened.data.validation()
    weights = reopened.weigh(held.kinds).weights
    mean = np.average(detector.score(held.images), weights=weights)
    assert mean == pytest.approx(0.5, abs=0.02)  # a fitted map is right on average where it was fitted
    assert detector.threshold == pytest.approx(
        metrics.best_threshold(held.labels, detector.score(held.images), weights), abs=1e-6
    )


def test_the_command_needs_no_folders(with_own: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(with_own / "run", tmp_path / "run"))
    found = CliRunner().invoke(command, ["--bundle", str(run), "--bootstrap", "100", "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert "probabilities hold where 50.0% of the images are fake" in found.output
    assert "own fakes    own     grid" in found.output and "25.0%" in found.output


def test_a_detector_of_reals_alone_is_calibrated_on_the_fakes_that_it_made(tmp_path: Path) -> None:
    real = make_shards(tmp_path / "faces", 0, crop="face")
    run = train(
        TrainSettings((real,), tmp_path / "run", recipe="sbi", steps=4, batch=8, eval_every=2, device="cpu")
    )
    result = calibrate(CalibrateSettings(run, method="temperature", bootstrap=100, device="cpu"))
    assert result["images"] == [24, 24] and result["card"]["novelty"]["method"] == "knn"
    assert [part["kind"] for part in result["card"]["validation_shares"]] == ["real", "made"]
