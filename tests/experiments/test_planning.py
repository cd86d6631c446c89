"""The plan says what there is to do, what it can show, and what it costs, before anything is made."""

import json

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.experiments.config import load
from crossfake.experiments.planning import plan
from crossfake.experiments.significance import minimum_detectable


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
        {"name": "tiny", "protocol": "synthetic-ablation", "detectors": ["cnn", "meso"], "real": [tmp_path / "real"],
         "generators": generators, "train": {"steps": 50, "batch": 8}, "device": "cpu"}
    )  # fmt: skip


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
