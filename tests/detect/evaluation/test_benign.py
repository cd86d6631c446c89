import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.commands.evaluate import evaluate as command
from crossfake.detect.evaluation import benign
from crossfake.detect.evaluation.benign import false_alarms, format_benign
from crossfake.detect.evaluation.evaluate import Scored, evaluate
from crossfake.detect.settings import EvaluateSettings
from crossfake.detect.training.benign import KINDS
from crossfake.detect.view import ALIGNED
from crossfake.errors import UserError


def _detector(size: int, seen: list[Any]) -> Any:
    """Calls fake what is brighter than 100 on average."""

    def score(images: Any) -> np.ndarray:
        seen.append(images)
        return np.array([float(image.mean()) / 200 for image in images])

    return SimpleNamespace(threshold=0.5, size=size, score=score, view=ALIGNED)


def _scored(shards: ShardSet, scores: float | np.ndarray = 0.0) -> Scored:
    rows = np.arange(len(shards))
    columns = {name: shards.columns[name] for name in ("source", "generator", "group", "origin")}
    labels = shards.columns["label"].astype(np.int64)
    return Scored(labels, np.broadcast_to(scores, len(rows)), columns, np.zeros(len(rows), np.int64), rows)


def test_false_alarms_of_each_edit_are_counted(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 16) as writer:
        for number in range(80):
            image = np.full((16, 16, 3), 60 if number < 30 else 140, np.uint8)
            writer.append(
                image, Row(int(number >= 40), "s", "g" if number >= 40 else "", "test", f"{number}")
            )
    shards, seen = ShardSet(tmp_path), list[Any]()
    found = false_alarms(_detector(16, seen), [shards], _scored(shards, np.arange(80) / 60))
    assert list(found) == ["untouched", *KINDS, "all edits"]
    untouched = found["untouched"]  # of 30 on, by the scores given
    assert (untouched["n"], untouched["false_alarms"]) == (40, 10)
    for kind in ("denoise", "sharpen", "beautify", "messenger"):  # nothing happens to flat pictures
        part = found[kind]
        assert (part["n"], part["n_groups"], part["false_alarms"], part["rate"]) == (40, 40, 10, 0.25)
        assert part["interval"] == pytest.approx([0.142, 0.402], abs=5e-3)
    assert found["all edits"]["n"] == 200 and found["all edits"]["n_groups"] == 40
    low, high = found["all edits"]["interval"]
    assert high - low > 0.2  # five edits of one photo are no five photos
    assert all(i.shape == (16, 16, 3) and i.dtype == np.uint8 for images in seen for i in images)
    table = format_benign(found).splitlines()
    assert table[2].split() == ["untouched", "40", "10", "0.250", "[0.142,", "0.402]"]
    assert table[-1] == "benign edits of 40 reals of 40 groups, at the detector's threshold"


def test_native_rows_are_edited_whole_and_never_made_smaller_than_a_window(tmp_path: Path) -> None:
    shapes = [(60, 40), (400, 1700), (90, 1700)]
    with ShardWriter(tmp_path, None, codec="raw") as writer:
        for number, shape in enumerate(shapes):
            writer.append(np.full((*shape, 3), 60, np.uint8), Row(0, "s", "", "test", f"{number}"))
    shards, seen = ShardSet(tmp_path), list[Any]()
    found = false_alarms(_detector(40, seen), [shards], _scored(shards))
    assert found["all edits"]["false_alarms"] == 0
    for kind, images in zip(KINDS, seen, strict=True):
        small, large, low = (image.shape[:2] for image in images)
        assert small == shapes[0] and min(low) >= 40
        assert (max(large) < 1700) == (kind == "messenger")


def test_of_many_reals_some_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benign, "_MOST", 7)
    with ShardWriter(tmp_path, 16) as writer:
        for number in range(20):
            writer.append(np.full((16, 16, 3), number, np.uint8), Row(0, "s", "", "test", f"{number}"))
    shards = ShardSet(tmp_path)
    scored = _scored(shards)
    one, two, other = (false_alarms(_detector(16, []), [shards], scored, seed) for seed in (1, 1, 2))
    assert one == two and one["untouched"]["n"] == 7 == other["untouched"]["n"]


def test_fakes_alone_cannot_be_edited(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 16) as writer:
        writer.append(np.zeros((16, 16, 3), np.uint8), Row(1, "s", "g", "test"))
    shards = ShardSet(tmp_path)
    with pytest.raises(UserError, match="no reals to edit"):
        false_alarms(_detector(16, []), [shards], _scored(shards))


def test_the_command_prints_and_keeps_them(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    options = ["--bundle", str(trained), "--data", str(real), str(fake), "--bootstrap", "0"]
    done = CliRunner().invoke(command, [*options, "--benign", "--device", "cpu", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "evaluation.json").read_text())["benign"]
    assert kept["untouched"]["n"] == 24 and kept["messenger"]["n"] == 24 and kept["all edits"]["n"] == 120
    assert "benign edits of 24 reals of 12 groups" in done.stdout and "all edits" in done.stdout
    page = (tmp_path / "evaluation.html").read_text()
    assert "Reals that somebody edited" in page and "beautify" in page


def test_a_native_detector_judges_windows_of_edited_rows(
    native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = EvaluateSettings(native_run, native, bootstrap=0, benign=True, device="cpu", out=tmp_path)
    result = evaluate(settings)
    untouched = result["benign"]["untouched"]
    assert untouched["n"] == 12 and result["benign"]["all edits"]["n"] == 12 * len(KINDS)
    assert untouched["false_alarms"] == result["overall"]["confusion"][0][1]
