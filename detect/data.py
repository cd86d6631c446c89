"""What a detector trains on: pools of images, held apart by split and group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.codecs import Pixels
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError

Indices = npt.NDArray[np.int64]
# For sets that come without a validation part (fakes made in bulk): a tenth of the groups, by hash
_CARVE = Fractions(0.9, 0.1, 0.0)


@dataclass(frozen=True)
class Pool:
    """Rows of one shard folder that share a label, and which of them train and which validate."""

    shards: ShardSet
    train: Indices
    val: Indices

    @classmethod
    def open(cls, folder: Path, label: int) -> Pool:
        """Rows of split ``test`` are left alone. Without ``val`` rows a tenth of the groups is held out.

        Raises:
            UserError: the folder has no rows of that label to train on.
        """
        shards = ShardSet(folder)
        train = shards.select(split=["train", ""], label=label)
        val = shards.select(split="val", label=label)
        if not len(val) and len(train):
            held_out = np.array([_CARVE.split_of(group) == "val" for group in shards.columns["group"][train]])
            train, val = train[~held_out], train[held_out]
        if not len(train):
            kind = "fake" if label else "real"
            raise UserError(f"{folder} has no {kind} images to train on", mend="check its labels and splits")
        return cls(shards, train, val)

    def by_generator(self) -> list[Indices]:
        """Training rows, one list per generator."""
        names = self.shards.columns["generator"][self.train]
        return [self.train[names == name] for name in np.unique(names)]


@dataclass(frozen=True)
class TrainingData:
    """Reals, published or otherwise given fakes, and one's own synthetic fakes."""

    real: list[Pool]
    fake: list[Pool]
    synthetic: list[Pool]
    size: int
    crop: dict[str, object] | None

    @classmethod
    def open(
        cls, real: Sequence[Path], fake: Sequence[Path], synthetic: Sequence[Path], force: bool
    ) -> TrainingData:
        """Open all folders and hold them against each other.

        Raises:
            UserError: a class is missing, sizes or crops differ, or a group is both trained on and held out.
        """
        if not real:
            raise UserError("a detector needs reals", mend="name them with --real DIR")
        if not fake and not synthetic:
            raise UserError(
                "a detector needs fakes", mend="name them with --fake DIR or --with-synthetic DIR"
            )
        pools = [
            [Pool.open(folder, label) for folder in folders]
            for folders, label in ((real, 0), (fake, 1), (synthetic, 1))
        ]
        every = [pool for part in pools for pool in part]
        sizes = {pool.shards.size for pool in every}
        if len(sizes) > 1 or None in sizes:
            named = ", ".join(f"{pool.shards.path} {pool.shards.size or 'any size'}" for pool in every)
            raise UserError(
                f"images of one size are needed, found {named}", mend="prepare all with the same --size"
            )
        crops = {repr(crop): crop for pool in every if (crop := pool.shards.attributes.get("crop"))}
        if len(crops) > 1 and not force:
            raise UserError(
                f"the folders were cropped differently ({' and '.join(crops)})",
                mend="prepare all with the same --crop, or --force if that is the point",
            )
        _check_firewall(every)
        return cls(pools[0], pools[1], pools[2], int(sizes.pop() or 0), next(iter(crops.values()), None))

    def validation(self, most: int) -> tuple[Pixels, npt.NDArray[np.int64], str]:
        """At most ``most`` held-out images of each class, evenly over the pools: images, labels, and their hash."""
        images, labels, digest = [], [], hashlib.sha256()
        for label, pools in ((0, self.real), (1, self.fake + self.synthetic)):
            if not any(len(pool.val) for pool in pools):
                raise UserError(
                    f"there are no {'fakes' if label else 'reals'} to validate on",
                    mend="prepare with --split",
                )
            share = most // len(pools)
            for pool in pools:
                rows = np.random.default_rng(0).permutation(pool.val)[:share]
                if len(rows):
                    images.append(pool.shards.read_many(rows))
                    labels.append(np.full(len(rows), label))
                    digest.update(pool.shards.columns["crc32"][rows].tobytes())
        return np.concatenate(images), np.concatenate(labels), digest.hexdigest()

    def sources(self) -> list[str]:
        """Data sets that the training rows come from."""
        pools = self.real + self.fake + self.synthetic
        return sorted(
            {str(name) for pool in pools for name in np.unique(pool.shards.columns["source"][pool.train])}
        )

    def audit(self) -> dict[str, Any]:
        """What gives the classes away besides forgery; see :mod:`crossfake.datasets.audit`."""
        fakes = [pool.shards.path for pool in self.fake + self.synthetic]
        return audit_training([pool.shards.path for pool in self.real], fakes)

    def hashes(self) -> dict[str, str]:
        return {str(pool.shards.path): pool.shards.hash for pool in self.real + self.fake + self.synthetic}


def _check_firewall(pools: Sequence[Pool]) -> None:
    """No group may be trained on and also validate or test, in whichever folder it turns up."""
    trained: set[str] = set()
    for pool in pools:
        trained.update(pool.shards.columns["group"][pool.train].tolist())
    trained.discard("")
    for pool in pools:
        held_out = np.concatenate([pool.val, pool.shards.select(split="test")])
        shared = trained.intersection(pool.shards.columns["group"][held_out].tolist())
        if shared:
            raise UserError(
                f"group {sorted(shared)[0]!r} of {pool.shards.path} is both trained on and held out",
                mend="prepare all folders with the same --split and --seed",
            )


class Sampler:
    """Batches that are half real and half fake; every generator of a pool is drawn equally often.

    Batch k depends on (seed, k) only, so a resumed run sees what an unstopped one does.
    """

    def __init__(self, data: TrainingData, batch: int, synthetic_ratio: float, seed: int) -> None:
        self.batch, self.seed = batch, seed
        fakes = batch // 2
        own = round(fakes * synthetic_ratio) if data.fake else fakes
        own = own if data.synthetic else 0
        parts = ((data.real, batch - fakes), (data.fake, fakes - own), (data.synthetic, own))
        self.parts = [
            ([(pool.shards, rows) for pool in pools for rows in pool.by_generator()], count)
            for pools, count in parts
            if count
        ]
        self.labels = torch.tensor([0.0] * (batch - fakes) + [1.0] * fakes)

    def rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step])

    def images(self, rng: np.random.Generator) -> Tensor:
        """uint8 ``[B, 3, H, W]``, reals first."""
        images = []
        for lists, count in self.parts:
            first = int(rng.integers(len(lists)))
            for number in range(first, first + count):
                shards, rows = lists[number % len(lists)]
                images.append(shards.read(int(rows[rng.integers(len(rows))])))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
