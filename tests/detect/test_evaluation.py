import csv
import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference

from crossfake.detect.evaluation import EvaluateSettings, evaluate, format_table
from crossfake.errors import UserError

from .conftest import make_shards


def test_results_agree_with_the_scores_written_beside_them(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    result = evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=100, device="cpu"))
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, scores = [int(row["label"]) for row in rows], [float(row["score"]) for row in rows]
    overall = result["overall"]
    assert (overall["n_real"], overall["n_fake"], overall["n_groups"]) == (24, 24, 24)
    assert overall["auc"] == pytest.approx(reference.roc_auc_score(labels, scores))
    assert overall["ap"] == pytest.approx(reference.average_precision_score(labels, scores))
    low, high = overall["intervals"]["accuracy"]
    assert low <= overall["accuracy"] <= high
    assert set(result["by_source"]) == {"real", "fake"} and set(result["by_generator"]) == {"grid"}
    assert result["by_source"]["fake"]["auc"] is None and result["by_source"]["fake"]["recall"] is not None
    assert json.loads((tmp_path / "evaluation.json").read_text())["model_hash"] == result["model_hash"]
    assert (tmp_path / "roc.png").stat().st_size > 5000 and (tmp_path / "confusion.png").stat().st_size > 2000
    table = format_table(result)
    assert "overall" in table and "vs grid" in table and f"{overall['auc']:.3f}" in table


def test_opening_test_data_goes_on_record(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    record = trained / "test_data_opened.jsonl"
    before = len(record.read_text().splitlines()) if record.exists() else 0
    evaluate(EvaluateSettings(trained, (real, fake), out=tmp_path, bootstrap=0, device="cpu"))
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == before + 1 and set(lines[-1]["data"]) == {str(real), str(fake)}


def test_one_class_only_still_gives_what_is_defined(trained: Path, real: Path, tmp_path: Path) -> None:
    result = evaluate(EvaluateSettings(trained, (real,), out=tmp_path, bootstrap=10, device="cpu"))
    assert result["overall"]["auc"] is None and result["overall"]["accuracy"] > 0.5
    assert np.isfinite(result["overall"]["intervals"]["accuracy"]).all()
    assert "-" in format_table(result)


def test_other_crops_and_empty_splits_are_refused(trained: Path, real: Path, tmp_path: Path) -> None:
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
