from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.detect.training.data import Kind, TrainingData
from crossfake.detect.training.sampling import Sampler
from crossfake.detect.training.weighing import Weighed, format_shares, shares_in_words


def _shards(folder: Path, label: int, *parts: tuple[str, str, int, int]) -> Path:
    """Rows of (source, generator, how many train, how many validate)."""
    rng = np.random.default_rng([len(folder.name), label, *folder.name.encode()])
    with ShardWriter(folder, 8) as writer:
        for source, generator, trained, held in parts:
            for split, count in (("train", trained), ("val", held)):
                for number in range(count):
                    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    group = f"{folder.name}-{source}-{generator}-{split}{number}"
                    writer.append(image, Row(label, source, generator, split, group))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of 53 fakes that validate 46 are one's own, and reals come from two sources of unlike size."""
    root = tmp_path_factory.mktemp("weighed")
    folders = {
        "real": _shards(root / "real", 0, ("faces", "", 40, 6), ("photos", "", 8, 2)),
        "fake": _shards(root / "fake", 1, ("ff", "a", 20, 3), ("ff", "b", 5, 4)),
        "own": _shards(root / "own", 1, ("synth", "gan:1", 30, 40), ("synth", "gan:2", 10, 6)),
        "unseen": _shards(root / "unseen", 1, ("web", "c", 0, 5)),
    }
    Seen().save(folders["own"])  # their generators learned from nothing that is here
    return folders


def _open(folders: dict[str, Path], *fakes: str, own: bool = True) -> TrainingData:
    given = tuple(folders[name] for name in fakes)
    return TrainingData.open((folders["real"],), given, (folders["own"],) if own else (), False)


