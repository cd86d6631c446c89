import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from crossfake.datasets.firewall import Seen, count_overlap
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation.overlap import check_overlap, notes_on_training, seen_by
from crossfake.detect.training.data import TrainingData
from crossfake.errors import UserError

from ..conftest import make_shards


def _card(*folders: Path) -> dict[str, Any]:
    return {"data_hashes": {str(folder): ShardSet(folder).hash for folder in folders}, "sources": ["real"]}


def _old(card: dict[str, Any], sets: list[ShardSet], rows: list[Any], force: bool = False) -> list[str]:
    """Of a bundle made before there was a record: its card names folders."""
    detector: Any = SimpleNamespace(path=Path("nowhere"), card=card)
    return check_overlap(seen_by(detector, sets), sets, rows, force)


def test_test_rows_of_the_training_folders_pass(real: Path, fake: Path) -> None:
    sets = [ShardSet(real), ShardSet(fake)]
    assert _old(_card(real, fake), sets, [s.select(split="test") for s in sets]) == []


def test_training_rows_are_refused_or_noted(real: Path) -> None:
    shards = ShardSet(real)
    every = np.arange(len(shards))
    with pytest.raises(UserError, match="was trained on"):
        _old(_card(real), [shards], [every])
    (note,) = _old(_card(real), [shards], [every], force=True)
    assert note.startswith("72 of 120 images") and "flattered" in note


def test_training_folders_that_are_gone_or_changed_are_named(real: Path, tmp_path: Path) -> None:
    moved = make_shards(tmp_path / "moved", 0)
    changed = make_shards(tmp_path / "changed", 0)
    card = _card(moved, changed)
    shutil.rmtree(moved)
    (changed / "splits.csv").write_text("origin,group,split\n")
    with pytest.raises(UserError, match="moved was trained on and is not there as it was"):
        _old(card, [ShardSet(real)], [np.arange(3)])
    notes = _old(card, [ShardSet(real)], [np.arange(3)], force=True)
    assert len(notes) == 2 and all("overlap with it is unchecked" in note for note in notes)


def test_validation_rows_and_known_sources_are_noted(real: Path, fake: Path) -> None:
    sets = [ShardSet(real), ShardSet(fake)]
    notes = list(notes_on_training(_card(real), sets, [s.select(split="val") for s in sets]))
    assert notes == [
        f"the threshold was chosen on val rows of {real}: figures at it are flattered",
        "real was trained on too: on it this is a test on new images, not on a new data set",
    ]
    notes = list(notes_on_training(_card(real), sets, [s.select(split="train") for s in sets], apart=False))
    assert notes == ["real was trained on too: on it this is no test on a new data set"]
    card = {"sources": ["kaggle-deepfake-real"], "audit": {"summary": "audit: pass"}}
    assert list(notes_on_training(card, [], [])) == ["the training data: audit: pass"]


def test_a_training_folder_under_another_path_is_known_by_its_hash(real: Path, tmp_path: Path) -> None:
    card = {"data_hashes": {"typed/elsewhere": ShardSet(real).hash}}
    moved = ShardSet(shutil.copytree(real, tmp_path / "moved"))
    with pytest.raises(UserError, match="group 'real-0' .* was trained on"):
        _old(card, [moved], [np.arange(len(moved))])
    assert _old(card, [moved], [moved.select(split="test")]) == []


def test_pixels_that_were_trained_on_are_refused_or_noted(real: Path, tmp_path: Path) -> None:
    leak = ShardSet(make_shards(tmp_path / "leak", 0, prefix="renamed", split="test"))
    rows = np.arange(len(leak))
    with pytest.raises(UserError, match=r"image 0 of .*leak was trained on: it is image 0 of .*real"):
        _old(_card(real), [leak], [rows])
    notes = _old(_card(real), [leak], [rows], force=True)
    assert [note.split(" of ")[0] for note in notes] == ["72", "24"] and "are images that were" in notes[0]
    assert _old(_card(real), [leak], [rows[96:]]) == []


