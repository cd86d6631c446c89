import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle import load
from crossfake.detect.calibration.fitting import BEFORE, CalibrateSettings, calibrate, format_table
from crossfake.detect.commands.calibrate import calibrate as command
from crossfake.errors import UserError

from ..conftest import SIZE, make_shards


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
    result = calibrate(_settings(copy, real, fake, method="beta", novelty="mahalanobis"))
    assert (copy / BEFORE).read_text() == before
    card = _card(copy)
    assert card["calibration"]["method"] == result["chosen"] == "beta"
    assert card["validation_hash"] == json.loads(before)["validation_hash"]
    detector = load(copy, device="cpu")
    images = ShardSet(fake).read_many(range(96, 120))
    judgements = detector.judge(images)
    assert [judgement.score for judgement in judgements] == detector.score(images).tolist()
    for judgement in judgements:
        assert judgement.low is not None and judgement.high is not None and judgement.novelty is not None
        assert judgement.low <= judgement.score <= judgement.high
    logits, features = detector.outputs(images)
    strange = detector.judge_outputs(logits, 100 - 50 * features)
    assert all("out-of-distribution" in judgement.reasons for judgement in strange)
    assert all(judgement.verdict == "uncertain" for judgement in strange)
    table = format_table(result)
    assert "* beta" in table and "saw these images" in table


@pytest.mark.parametrize("novelty", ["energy", None])
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
        {"novelty": "vae"},
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
