"""Which images make a batch, and batches made ahead."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.shards import ShardSet
from crossfake.detect.training.data import Indices, Kind, KindName, Pool, TrainingData
from crossfake.errors import UserError
from crossfake.progress import tqdm

Schedule = Literal["constant", "warmup", "curriculum"]
Balance = Literal["source", "none"]

_RAMP = 0.5  # of all steps, after which a warm-up or a curriculum has reached everything
_EASIEST = 0.25  # of the scored fakes that a curriculum begins with
_SCORED = 2048  # synthetic fakes that are scored at a validation, at most


@dataclass(frozen=True)
class Stratum:
    """Images that are drawn from alike: rows, and which of the shard folders each is in.

    In place of a damaged image comes the next one of the stratum, and what is damaged is told once.
    """

    shards: tuple[ShardSet, ...]
    which: Indices
    rows: Indices
    _damaged: set[int] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def of(cls, pools: Sequence[Pool]) -> Stratum:
        """All training rows of the pools in one."""
        which = np.repeat(np.arange(len(pools)), [len(pool.train) for pool in pools])
        return cls(
            tuple(pool.shards for pool in pools), which, np.concatenate([pool.train for pool in pools])
        )

    @classmethod
    def each(cls, pools: Sequence[Pool]) -> list[Stratum]:
        """One for every folder, source and generator."""
        return [
            cls((pool.shards,), np.zeros_like(rows), rows) for pool in pools for rows in pool.by_generator()
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def made(self) -> Counter[tuple[str, str]]:
        """How many of the rows each source and generator has."""
        counts: Counter[tuple[str, str]] = Counter()
        for number, shards in enumerate(self.shards):
            rows = self.rows[self.which == number]
            columns = (shards.columns[name][rows].tolist() for name in ("source", "generator"))
            counts.update(zip(*columns, strict=True))
        return counts

    def where(self, position: int) -> tuple[ShardSet, int]:
        return self.shards[self.which[position]], int(self.rows[position])

    def image(self, position: int) -> Pixels:
        """uint8 ``[H, W, 3]``.

        Raises:
            UserError: all images are damaged.
        """
        for step in range(len(self)):
            at = (position + step) % len(self)
            if at in self._damaged:
                continue
            shards, row = self.where(at)
            try:
                return shards.read(row)
            except UserError as error:
                self._damaged.add(at)
                tqdm.write(f"left out: {error.message}")
        raise UserError(f"all images of {self.shards[0].path} are damaged", mend="prepare them again")

    def read(self, positions: Indices) -> Pixels:
        """uint8 ``[N, H, W, 3]``."""
        return np.stack([self.image(int(position)) for position in positions])


Place = tuple[Stratum, int]


class Curriculum:
    """Synthetic fakes from easily to hardly detected (Bengio et al. 2009), as the detector itself finds them.

    At every validation some fakes of each stratum are scored; until the next one only the easiest of them are drawn,
    a share that grows with the steps until it is all of them. Before the first validation any may come.

    Attributes:
        orders: positions in each stratum, the most certainly detected first; none before the first scoring.
    """

    def __init__(self, strata: Sequence[Stratum], seed: int, steps: int) -> None:
        self.strata, self.seed, self.steps = strata, seed, steps
        self.orders: list[Indices] = []

    def score(self, step: int, logits: Callable[[Pixels], npt.NDArray[np.float64]]) -> None:
        """Choose anew, with the detector as it is at this step; positive logits mean fake."""
        rng = np.random.default_rng([self.seed, step, 1])
        self.orders = []
        for stratum in self.strata:
            chosen = rng.permutation(len(stratum))[: max(1, _SCORED // len(self.strata))]
            self.orders.append(chosen[np.argsort(-logits(stratum.read(chosen)), kind="stable")])

    def draw(self, stratum: int, step: int, rng: np.random.Generator) -> int:
        """A position in that stratum."""
        if not self.orders:
            return int(rng.integers(len(self.strata[stratum])))
        order = self.orders[stratum]
        share = _EASIEST + (1 - _EASIEST) * _reached(step, self.steps)
        return int(order[rng.integers(max(1, math.ceil(share * len(order))))])

    def state(self) -> list[Tensor]:
        return [torch.from_numpy(order.astype(np.int64)) for order in self.orders]

    def restore(self, state: Sequence[Tensor]) -> None:
        self.orders = [order.cpu().numpy() for order in state]


class Sampler:
    """Batches that are half real and half fake.

    Batch k depends on (seed, k) only, so a resumed run sees what an unstopped one does.

    Args:
        data: the pools.
        batch: images per step.
        synthetic_ratio: share of the fakes that is synthetic where there are both kinds.
        seed: of all draws.
        balance: reals, and given fakes, of every folder, source and generator equally often (``source``), or as many
            as there are (``none``).
        per_generator: the same for synthetic fakes: every generator equally often, or not.
        schedule: ``constant``; ``warmup``, which raises the ratio from 0 over the first half of the steps; or
            ``curriculum``, see :class:`Curriculum`.
        steps: that are planned in all.
        fakes: whether batches hold fakes at all: some recipes make them from the reals.

    Raises:
        UserError: a warm-up without given fakes to begin with.
    """

    def __init__(
        self,
        data: TrainingData,
        batch: int,
        synthetic_ratio: float,
        seed: int,
        balance: Balance = "source",
        per_generator: bool = True,
        schedule: Schedule = "constant",
        steps: int = 1,
        fakes: bool = True,
    ) -> None:
        self.batch, self.seed, self.schedule, self.steps = batch, seed, schedule, steps
        self.fakes = batch // 2
        self.drawn_fakes = self.fakes if fakes else 0
        real, given, synthetic = (
            [pool for pool in pools if len(pool.train)] for pools in (data.real, data.fake, data.synthetic)
        )  # other folders only validate
        both = round(self.fakes * synthetic_ratio)
        self.ratio = both / self.fakes  # of synthetic fakes where there are given ones, too
        own = both if given else self.fakes
        self.own = own if synthetic and fakes else 0
        if schedule == "warmup" and self.own == self.fakes:
            raise UserError(
                "a warm-up has no given fakes to begin with",
                mend="give --fake, too, or a --synthetic-ratio below 1",
            )
        self.apart: dict[KindName, bool] = {
            "real": balance == "source",
            "fake": balance == "source",
            "synthetic": per_generator,
        }
        self.real, self.given, self.synthetic = (
            (Stratum.each(pools) if apart else [Stratum.of(pools)]) if pools else []
            for pools, apart in zip((real, given, synthetic), self.apart.values(), strict=True)
        )
        self.labels = torch.tensor([0.0] * (batch - self.fakes) + [1.0] * self.fakes)
        self.curriculum = (
            Curriculum(self.synthetic, seed, steps) if schedule == "curriculum" and self.own else None
        )

    def rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step])

    def places(self, step: int, rng: np.random.Generator) -> list[Place]:
        """Where the images of a batch are, reals first, then given fakes, then synthetic ones."""
        own = self.own
        if self.schedule == "warmup":
            own = round(own * _reached(step, self.steps))
        parts = (
            (self.real, self.batch - self.fakes, None),
            (self.given, self.drawn_fakes - own, None),
            (self.synthetic, own, self.curriculum),
        )
        places = []
        for strata, count, curriculum in parts:
            if not count:
                continue
            first = int(rng.integers(len(strata)))
            for number in range(first, first + count):
                turn = number % len(strata)
                stratum = strata[turn]
                position = curriculum.draw(turn, step, rng) if curriculum else int(rng.integers(len(stratum)))
                places.append((stratum, position))
        return places

    def amounts(self) -> Counter[Kind]:
        """How often each source and generator is drawn relative to the others of its kind: once for every folder
        that has it where they take turns, else once for every image."""
        found: Counter[Kind] = Counter()
        strata = (self.real, self.given, self.synthetic)
        for (kind, apart), some in zip(self.apart.items(), strata, strict=True):
            for stratum in some:
                for (source, generator), count in stratum.made().items():
                    found[Kind(kind, source, generator)] += 1 if apart else count
        return found


def read(places: Sequence[Place]) -> Tensor:
    """uint8 ``[B, 3, H, W]``, channels last."""
    return torch.from_numpy(np.stack([stratum.image(at) for stratum, at in places])).permute(0, 3, 1, 2)


def _reached(step: int, steps: int) -> float:
    """0 in the beginning, 1 from the middle on."""
    return min(1.0, step / max(1.0, _RAMP * steps))


class Feeder:
    """Batches made ahead in threads, in order.

    Args:
        make: the batch of a step; it depends on nothing but the step.
        start: the first step.
        threads: how many make them; one batch more is ready or in the making.
    """

    def __init__(self, make: Callable[[int], Tensor], start: int, threads: int = 1) -> None:
        self._make, self._next, self._threads = make, start, threads
        self._pool = ThreadPoolExecutor(threads)
        self._ahead: list[Future[Tensor]] = []

    def __enter__(self) -> Feeder:
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self) -> Tensor:
        """The next batch."""
        self._fill()
        batch = self._ahead.pop(0).result()
        self._next += 1
        self._fill()
        return batch

    def renew(self) -> None:
        """Make again what was made ahead: what is drawn from has changed."""
        for batch in self._ahead:
            if not batch.cancel():
                batch.exception()
        self._ahead.clear()

    def _fill(self) -> None:
        while len(self._ahead) <= self._threads:
            self._ahead.append(self._pool.submit(self._make, self._next + len(self._ahead)))


def reader_threads(device: torch.device) -> int:
    """One beside a CPU, which has to train with the same cores; a GPU is fed by all but one."""
    return 1 if device.type == "cpu" else max(1, min(12, (os.cpu_count() or 2) - 1))