def _by_kind(shares: dict[Kind, float]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for kind, share in shares.items():
        sums[kind.kind] += share
    return dict(sums)


@pytest.mark.parametrize(
    ("batch", "ratio", "more"),
    [
        (16, 0.5, {}),
        (17, 0.25, {}),
        (32, 1.0, {}),
        (32, 0.5, {"balance": "none", "per_generator": False}),
        (32, 0.3, {"schedule": "warmup"}),
    ],
)
def test_shares_are_those_of_training_batches(
    folders: dict[str, Path], batch: int, ratio: float, more: dict[str, Any]
) -> None:
    """Counted in batches that the sampler draws, for every kind, source and generator."""
    data = _open(folders, "fake")
    sampler = Sampler(data, batch, ratio, 0, **more)
    shares = Weighed.as_batches(data.validation().kinds, sampler).shares
    drawn: Counter[Kind] = Counter()
    steps = 1500
    kinds = {folders["real"]: "real", folders["fake"]: "fake", folders["own"]: "synthetic"}
    for step in range(steps):
        for stratum, at in sampler.places(step, np.random.default_rng(step)):
            shards, row = stratum.where(at)
            columns = (str(shards.columns[name][row]) for name in ("source", "generator"))
            drawn[Kind(kinds[shards.path], *columns)] += 1  # type: ignore[arg-type]
    assert sum(shares.values()) == pytest.approx(1)
    assert set(drawn) == {kind for kind, share in shares.items() if share > 0}
    for kind, share in shares.items():
        assert drawn[kind] / steps / batch == pytest.approx(share, abs=0.012), kind


def test_what_nothing_is_held_out_of_leaves_its_part_to_its_like(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    data = _open(folders, "fake")
    kinds = [kind for kind in data.validation().kinds if kind.generator not in ("gan:2", "b")]
    shares = Weighed.as_batches(kinds, Sampler(data, 16, 0.5, 0)).shares
    assert _by_kind(shares) == pytest.approx({"real": 0.5, "fake": 0.25, "synthetic": 0.25})
    alone = [kind for kind in kinds if kind.kind != "fake"]
    shares = Weighed.as_batches(alone, Sampler(data, 16, 0.25, 0)).shares
    assert _by_kind(shares) == pytest.approx({"real": 0.5, "synthetic": 0.5})
    shares = Weighed.as_batches(
        alone, Sampler(data, 16, 0.0, 0)
    ).shares  # no batch has them, and all there is
    assert _by_kind(shares) == pytest.approx({"real": 0.5, "synthetic": 0.5})


def test_what_only_validates_counts_as_one_of_its_kind(folders: dict[str, Path]) -> None:
    data = _open(folders, "fake", "unseen", own=False)
    kinds = data.validation().kinds
    shares = Weighed.as_batches(kinds, Sampler(data, 16, 0.5, 0)).shares
    fakes = {kind.generator: share for kind, share in shares.items() if kind.kind == "fake"}
    assert fakes == pytest.approx({"a": 1 / 6, "b": 1 / 6, "c": 1 / 6})
    shares = Weighed.as_batches(kinds, Sampler(data, 16, 0.5, 0, balance="none")).shares
    fakes = {kind.generator: share for kind, share in shares.items() if kind.kind == "fake"}
    assert fakes == pytest.approx({"a": 10 / 30, "b": 2.5 / 30, "c": 2.5 / 30})  # 20, 5 and 5 images
    # given fakes that only validate beside one's own that train: half of the fakes, as the ratio says
    data = _open(folders, "unseen")
    shares = Weighed.as_batches(data.validation().kinds, Sampler(data, 16, 0.5, 0)).shares
    assert _by_kind(shares) == pytest.approx({"real": 0.5, "fake": 0.25, "synthetic": 0.25})


def test_fakes_made_of_reals_are_half(folders: dict[str, Path]) -> None:
    data = TrainingData.open((folders["real"],), (), (), False, reals_only=True)
    kinds = [Kind("real", "faces")] * 6 + [Kind("real", "photos")] * 2 + [Kind("made")] * 8
    weighed = Weighed.as_batches(kinds, Sampler(data, 16, 0.5, 0, fakes=False))
    assert _by_kind(weighed.shares) == pytest.approx({"real": 0.5, "made": 0.5})


def test_figures_are_scikit_learns_and_each_generator_has_its_own() -> None:
    rng = np.random.default_rng(0)
    kinds = (
        [Kind("real", "x")] * 40 + [Kind("fake", "ff", "a")] * 7 + [Kind("synthetic", "synth", "gan")] * 80
    )
    labels = np.repeat([0, 1], [40, 87])
    logits = rng.normal(np.repeat([0.0, 0.5, 6.0], [40, 7, 80]), 1)
    weights = np.repeat([0.5 / 40, 0.25 / 7, 0.25 / 80], [40, 7, 80]) * 127
    weighed = Weighed.of(kinds, dict(zip(dict.fromkeys(kinds), (0.5, 0.25, 0.25), strict=True)))
    np.testing.assert_allclose(weighed.weights, weights)
    figures = weighed.figures(labels, logits)
    assert figures["val_ap"] == pytest.approx(
        reference.average_precision_score(labels, logits, sample_weight=weights)
    )
    assert figures["val_auc"] == pytest.approx(reference.roc_auc_score(labels, logits, sample_weight=weights))
    # nearly all fakes that validate are easy, which hides that the others are not told
    assert Weighed.alike(kinds).figures(labels, logits)["val_ap"] > figures["val_ap"] + 0.05
    part = labels[:47]
    each = np.repeat([0.5 / 40, 0.5 / 7], [40, 7])
    assert figures["val_ap/a"] == pytest.approx(
        reference.average_precision_score(part, logits[:47], sample_weight=each)
    )
    assert figures["val_ap/gan"] > 0.99


def test_generators_of_one_name_are_told_apart() -> None:
    kinds = [
        Kind("real", "x"),
        Kind("fake", "ff", "a"),
        Kind("fake", "df", "a"),
        Kind("fake", "web", ""),
        Kind("fake", "s", "g"),
        Kind("synthetic", "s", "g"),
    ]
    figures = Weighed.alike(kinds).figures(np.array([0, 1, 1, 1, 1, 1]), np.arange(6.0))
    assert [name for name in figures if "/" in name] == [
        "val_ap/ff a",
        "val_ap/df a",
        "val_ap/web",
        "val_ap/given fakes s g",
        "val_ap/own fakes s g",
    ]


def test_the_shares_are_told() -> None:
    kinds = [Kind("real", "x")] * 3 + [Kind("fake", "ff", "a"), Kind("synthetic", "s", "g")]
    labels = np.array([0, 0, 0, 1, 1])
    weighed = Weighed.of(kinds, dict(zip(dict.fromkeys(kinds), (0.5, 0.25, 0.25), strict=True)))
    shares = weighed.describe(labels, np.arange(5.0))
    again = Weighed.recorded(kinds, shares)
    assert again is not None and np.array_equal(again.weights, weighed.weights)
    assert Weighed.recorded(kinds[1:4], shares) is None
    assert shares_in_words(shares) == "reals 50%, given fakes 25%, own fakes 25%"
    assert [part["images"] for part in shares] == [3, 1, 1] and "ap" not in shares[0]
    table = format_shares(shares).splitlines()
    assert table[2].split() == ["given", "fakes", "ff", "a", "1", "25.0%", "1.0000"] and len(table) == 4
