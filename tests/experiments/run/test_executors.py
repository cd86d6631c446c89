"""Several processes give what one gives; one that dies does not take the others with it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.experiments.run import executors
from crossfake.experiments.run.cells import CellSpec, TestRows
from crossfake.experiments.run.executors import Local


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for name, label in (("real", 0), ("fake", 1)):
        with ShardWriter(folder / name, size=16) as writer:
            for k in range(24):
                split = ("train", "train", "val", "test")[k % 4]
                writer.append(toyface((label, k), 16), Row(label, "toy", "gan" * label, split, f"{name}{k}"))
    parts = []
    for name in ("real", "fake"):
        shards = ShardSet(folder / name)
        parts.append((shards.path, shards.hash, np.array(shards.select(split="test"))))
    settings = TrainSettings(
        real=(folder / "real",),
        fake=(folder / "fake",),
        out=Path(),
        steps=2,
        batch=8,
        eval_every=2,
        device="cpu",
    )
    test = TestRows("fake", "ab" * 32, tuple(parts))
    return [
        CellSpec(f"cell{seed}", "cnn", "trained", replace(settings, seed=seed), "cd", (test,), {})
        for seed in (0, 1)
    ]


def files(cells):
    return {str(f.relative_to(cells)): f.read_text() for f in sorted(cells.glob("*/scores/*.csv"))}


class _Deadly:
    """Ends the process that reads it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_cell_whose_process_dies_is_given_up_and_the_others_are_as_in_one_process(
    specs, tmp_path, monkeypatch
):
    monkeypatch.setattr(executors, "_ATTEMPTS", 2)  # each imports torch
    deadly = replace(specs[1], inputs={Path("x"): _Deadly()})
    outcomes = dict((spec.key, error) for spec, error in Local(2).run([specs[0], deadly], tmp_path / "two"))
    assert outcomes["cell0"] is None
    assert isinstance(outcomes["cell1"], UserError) and "died 2 times" in str(outcomes["cell1"])
    assert list(Local().run(specs[:1], tmp_path / "one")) == [(specs[0], None)]
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(files(tmp_path / "one")) == 1


def test_no_workers():
    with pytest.raises(UserError, match="--workers 0 is out of range"):
        Local(0)
