import csv
import json
import shutil
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
import sklearn.metrics as reference
from click.testing import CliRunner

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.commands.calibrate import calibrate
from crossfake.detect.commands.evaluate import evaluate as evaluate_command
from crossfake.detect.commands.explain import explain
from crossfake.detect.commands.predict import predict
from crossfake.detect.commands.tune import tune
from crossfake.detect.evaluation.evaluate import evaluate, score
from crossfake.detect.evaluation.table import format_table
from crossfake.detect.settings import EvaluateSettings
from crossfake.errors import UserError

from ..conftest import SIZE, make_shards


def _videos(folder: Path, split: str = "test") -> Path:
    """Videos of two generators, 3 and 4 frames each, and of reals, 2 frames each."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for number in range(36):
            label, image = int(number < 24), rng.integers(60, 180, (SIZE, SIZE, 3), dtype=np.uint8)
            generator, frames = (("swap", 3), ("reenact", 4), ("", 2))[number // 12]
            video = f"{generator}-{number // frames}"
            row = Row(label, "clips", generator, split, video, origin=f"{video}.mp4#frame={number:06d}")
            writer.append(image, row)
    return folder


def test_results_agree_with_the_scores_written_beside_them(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    result = evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=100, device="cpu"))
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "source", "generator", "group", "origin", "score"]
    labels, scores = [int(row["label"]) for row in rows], [float(row["score"]) for row in rows]
    overall = result["overall"]
    assert (overall["n_real"], overall["n_fake"], overall["n_groups"]) == (24, 24, 24)
    assert overall["auc"] == pytest.approx(reference.roc_auc_score(labels, scores))
    assert overall["ap"] == pytest.approx(reference.average_precision_score(labels, scores))
    assert overall["partial_auc"] == pytest.approx(reference.roc_auc_score(labels, scores, max_fpr=0.1))
    assert overall["brier"] == pytest.approx(reference.brier_score_loss(labels, scores))
    low, high = overall["intervals"]["accuracy"]
    assert low <= overall["accuracy"] <= high <= overall["intervals"]["oracle_accuracy"][1]
    assert set(result["by_source"]) == {"real", "fake"} and set(result["by_generator"]) == {"grid"}
    assert result["by_source"]["fake"]["auc"] is None and result["by_source"]["fake"]["recall"] is not None
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["model_hash"] == result["model_hash"] and written["n"] == 48 and written["seed"] == 0
    assert written["config"]["data"] == f"{real} {fake}" and len(written["data_hashes"]) == 2
    for name in ("roc", "pr", "det", "calibration", "confusion", "predictions"):
        assert (tmp_path / f"{name}.png").stat().st_size > 2000, name
    assert (tmp_path / "evaluation.html").read_text().count("data:image/png") >= 6
    table = format_table(result)
    assert "overall" in table and "vs grid" in table and f"{overall['auc']:.3f}" in table


@pytest.mark.usefixtures("plain")
def test_pooled_per_group_as_by_hand(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    result = evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=20, device="cpu"))
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(float(row["score"]))
    labels = [int(name.startswith("fake")) for name in groups]
    for how, function in (("mean", np.mean), ("max", max), ("quantile", lambda s: np.quantile(s, 0.9))):
        part = result["by_group"][how]
        assert (part["n_real"], part["n_fake"]) == (12, 12)
        wanted = reference.roc_auc_score(labels, [function(scores) for scores in groups.values()])
        assert part["auc"] == pytest.approx(wanted) and "auc" in part["intervals"]
    with open(tmp_path / "groups.csv", newline="") as file:
        units = {row["group"]: row for row in csv.DictReader(file)}
    assert {name: float(row["max"]) for name, row in units.items()} == {n: max(s) for n, s in groups.items()}
    assert result["by_video"] == {} and "per group, mean" in format_table(result)


@pytest.mark.usefixtures("plain")
def test_videos_generators_and_the_worst(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    clips = _videos(tmp_path / "clips")
    settings = EvaluateSettings(
        trained, (clips, real, fake), out=tmp_path / "out", bootstrap=10, device="cpu"
    )
    result = evaluate(settings)
    assert (result["by_video"]["mean"]["n_real"], result["by_video"]["mean"]["n_fake"]) == (6, 7)
    assert set(result["by_generator"]) == {"grid", "swap", "reenact"}
    assert result["by_generator"]["swap"]["n_fake"] == 12 and result["by_generator"]["swap"]["n_real"] == 36
    worst = result["worst"]["generator"]
    assert worst["value"] == min(part["auc"] for part in result["by_generator"].values())
    assert result["by_generator"][worst["name"]]["auc"] == worst["value"]
    shares = {
        name: part["balanced_accuracy"] if name == "clips" else part["accuracy"]
        for name, part in result["by_source"].items()
    }
    assert result["worst"]["source"]["name"] == min(shares, key=lambda name: shares[name])
    assert any("compare them by mean" in note for note in result["notes"])
    assert any(
        "the TPR at 1.0% FPR is the share of fakes that score above every real" in note
        for note in result["notes"]
    )


@pytest.mark.usefixtures("plain")
def test_opening_test_data_goes_on_record(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    record = trained / "test_data_opened.jsonl"
    before = len(record.read_text().splitlines()) if record.exists() else 0
    evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=0, device="cpu"))
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == before + 1 and set(lines[-1]["data"]) == {str(real), str(fake)}


def test_one_class_only_still_gives_what_is_defined(trained: Path, real: Path, tmp_path: Path) -> None:
    (tmp_path / "roc.png").write_text("of an earlier evaluation")
    result = evaluate(EvaluateSettings(trained, (real,), out=tmp_path, bootstrap=10, device="cpu"))
    assert result["overall"]["auc"] is None and result["overall"]["accuracy"] > 0.5
    assert np.isfinite(result["overall"]["intervals"]["accuracy"]).all()
    assert "there are no fakes: figures that need both classes are left empty" in result["notes"]
    assert "-" in format_table(result) and not (tmp_path / "roc.png").exists()
    assert "called right" in (tmp_path / "evaluation.html").read_text()
    assert "NaN" not in (tmp_path / "evaluation.json").read_text()


@pytest.mark.usefixtures("plain")
def test_other_crops_sizes_and_empty_splits_are_refused(trained: Path, real: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", 1, crop="center")
    with pytest.raises(UserError, match="was cropped as"):
        evaluate(EvaluateSettings(trained, (real, other), out=tmp_path / "out", device="cpu"))
    evaluate(
        EvaluateSettings(trained, (real, other), out=tmp_path / "out", bootstrap=0, force=True, device="cpu")
    )
    with pytest.raises(UserError, match="no dev rows"):
        evaluate(EvaluateSettings(trained, (real,), split="dev", device="cpu"))
    with pytest.raises(UserError, match="nothing to evaluate on"):
        EvaluateSettings(trained, ())
    with ShardWriter(tmp_path / "large", 32) as writer:
        writer.append(np.zeros((32, 32, 3), np.uint8), Row(0, "x", split="test"))
    with pytest.raises(UserError, match="32×32, the detector takes 16×16"):
        evaluate(EvaluateSettings(trained, (tmp_path / "large",), device="cpu"))


@pytest.mark.usefixtures("plain")
def test_groups_that_were_trained_on_are_refused(trained: Path, fake: Path, tmp_path: Path) -> None:
    leak = make_shards(
        tmp_path / "leak", 0, prefix="real", split="test"
    )  # the training reals, all called test
    settings = EvaluateSettings(trained, (leak, fake), out=tmp_path / "out", bootstrap=0, device="cpu")
    with pytest.raises(UserError, match=r"group 'real-0' .* was trained on, and so were 35 others"):
        evaluate(settings)
    forced = EvaluateSettings(
        trained, (leak, fake), out=tmp_path / "out", bootstrap=0, force=True, device="cpu"
    )
    assert any("72 of 120 images" in note for note in evaluate(forced)["notes"])


@pytest.mark.usefixtures("plain")
def test_damaged_images_are_listed_and_not_scored(trained: Path, real: Path, tmp_path: Path) -> None:
    broken = make_shards(tmp_path / "broken", 1, count=20, seed=3, split="test")
    with h5py.File(broken / "00000.h5", "r+") as file:
        file["crc32"][3] += 1
    result = evaluate(
        EvaluateSettings(trained, (real, broken), out=tmp_path / "o", bootstrap=0, device="cpu")
    )
    assert result["overall"]["n_fake"] == 19 and len(result["damaged"]) == 1
    assert "row 3 of shard" in result["damaged"][0] and "row 3 of shard" in " ".join(result["notes"])
    with open(tmp_path / "o" / "scores.csv", newline="") as file:
        assert "3.png" not in [row["origin"] for row in csv.DictReader(file) if row["source"] == "broken"]
    gone = make_shards(tmp_path / "gone", 1, count=4, split="test")
    with h5py.File(gone / "00000.h5", "r+") as file:
        file["crc32"][:] = 0
    with pytest.raises(UserError, match="no image can be read"):
        evaluate(EvaluateSettings(trained, (gone,), device="cpu"))


def test_no_resamples_give_a_page_without_intervals(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    result = evaluate(EvaluateSettings(trained, (real, fake), out=out, bootstrap=0, device="cpu"))
    assert result["overall"]["intervals"] == {} and "AUC" in (out / "evaluation.html").read_text()


def _swapped(folder: Path, out: Path) -> Path:
    """The same images with the other label."""
    shards = ShardSet(folder)
    with ShardWriter(out, SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for row in range(len(shards)):
            label = 1 - int(shards.columns["label"][row])
            facts = {name: str(shards.columns[name][row]) for name in ("split", "group", "origin")}
            writer.append(shards.read(row), Row(label, out.name, "grid" if label else "", **facts))
    return out


def test_scores_the_wrong_way_round_ask_for_the_labels(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    swapped = [str(_swapped(folder, tmp_path / folder.name)) for folder in (real, fake)]
    command = ["--bundle", str(trained), "--device", "cpu", "--bootstrap", "100"]
    done = CliRunner().invoke(
        evaluate_command, [*command, "--data", *swapped, "--force", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    (said,) = [line for line in done.stdout.splitlines() if "beyond chance" in line]
    assert said.startswith("note: AUC is below 0.5 beyond chance (overall 0.") and "; grid 0." in said
    assert "swapped" in said and "crossfake data inspect DIR" in said and "predictions.png" in said
    assert "Are real and fake swapped" in (tmp_path / "out" / "evaluation.html").read_text()
    right = evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=100, device="cpu"))
    assert not any("swapped" in note for note in right["notes"])


@pytest.mark.usefixtures("plain")
def test_few_scores_the_wrong_way_round_are_chance(trained: Path, tmp_path: Path) -> None:
    """Below 0.5, with an interval that reaches above it."""
    rng = np.random.default_rng(4)
    with ShardWriter(tmp_path / "noise", SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for number in range(12):
            image = rng.integers(60, 180, (SIZE, SIZE, 3), dtype=np.uint8)
            writer.append(image, Row(number % 2, "noise", "some" * (number % 2), "test", str(number)))
    settings = EvaluateSettings(
        trained, (tmp_path / "noise",), out=tmp_path / "o", bootstrap=200, device="cpu"
    )
    result = evaluate(settings)
    assert result["overall"]["intervals"]["auc"][1] > 0.5
    assert not any("swapped" in note for note in result["notes"])


def test_chance_stands_beside_the_average_precision(trained: Path, real: Path, tmp_path: Path) -> None:
    few = make_shards(tmp_path / "few", 1, 6, split="test", seed=3)
    result = evaluate(EvaluateSettings(trained, (real, few), out=tmp_path / "o", bootstrap=0, device="cpu"))
    assert result["overall"]["ap_chance"] == pytest.approx(6 / 30)
    assert result["by_source"]["few"]["ap_chance"] is None
    page = (tmp_path / "o" / "evaluation.html").read_text()
    assert "Chance is the share of fakes here, 0.200." in page and "<small>chance 0.200</small>" in page


def test_a_folder_counts_once(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is named twice"):
        evaluate(EvaluateSettings(trained, (real, fake, real), device="cpu"))
    copy = shutil.copytree(real, tmp_path / "copy")
    with pytest.raises(UserError, match="copy holds the same images as .*real"):
        evaluate(EvaluateSettings(trained, (real, fake, copy), device="cpu"))


def test_scores_that_are_no_numbers_are_an_error(
    trained: Path, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "crossfake.detect.evaluation.evaluate.calls",
        lambda _, images: (
            np.where(np.arange(len(images)) == 2, np.nan, 0.5),
            np.full(len(images), "uncertain"),
        ),
    )
    shards = ShardSet(real)
    with pytest.raises(UserError, match="no number for 1 images, the first is '2.png'"):
        score(bundle.load(trained, "cpu"), [shards], [np.arange(5)])


def test_only_a_batch_of_images_is_held(trained: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr("crossfake.detect.evaluation.evaluate._BATCH", 8)

    def calls(_: Detector, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        held.append(len(images))
        return np.zeros(len(images)), np.full(len(images), "real")

    monkeypatch.setattr("crossfake.detect.evaluation.evaluate.calls", calls)
    shards = ShardSet(real)
    scored = score(bundle.load(trained, "cpu"), [shards, shards], [np.arange(20), np.arange(3)])
    assert held == [8, 8, 4, 3] and scored.folder.tolist() == [0] * 20 + [1] * 3
    assert scored.row.tolist() == [*range(20), *range(3)]


@pytest.mark.usefixtures("plain")
def test_a_bare_bundle_keeps_its_own_record(trained: Path, real: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained / "model", tmp_path / "bundle"))
    result = evaluate(EvaluateSettings(copy, (real,), bootstrap=0, device="cpu"))
    assert (copy / "test_data_opened.jsonl").is_file() and result["out"] == str(copy / "evaluation")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    (copy / "test_data_opened.jsonl").unlink()
    (copy / "test_data_opened.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*test_data_opened"):
        evaluate(EvaluateSettings(copy, (real,), bootstrap=0, device="cpu"))


@pytest.mark.parametrize("command", [evaluate_command, calibrate, explain, tune])
@pytest.mark.parametrize("seed", ["-1", str(2**31)])
def test_seeds_out_of_range_are_refused(command: click.Command, seed: str) -> None:
    result = CliRunner().invoke(command, ["--seed", seed])
    assert result.exit_code == 2 and "--seed" in result.output


@pytest.mark.parametrize("command", [evaluate_command, predict])
def test_scores_are_float32_everywhere_by_default(command: click.Command) -> None:
    (option,) = (each for each in command.params if each.name == "precision")
    assert option.default == "fp32"
