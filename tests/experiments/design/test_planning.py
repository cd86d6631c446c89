"""The plan says what there is to do, what it can show, and what it costs, before anything is made."""

import dataclasses
import json

import numpy as np
import pytest

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.experiments.design.config import load
from crossfake.experiments.design.estimating import left_out
from crossfake.experiments.design.planning import plan
from crossfake.experiments.run.stages import prepared_folder
from crossfake.stats.significance import minimum_detectable


@pytest.fixture
def config(tmp_path):
    for name, label in (("real", 0), ("old", 1), ("new", 1)):
        with ShardWriter(tmp_path / name, size=16) as writer:
            for k in range(40):
                noise = np.random.default_rng((label, k)).integers(0, 255, (16, 16, 3), np.uint8)
                writer.append(
                    noise, Row(label, name, name, ("train", "val", "test", "test")[k % 4], f"{name}{k}")
                )
    generators = [
        {"name": "old", "role": "seen", "dir": tmp_path / "old"},
        {"name": "mine", "role": "synthetic", "family": "dcgan", "n": 500},
        {"name": "new", "role": "unseen", "dir": tmp_path / "new"},
    ]
    return load(
        {
            "name": "tiny",
            "protocol": "synthetic-ablation",
            "detectors": ["cnn", "meso"],
            "real": [tmp_path / "real"],
            "generators": generators,
            "train": {"steps": 50, "batch": 8},
            "device": "cpu",
        }
    )


def test_what_it_says(config, tmp_path):
    text = plan(config, tmp_path / "out", measure=True)
    assert "12 cells = 2 detectors × 2 conditions × 3 seeds" in text
    assert "conditions: without; with" in text and "made first: fakes of mine" in text
    assert f"below {minimum_detectable(20, 40, 3):.3f}" in text and "n = 20 and 40, 3 seeds" in text
    assert "training takes about" in text and "unknown" not in text
    assert not (tmp_path / "out").exists()


def test_times_come_from_cells_that_are_there(config, tmp_path):
    cell = tmp_path / "out" / "cells" / "a"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps({"detector": "cnn", "seconds": 600.0}))
    text = plan(config, tmp_path / "out")
    assert "about 1 h" in text and "time of meso: unknown, --dry-run measures it" in text


@pytest.fixture
def photos():
    """An experiment that has to prepare its reals first, and makes all of its fakes."""
    return load(
        {
            "name": "photos",
            "protocol": "synthetic-ablation",
            "detectors": ["cnn"],
            "seeds": [0],
            "device": "cpu",
            "prepare": {
                "source": "toyfaces",
                "limit": 1000,
                "size": 16,
                "crop": "none",
                "split": "0.6/0.2/0.2",
                "workers": 1,
            },
            "train": {"steps": 20, "batch": 8},
            "generators": [
                {"name": "splices", "family": "splice", "role": "seen", "n": 300},
                {
                    "name": "own",
                    "family": "dcgan",
                    "role": "synthetic",
                    "n": 400,
                    "train": {"kimg": 2, "batch": 8},
                },
                {
                    "name": "new",
                    "family": "dcgan",
                    "role": "unseen",
                    "n": 50,
                    "train": {"kimg": 1, "batch": 8},
                },
            ],
        }
    )


def test_photos_that_are_not_prepared_are_estimated_from_a_few(photos, tmp_path):
    text = plan(photos, tmp_path / "out", measure=True)
    assert (
        "1,000 photos in toyfaces: 100% of the first 200 could be used, so about 1,000 faces, 200 of them"
        in text
    )
    assert f"below {minimum_detectable(200, 50, 1):.3f}" in text and "n = 200 and 50, one seed" in text
    assert "1 cell" not in text and "2 cells = 1 detector × 2 conditions × 1 seed" in text
    (before,) = [line for line in text.splitlines() if line.startswith("before that: ")]
    assert all(f"{name} about " in before for name in ("prepare", "own", "new")) and "splices" not in before
    assert "training takes about" in text and "unknown" not in text
    (disk,) = [line for line in text.splitlines() if line.startswith("disk: about ")]
    assert "GB free, without the detectors" in disk
    assert not (tmp_path / "out").exists()


def test_the_disk_holds_pictures_and_checkpoints(photos, tmp_path):
    from crossfake.experiments.design.estimating import Sketch, making

    sketch = Sketch.make(photos, tmp_path)
    splices, own, new = (making(photos, each, sketch.reals, tmp_path) for each in photos.generators)
    assert splices == (0.0, 300 * 1.1 * 16 * 16 * 3)
    assert own[1] - new[1] == 3 * 16 * 16 * (440 - 50)  # the checkpoints are alike
    assert own[0] > new[0] > 0


def test_without_measuring_nothing_is_prepared(photos, tmp_path):
    text = plan(photos, tmp_path / "out")
    assert "photos in" not in text and "time of cnn: unknown, --dry-run measures it" in text


def test_too_few_photos_are_said_to_be(photos, tmp_path):
    few = dataclasses.replace(photos, prepare={**photos.prepare, "limit": 4})
    text = plan(few, tmp_path / "out", measure=True)
    assert "too few reals of the test split" in text
    assert (
        "time of own, new: unknown, 4 photos are too few to try it" in text and "time of cnn: unknown" in text
    )


def test_what_is_prepared_is_counted_as_it_is(photos, tmp_path):
    folder = prepared_folder(photos, tmp_path / "out")
    prepare(PrepareSettings(**{**photos.prepare, "limit": 60}, out=folder))
    (folder / "done").touch()
    own = len(ShardSet(folder).select(split="test", label=0))
    text = plan(photos, tmp_path / "out", measure=True)
    assert f"n = {own} and 50" in text and "photos in" not in text and "training takes about" in text


def test_weights_that_will_be_missing_are_named(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    fid, lpips = left_out(photos)
    assert (
        fid.startswith("fid, kid, prdc of the fakes will be left out: pt_inception")
        and "lpips, memory" in lpips
    )
    assert left_out(dataclasses.replace(photos, quality={"metrics": ("swd",)})) == []
    (tmp_path / "weights" / "alexnet-owt-7be5be79.pth").touch()
    assert left_out(photos) == [fid]