def test_what_chose_the_threshold_is_refused_or_noted(real: Path, tmp_path: Path) -> None:
    held_out = make_shards(tmp_path / "held-out", 1, count=20, seed=4, split="val")
    copies = make_shards(tmp_path / "copies", 1, count=20, seed=4, split="test", prefix="renamed")
    sets = [ShardSet(copies)]
    rows = [np.arange(20)]
    with pytest.raises(UserError, match="image 0 of .*copies was validated on: it is image 0 of .*held-out"):
        _old(_card(real, held_out), sets, rows)
    (note,) = _old(_card(real, held_out), sets, rows, force=True)
    assert note.startswith("20 of 20 images") and "validated on" in note
    assert _old(_card(real, held_out), [ShardSet(held_out)], rows) == []  # asked for by its name


def test_equal_checksums_of_other_pixels_are_chance(real: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", 0, seed=7, split="test")
    shards = ShardSet(other)
    shards.columns["crc32"] = ShardSet(real).columns["crc32"]
    assert _old(_card(real), [shards], [np.arange(len(shards))]) == []


def test_a_bundle_knows_what_it_saw_when_its_folders_are_gone(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    detector = bundle.load(trained, "cpu")
    assert detector.card["seen"] == Seen.load(detector.path).digest  # type: ignore[union-attr]
    alone = bundle.load(shutil.copytree(detector.path, tmp_path / "alone"), "cpu")
    alone.card["data_hashes"] = {"gone": "x"}
    seen = seen_by(alone)
    for folder in (real, fake):
        shards = ShardSet(folder)
        for split, how in (("train", "trained on"), ("val", "validated on")):
            rows = shards.select(split=split)
            assert count_overlap(seen.only(how), shards, rows) == (len(rows), 0)
        assert check_overlap(seen, [shards], [shards.select(split="test")]) == []
    with pytest.raises(UserError, match="group 'real-0' of .*real was trained on"):
        check_overlap(seen, [ShardSet(real)], [np.arange(3)])


def test_what_a_generator_learned_from_is_no_test(real: Path, fake: Path, tmp_path: Path) -> None:
    """README's order of before: a generator, then splits that move what it learned from into the test."""
    own = shutil.copytree(make_shards(tmp_path / "made", 1, seed=9), tmp_path / "own")
    unknown = shutil.copytree(own, tmp_path / "unknown")
    with h5py.File(unknown / "00000.h5", "r+") as file:
        file["source"][:] = b"synth"
    reals = ShardSet(real)
    Seen.of(reals, reals.select(split="test")[:2]).save(own)
    with pytest.raises(
        UserError, match=r"group 'real-48' of .*real is held out, and was trained on by generator grid"
    ):
        TrainingData.open((real,), (fake,), (own,), False)
    Seen.of(reals, reals.select(split="train")).save(own)
    assert TrainingData.open((real,), (fake,), (own,), False).makers.blocks
    with pytest.raises(UserError, match="unknown holds own fakes, and what their generator learned from is"):
        TrainingData.open((real,), (fake,), (unknown,), False)
    data = TrainingData.open((real,), (fake,), (unknown,), True)
    assert "overlap with it is unchecked" in data.notes[0] and data.seen().unknown
    with pytest.raises(UserError, match="own fakes, .* is unknown: .*--force"):
        check_overlap(data.seen(), [reals], [reals.select(split="test")])


def test_fakes_of_validation_photos_validate(real: Path, fake: Path, tmp_path: Path) -> None:
    """Blends of them have seen what validates anyway; where they train, they would carry it into the training."""
    reals = ShardSet(real)
    held_out = reals.select(split="val")
    validating = make_shards(tmp_path / "validating", 1, count=20, seed=4, split="val", prefix="blend")
    Seen.of(reals, held_out).save(validating)
    data = TrainingData.open((real,), (fake, validating), (), False)
    assert count_overlap(data.seen().only("validated on"), reals, held_out) == (len(held_out), 0)
    assert count_overlap(data.seen().only("trained on"), reals, held_out) == (0, 0)
    assert _old(_card(real, fake, validating), [reals], [reals.select(split="test")]) == []
    training = make_shards(tmp_path / "training", 1, count=20, seed=5, split="train", prefix="blend")
    Seen.of(reals, held_out).save(training)
    with pytest.raises(UserError, match="is held out, and was trained on by generator grid"):
        TrainingData.open((real,), (fake, training), (), False)
