"""Face splices: pixels of both photos, whole people per split, and the same bits when resumed."""

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.experiments.run.splices import make_splices, splice


@pytest.fixture
def reals(tmp_path):
    with ShardWriter(tmp_path / "real", size=32, attributes={"crop": {"policy": "none"}}) as writer:
        for number in range(60):
            split = "train" if number < 40 else "val" if number < 50 else "test"
            writer.append(toyface(number, 32), Row(0, "toyfaces", split=split, group=f"person {number // 2}"))
    return tmp_path / "real"


def test_the_border_is_the_host_and_the_middle_is_not():
    host, donor = toyface(1, 64), toyface(2, 64)
    made = splice(host, donor, np.random.default_rng(0))
    assert made.shape == host.shape and made.dtype == np.uint8
    assert (
        (made[0] == host[0]).all() and (made[:, 0] == host[:, 0]).all() and (made[:, -1] == host[:, -1]).all()
    )
    assert np.mean(np.any(made[24:40, 24:40] != host[24:40, 24:40], axis=2)) > 0.9


def test_a_face_into_itself_changes_nothing():
    face = toyface(3, 32)
    assert np.abs(splice(face, face, np.random.default_rng(1)).astype(int) - face).max() <= 1


def test_colours_follow_the_host():
    host, donor = np.full((32, 32, 3), (200, 120, 90), np.uint8), toyface(4, 32)
    made = splice(host, donor, np.random.default_rng(2)).astype(float)
    assert np.abs(made[12:22, 12:20].mean((0, 1)) - (200, 120, 90)).max() < 25


def test_splits_groups_and_crop_are_those_of_the_reals(reals, tmp_path):
    made = ShardSet(make_splices([reals], tmp_path / "fake", 90))
    real = ShardSet(reals)
    assert (
        len(made) == 90
        and (made.columns["label"] == 1).all()
        and made.attributes["crop"] == real.attributes["crop"]
    )
    people = {
        split: set(real.columns["group"][real.select(split=split)]) for split in ("train", "val", "test")
    }
    for split in people:
        rows = made.select(split=split)
        assert len(rows) and set(made.columns["group"][rows]) <= people[split]
        for origin in made.columns["origin"][rows]:
            host, donor = (int(part) for part in origin.split("+"))
            assert {real.columns["split"][host], real.columns["split"][donor]} == {split}
            assert real.columns["group"][host] != real.columns["group"][donor]
    assert 50 < len(made.select(split="train")) < 70  # 60 of 90 expected


def test_resumed_is_the_same(reals, tmp_path, monkeypatch):
    whole = ShardSet(make_splices([reals], tmp_path / "whole", 30))
    append, calls = ShardWriter.append, []

    def failing(self, image, row):
        calls.append(row)
        if len(calls) == 12:
            raise KeyboardInterrupt
        append(self, image, row)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "append", failing)
        with pytest.raises(KeyboardInterrupt):
            make_splices([reals], tmp_path / "parts", 30)
    parts = ShardSet(make_splices([reals], tmp_path / "parts", 30))
    assert (parts.read_many(range(30)) == whole.read_many(range(30))).all()
    assert (parts.columns["group"] == whole.columns["group"]).all()


@pytest.mark.parametrize(
    ("splits", "expected"), [(["train", "test"], "no two different people"), ([""], "has no splits")]
)
def test_reals_that_cannot_be_spliced(tmp_path, splits, expected):
    with ShardWriter(tmp_path / "real", size=16) as writer:
        for number in range(4):
            split = splits[number % len(splits)]
            writer.append(toyface(number, 16), Row(0, "x", split=split, group=split))
    with pytest.raises(UserError, match=expected):
        make_splices([tmp_path / "real"], tmp_path / "fake", 5)
