import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.training.data import Pool, TrainingData
from crossfake.detect.training.sampling import Feeder, Sampler, Stratum, read
from crossfake.errors import UserError

from ..conftest import damaged, make_shards


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 fakes of one generator, 10 of the other, told apart by their grey."""
    folder = tmp_path_factory.mktemp("data") / "uneven"
    with ShardWriter(folder, 16) as writer:
        for number in range(100):
            rare = number >= 90
            image = np.full((16, 16, 3), 250 if rare else 5, np.uint8)
            image[0, 0] = number
            writer.append(image, Row(1, "x", "rare" if rare else "common", "train", f"g{number}"))
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "own", 1, seed=5, split="train")


def _means(sampler: Sampler, step: int) -> torch.Tensor:
    return torch.from_numpy(read(sampler.places(step, sampler.rng(step)))).float().mean(dim=(1, 2, 3))


def test_batches_are_balanced_over_classes_and_generators(real: Path, uneven: Path, own: Path) -> None:
    data = TrainingData.open((real,), (uneven,), (own,), force=True)
    sampler = Sampler(data, batch=64, synthetic_ratio=0.5, seed=0)
    means = _means(sampler, 0)
    assert sampler.labels.tolist() == [0.0] * 32 + [1.0] * 32
    given = means[32:48]
    assert (given > 240).sum() == (given < 15).sum() == 8
    assert ((means[48:] > 15) & (means[48:] < 240)).all()
    assert torch.equal(_means(sampler, 3), _means(sampler, 3))


def test_without_balance_a_source_comes_as_often_as_it_has_images(real: Path, uneven: Path) -> None:
    for settings in ({"balance": "none"}, {"per_generator": False}):
        fakes = ((uneven,), ()) if "balance" in settings else ((), (uneven,))
        data = TrainingData.open((real,), *fakes, force=True)
        sampler = Sampler(data, 64, 0.5, 0, **settings)  # type: ignore[arg-type]
        rare = sum(int((_means(sampler, step)[32:] > 240).sum()) for step in range(40))
        assert 0.06 < rare / (40 * 32) < 0.14


def test_without_and_with_synthetic_differ_in_the_fakes_only(real: Path, fake: Path, own: Path) -> None:
    samplers = [
        Sampler(TrainingData.open((real,), (fake,), synthetic, False), 32, 0.5, seed=1)
        for synthetic in ((), (own,))
    ]
    without, with_own = (read(s.places(5, s.rng(5))) for s in samplers)
    assert np.array_equal(without[:16], with_own[:16]) and not np.array_equal(without[16:], with_own[16:])


def test_a_warm_up_begins_with_given_fakes(real: Path, fake: Path, own: Path) -> None:
    data = TrainingData.open((real,), (fake,), (own,), False)
    sampler = Sampler(data, 32, 0.5, 0, schedule="warmup", steps=100)
    counts = [
        sum(s.where(at)[0].path == own for s, at in sampler.places(step, sampler.rng(step)))
        for step in (0, 25, 50, 99)
    ]
    assert counts == [0, 4, 8, 8]
    with pytest.raises(UserError, match="no given fakes to begin with"):
        Sampler(TrainingData.open((real,), (), (own,), False), 32, 0.5, 0, schedule="warmup")


def test_a_curriculum_goes_from_easily_to_hardly_detected(real: Path, uneven: Path) -> None:
    data = TrainingData.open((real,), (), (uneven,), True)
    sampler = Sampler(data, 32, 0.5, 0, schedule="curriculum", steps=100)
    curriculum = sampler.curriculum
    assert curriculum is not None

    def number(images: np.ndarray) -> np.ndarray:  # of the image: the first ones are the easiest
        return -images[:, 0, 0, 0].astype(float)

    def drawn(step: int) -> Counter[int]:
        places = [p for k in range(40) for p in sampler.places(step, sampler.rng(1000 * step + k))]
        found = [stratum.where(at) for stratum, at in places]
        return Counter(row for shards, row in found if shards.path == uneven)

    assert len(drawn(0)) > 80  # nothing is known yet
    curriculum.score(10, number)
    early = drawn(10)
    # 40 in 100 of each generator's: a fifth of the way from a quarter to all
    assert 30 < max(row for row in early if row < 90) < 36
    assert {row for row in early if row >= 90} == set(range(90, 94))
    late = drawn(60)
    assert max(late) == 99 and len(late) > 80
    again = Sampler(data, 32, 0.5, 0, schedule="curriculum", steps=100)
    assert again.curriculum is not None
    again.curriculum.restore(curriculum.state())
    rows = [[at for _, at in s.places(20, s.rng(20))] for s in (sampler, again)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_feeder_keeps_the_order_and_makes_again_what_is_out_of_date(threads: int) -> None:
    offset, made = [0], Counter[int]()
    lock = threading.Lock()

    def make(step: int) -> torch.Tensor:
        with lock:
            made[step] += 1
        return torch.tensor(step + offset[0])

    with Feeder(make, 5, threads) as feeder:
        assert [int(feeder.take()) for _ in range(4)] == [5, 6, 7, 8]
        offset[0] = 100
        feeder.renew()
        assert [int(feeder.take()) for _ in range(2)] == [109, 110]
    assert made[5] == 1


def test_what_goes_wrong_in_a_reader_is_raised() -> None:
    def make(step: int) -> torch.Tensor:
        raise UserError("row 3 is damaged")

    with Feeder(make, 0) as feeder, pytest.raises(UserError, match="row 3"):
        feeder.take()


def test_the_next_image_stands_in_for_a_damaged_one(
    real: Path, fake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = damaged(fake, tmp_path / "broken", rows=(3, 4))
    stratum = Stratum.of([Pool.open(broken, 1)])
    position = stratum.rows.tolist().index(3)
    for _ in range(2):
        assert np.array_equal(stratum.image(position), ShardSet(fake).read(int(stratum.rows[position + 2])))
    told = capsys.readouterr()
    assert (told.out + told.err).count("left out: row 3 of") == 1
    every = damaged(fake, tmp_path / "every", rows=tuple(range(len(ShardSet(fake)))))
    with pytest.raises(UserError, match="damaged"):
        read([(Stratum.of([Pool.open(every, 1)]), 0)])


def test_a_folder_that_only_validates_is_no_stratum(real: Path, own: Path, tmp_path: Path) -> None:
    held_out = make_shards(tmp_path / "held-out", 1, seed=8, split="val", prefix="h")
    data = TrainingData.open((real,), (held_out,), (own,), False)
    sampler = Sampler(data, 16, 0.5, 0)
    assert sampler.own == 8 and {s.where(at)[0].path for s, at in sampler.places(0, sampler.rng(0))} == {
        real,
        own,
    }
