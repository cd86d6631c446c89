import shutil
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.firewall import count_overlap
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.splits import Fractions
from crossfake.detect.training.data import Pool, TrainingData
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.sampling import Sampler
from crossfake.errors import UserError

from ..conftest import damaged, make_shards


def test_a_pool_without_validation_rows_holds_some_groups_out(tmp_path: Path) -> None:
    pool = Pool.open(make_shards(tmp_path / "made", 1, count=400, split="train"), 1)
    groups = pool.shards.columns["group"]
    assert 20 < len(pool.val) < 60 and len(pool.train) + len(pool.val) == 400
    assert not set(groups[pool.train]) & set(groups[pool.val])


def test_test_rows_are_never_taken(real: Path) -> None:
    pool = Pool.open(real, 0)
    splits = pool.shards.columns["split"]
    assert set(splits[pool.train]) == {"train"} and set(splits[pool.val]) == {"val"}


def test_what_cannot_be_trained_on_is_refused_in_one_line(real: Path, fake: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs reals"):
        TrainingData.open((), (fake,), (), False)
    with pytest.raises(UserError, match="needs fakes"):
        TrainingData.open((real,), (), (), False)
    with pytest.raises(UserError, match="no fake images to train on"):
        TrainingData.open((real,), (real,), (), False)
    with pytest.raises(UserError, match="no real images to train on"):
        TrainingData.open((make_shards(tmp_path / "tested", 0, split="test"),), (fake,), (), False)
    other = make_shards(tmp_path / "cropped", 1, crop="center")
    with pytest.raises(UserError, match="cropped differently"):
        TrainingData.open((real,), (other,), (), False)
    assert TrainingData.open((real,), (other,), (), True).size == 16
    edges = [{"policy": "face", "margin": 1.3, "detector": "x"} | more for more in ({}, {"edge": "reflect"})]
    pair = [make_shards(tmp_path / f"edge {k}", k, crop=crop) for k, crop in enumerate(edges)]
    with pytest.raises(UserError, match="cropped differently"):
        TrainingData.open((pair[0],), (pair[1],), (), False)
    with ShardWriter(tmp_path / "large", 32) as writer:
        writer.append(np.zeros((32, 32, 3), np.uint8), Row(1, "x", split="train"))
    with pytest.raises(UserError, match="images of one size"):
        TrainingData.open((real,), (tmp_path / "large",), (), False)


def test_a_group_on_both_sides_of_the_firewall_is_a_hard_error(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    leaking = make_shards(tmp_path / "leak", 1, split="train", prefix="fake")  # groups that `fake` holds out
    with pytest.raises(UserError, match=r"group 'fake-\d+' of .* is held out, and was trained on"):
        TrainingData.open((real,), (fake, leaking), (), False)


def test_a_picture_on_both_sides_of_the_firewall_is_a_hard_error(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    copies = make_shards(tmp_path / "copies", 1, split="train", prefix="others")  # the pixels of `fake`
    with pytest.raises(
        UserError, match=r"image \d+ of .*/fake is held out, and was trained on: it is image \d+ of .*/copies"
    ):
        TrainingData.open((real,), (fake, copies), (), True)


def test_equal_checksums_of_other_pixels_are_chance(
    real: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = type(Pool.open(real, 0).shards.columns)
    stored = columns.stored
    monkeypatch.setattr(
        columns,
        "stored",
        lambda self, name: np.ones_like(stored(self, name)) if name == "crc32" else stored(self, name),
    )
    assert TrainingData.open((real,), (fake,), (), False).size == 16


def test_one_source_may_train_and_test_with_other_generators(real: Path, tmp_path: Path) -> None:
    for number, (name, split) in enumerate((("seen", "train"), ("unseen", "test"))):
        with ShardWriter(tmp_path / name, 16) as writer:
            for row in range(40):
                image = np.random.default_rng([number, row]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                part = split if row or split == "test" else "val"
                writer.append(image, Row(1, "ff++", name, part, f"{name}{row}", origin=str(row)))
    with ShardWriter(tmp_path / "both", 16) as writer:
        for row in range(40):
            image = np.random.default_rng([2, row]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            part = ("train", "test")[row % 2]
            writer.append(image, Row(1, "ff++", ("a", "b")[row % 2], part, f"both{row}"))
    data = TrainingData.open((real,), (tmp_path / "seen", tmp_path / "both"), (), True)
    assert data.sources() == ["ff++", "real"]


def test_a_tenth_is_held_out_of_what_a_hash_has_dealt(real: Path, tmp_path: Path) -> None:
    dealt = Fractions.parse("0.8/0/0.2")
    with ShardWriter(tmp_path / "dealt", 16) as writer:
        for row in range(300):
            image = np.random.default_rng(row).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            writer.append(image, Row(1, "x", "g", dealt.split_of(str(row)), str(row)))
    pool = Pool.open(tmp_path / "dealt", 1)
    assert 5 <= len(pool.val) <= 50 and len(pool.train) > 180


def test_weights_carry_what_they_have_seen(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    weights = trained / "model" / "model.safetensors"
    data = TrainingData.open((real,), (fake,), (), False)
    assert data.starting_from(weights, False).seen().digest == data.seen().digest  # nothing else was seen
    new = make_shards(tmp_path / "new", 0, seed=8)
    moved = make_shards(tmp_path / "moved", 0, split="val")  # the pictures of before, held out here
    other = TrainingData.open((new, moved), (fake,), (), False)
    with pytest.raises(UserError, match="is held out, and was trained on by .*model.safetensors"):
        other.starting_from(weights, False)
    elsewhere = TrainingData.open((new,), (fake,), (), False).starting_from(weights, False)
    assert count_overlap(elsewhere.seen(), ShardSet(real), np.arange(96)) == (96, 0)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.safetensors", "bundle.json"):
        shutil.copy(weights.with_name(name), alone)
    with pytest.raises(UserError, match="what .*alone/model.safetensors learned from is unknown"):
        data.starting_from(alone / "model.safetensors", False)
    known = data.starting_from(alone / "model.safetensors", True)
    assert known.seen().unknown and "overlap with it is unchecked" in known.notes[0]
    (alone / "bundle.json").unlink()
    assert data.starting_from(alone / "model.safetensors", False).seen().digest == data.seen().digest


def test_no_fakes_to_validate_on_is_one_line(real: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "one", 16) as writer:
        for row in range(8):  # all of one group: a tenth of it cannot be held out
            image = np.random.default_rng(row).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            writer.append(image, Row(1, "x", "g", "train", "alone"))
    data = TrainingData.open((real,), (tmp_path / "one",), (), True)
    with pytest.raises(UserError, match="no fakes to validate on: prepare with --split"):
        data.validation(10)


def test_validation_reads_the_rows_that_are_named(real: Path, fake: Path, tmp_path: Path) -> None:
    own = make_shards(tmp_path / "own", 1, seed=5, split="train")
    data = TrainingData.open((real,), (fake,), (own,), False)
    parts = data.validation_rows(20)
    assert [label for _, label, _ in parts] == [0, 1, 1] and [len(rows) for *_, rows in parts] == [20, 10, 10]
    assert all(np.isin(rows, pool.val).all() for pool, _, rows in parts)
    held = data.validation(20)
    assert np.array_equal(
        held.images, np.concatenate([pool.shards.read_many(rows) for pool, _, rows in parts])
    )
    assert held.labels.tolist() == [0] * 20 + [1] * 20
    assert [kind.kind for kind in held.kinds] == ["real"] * 20 + ["fake"] * 10 + ["synthetic"] * 10
    assert {kind[1:] for kind in held.kinds} == {("real", ""), ("fake", "grid"), ("own", "grid")}
    assert held.groups[0] == ShardSet(real).columns["group"][parts[0][2][0]]
    reals = TrainingData.open((real,), (), (), False, reals_only=True)
    assert len(reals.validation_rows(20, made=True)) == 1
    with pytest.raises(UserError, match="no fakes to validate on"):
        reals.validation_rows(20)


def test_folders_are_remembered_by_absolute_path(
    real: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real.parent)
    data = TrainingData.open((Path("real"),), (fake,), (), False)
    assert set(data.hashes()) == {str(real.resolve()), str(fake.resolve())}


def test_one_class_only_is_one_line(real: Path, fake: Path) -> None:
    with pytest.raises(UserError, match=f"{fake} has no real images to train on"):
        TrainingData.open((fake,), (fake,), (), False)


def test_a_recipe_of_reals_makes_its_validation_fakes(real: Path) -> None:
    data = TrainingData.open((real,), (), (), False, reals_only=True)
    recipe = RECIPES.get("sbi")(0.5, 16, {"policy": "face"})
    held = data.validation(10, recipe)
    images = held.images
    assert held.labels.tolist() == [0] * 10 + [1] * 10
    assert (images[:10] != images[10:]).any() and np.array_equal(images, data.validation(10, recipe).images)
    assert held.digest != data.validation(9, recipe).digest
    assert {kind.kind for kind in held.kinds[10:]} == {"made"}
    assert held.groups[:10].tolist() == held.groups[10:].tolist()


def test_a_folder_may_be_there_to_validate_alone(real: Path, tmp_path: Path) -> None:
    """Fakes made of photos have their photos' splits, so those of ``val`` come in a folder of their own."""
    trained = make_shards(tmp_path / "trained", 1, count=20, split="train")
    held_out = make_shards(tmp_path / "held", 1, count=12, split="val", seed=1)
    data = TrainingData.open((real,), (trained, held_out), (), force=False)
    rows = {pool.shards.path: len(rows) for pool, label, rows in data.validation_rows(100) if label}
    assert rows[held_out] == 12
    sampler = Sampler(data, 8, 0.5, 0)
    assert len(sampler.places(0, sampler.rng(0))) == 8
    with pytest.raises(UserError, match="has no fake images to train on"):
        TrainingData.open((real,), (held_out,), (), force=False)


def test_a_limit_is_even_over_generators_and_nested(real: Path, tmp_path: Path) -> None:
    folders = []
    for name, count in (("many", 60), ("some", 60), ("few", 8)):
        with ShardWriter(tmp_path / name, 16) as writer:
            for k in range(count):
                writer.append(np.full((16, 16, 3), k, np.uint8), Row(1, "x", name, "train", f"{name}{k}"))
                if k < 5:
                    writer.append(
                        np.full((16, 16, 3), 100 + k, np.uint8), Row(1, "x", name, "val", f"{name}v{k}")
                    )
        folders.append(tmp_path / name)

    def rows(limit: int) -> dict[str, set[int]]:
        data = TrainingData.open((real,), (), tuple(folders), True, limit=limit)
        assert all(len(pool.val) == 5 for pool in data.synthetic)
        return {pool.shards.path.name: set(pool.train.tolist()) for pool in data.synthetic}

    small, large = rows(30), rows(68)
    assert {name: len(kept) for name, kept in small.items()} == {"many": 11, "some": 11, "few": 8}
    assert {name: len(kept) for name, kept in large.items()} == {"many": 30, "some": 30, "few": 8}
    assert all(small[name] <= large[name] for name in small)
    assert sum(map(len, rows(1000).values())) == 128
    with pytest.raises(UserError, match="fewer than their 3 generators"):
        rows(2)


def test_a_limit_leaves_folders_that_only_validate(real: Path, tmp_path: Path) -> None:
    folders = tuple(
        make_shards(tmp_path / split, 1, seed=k, split=split) for k, split in enumerate(("train", "val"), 5)
    )
    whole, limited = (TrainingData.open((real,), (), folders, True, limit=n) for n in (0, 5))
    assert sum(len(pool.train) for pool in limited.synthetic) == 5
    assert limited.validation().digest == whole.validation().digest


def test_damaged_validation_images_are_told_and_left_out(
    real: Path, fake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = TrainingData.open((real,), (fake,), (), False)
    row = int(whole.fake[0].val[2])
    broken = TrainingData.open((real,), (damaged(fake, tmp_path / "broken", rows=(row,)),), (), False)
    held = broken.validation()
    assert len(held.images) == len(held.labels) == len(whole.validation().labels) - 1
    assert len(held.kinds) == len(held.groups) == len(held.labels)
    told = capsys.readouterr()
    assert f"left out: row {row} of" in told.out + told.err


def test_a_folder_counts_once(real: Path, fake: Path) -> None:
    for arguments in (((real, real), (fake,), ()), ((real,), (fake,), (fake,))):
        with pytest.raises(UserError, match="is named twice"):
            TrainingData.open(*arguments, False)


def test_fakes_given_to_a_recipe_that_makes_its_own_only_validate(real: Path, fake: Path) -> None:
    data = TrainingData.open((real,), (fake,), (), False, reals_only=True)
    assert data.sources() == ["real"] and len(data.fake[0].val) and data.audit()["verdict"] == "not run"
