from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.detect.data import Pool, Sampler, TrainingData
from crossfake.errors import UserError

from .conftest import make_shards


def test_a_pool_without_validation_rows_holds_some_groups_out(tmp_path: Path) -> None:
    pool = Pool.open(make_shards(tmp_path / "made", 1, count=400, split="train"), 1)
    groups = pool.shards.columns["group"]
    assert 20 < len(pool.val) < 60 and len(pool.train) + len(pool.val) == 400
    assert not set(groups[pool.train]) & set(groups[pool.val])


def test_test_rows_are_never_taken(real: Path) -> None:
    pool = Pool.open(real, 0)
    splits = pool.shards.columns["split"]
    assert set(splits[pool.train]) == {"train"} and set(splits[pool.val]) == {"val"}


def test_batches_are_balanced_over_classes_and_generators(real: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "two", 16) as writer:
        for number in range(100):  # 90 of one generator, 10 of the other, told apart by their grey
            rare = number >= 90
            image = np.full((16, 16, 3), 250 if rare else 5, np.uint8)
            writer.append(image, Row(1, "x", "rare" if rare else "common", "train", f"g{number}"))
    own = make_shards(tmp_path / "own", 1, split="train")
    data = TrainingData.open((real,), (tmp_path / "two",), (own,), force=True)
    sampler = Sampler(data, batch=64, synthetic_ratio=0.5, seed=0)
    images = sampler.images(sampler.rng(0)).float().mean(dim=(1, 2, 3))
    assert sampler.labels.tolist() == [0.0] * 32 + [1.0] * 32
    given = images[32:48]
    assert (given > 249).sum() == (given < 6).sum() == 8
    assert ((images[48:] > 6) & (images[48:] < 249)).all()
    assert np.array_equal(sampler.images(sampler.rng(3)), sampler.images(sampler.rng(3)))


def test_without_and_with_synthetic_differ_in_the_fakes_only(real: Path, fake: Path, tmp_path: Path) -> None:
    own = make_shards(tmp_path / "own", 1, split="train")
    samplers = [
        Sampler(TrainingData.open((real,), (fake,), synthetic, False), 32, 0.5, seed=1)
        for synthetic in ((), (own,))
    ]
    without, with_own = (s.images(s.rng(5)) for s in samplers)
    assert np.array_equal(without[:16], with_own[:16]) and not np.array_equal(without[16:], with_own[16:])


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
    with ShardWriter(tmp_path / "large", 32) as writer:
        writer.append(np.zeros((32, 32, 3), np.uint8), Row(1, "x", split="train"))
    with pytest.raises(UserError, match="images of one size"):
        TrainingData.open((real,), (tmp_path / "large",), (), False)


def test_a_group_on_both_sides_of_the_firewall_is_a_hard_error(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    leaking = make_shards(tmp_path / "leak", 1, split="train", prefix="fake")  # groups that `fake` holds out
    with pytest.raises(UserError, match=r"group 'fake-\d+' of .* both trained on and held out"):
        TrainingData.open((real,), (fake, leaking), (), False)
