"""Which images make a batch, and batches made ahead."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.training.data import Indices, Kind, KindName, Pool, TrainingData
from crossfake.detect.training.pairs import Pairs
from crossfake.detect.training.settings import Balance, Schedule
from crossfake.detect.view import ALIGNED, View
from crossfake.errors import UserError
from crossfake.progress import tqdm

_RAMP = 0.5  # of all steps, after which a warm-up or a curriculum has reached everything
_EASIEST = 0.25  # of the scored fakes that a curriculum begins with
_SCORED = 2048  # synthetic fakes that are scored at a validation, at most
MIDDLE = (0.5, 0.5)


@dataclass(frozen=True)
class Stratum:
    """Images that are drawn from alike: rows, and which of the shard folders each is in.

    In place of a damaged image comes the next one of the stratum, and what is damaged is told once.

    Attributes:
        view: what is read of an image; of native ones a window.
    """

    shards: tuple[ShardSet, ...]
    which: Indices
    rows: Indices
    view: View = ALIGNED
    _damaged: set[int] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def of(cls, pools: Sequence[Pool], view: View = ALIGNED) -> Stratum:
        """All training rows of the pools in one."""
        which = np.repeat(np.arange(len(pools)), [len(pool.train) for pool in pools])
        rows = np.concatenate([pool.train for pool in pools])
        return cls(tuple(pool.shards for pool in pools), which, rows, view)

    @classmethod
    def each(cls, pools: Sequence[Pool], view: View = ALIGNED) -> list[Stratum]:
        """One for every folder, source and generator."""
        return [
            cls((pool.shards,), np.zeros_like(rows), rows, view)
            for pool in pools
            for rows in pool.by_generator()
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
        """The set and the row at a place of it."""
        return self.shards[self.which[position]], int(self.rows[position])

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the shards, or their ``ids``, for every row ``[N]``."""
        parts = [
            (shards.ids() if name == "ids" else shards.columns[name])[self.rows[self.which == number]]
            for number, shards in enumerate(self.shards)
        ]  # rows are in the order of their folders
        return np.concatenate(parts)

    def image(self, position: int, at: Sequence[float] = MIDDLE) -> Pixels:
        """uint8 ``[H, W, 3]``.

        Args:
            position: in the stratum.
            at: where the window of a native image lies, down and across, as shares of the room that it has.

        Raises:
            UserError: all images are damaged.
        """
        for step in range(len(self)):
            nth = (position + step) % len(self)
            if nth in self._damaged:
                continue
            shards, row = self.where(nth)
            try:
                return self._read(shards, row, at)
            except UserError as error:
                self._damaged.add(nth)
                tqdm.write(f"left out: {error.message}")
        raise UserError(f"all images of {self.shards[0].path} are damaged", hint="prepare them again")

    def _read(self, shards: ShardSet, row: int, at: Sequence[float]) -> Pixels:
        if not self.view.native:
            return shards.read(row)
        size = self.view.window
        top, left = ((shards.shapes[row] - size + 1) * at).astype(np.int64)
        return shards.window(row, int(top), int(left), size)

    def read(self, positions: Indices) -> Pixels:
        """uint8 ``[N, H, W, 3]``; of native images the window in the middle."""
        return np.stack([self.image(int(position)) for position in positions])


def in_turn(strata: Sequence[Stratum]) -> list[Stratum]:
    """Strata of one generator each, some of them several times, so that all generators have as many and alternate.

    Each stratum without a generator's name counts as one of its own.
    """
    by_generator: dict[str | int, list[Stratum]] = {}
    for number, stratum in enumerate(strata):
        shards, row = stratum.where(0)
        by_generator.setdefault(str(shards.columns["generator"][row]) or number, []).append(stratum)
    rounds = math.lcm(*map(len, by_generator.values()))
    return [some[turn % len(some)] for turn in range(rounds) for some in by_generator.values()]


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
        """What a checkpoint holds of it."""
        return [torch.from_numpy(order.astype(np.int64)) for order in self.orders]

    def restore(self, state: Sequence[Tensor]) -> None:
        """Go on from a checkpoint."""
        self.orders = [order.cpu().numpy() for order in state]


class Sampler:
    """Batches that are half real and half fake.

    Batch k depends on (seed, k) only, so a resumed run sees what an unstopped one does.

    Args:
        data: the pools.
        batch: images per step.
        synthetic_ratio: share of the fakes that is synthetic where there are both kinds.
        seed: of all draws.
        balance: reals of every folder and source equally often, given fakes of every generator and, of one generator,
            of every folder and source (``source``), or as many as there are (``none``).
        per_generator: the same for synthetic fakes: every generator equally often, or not.
        schedule: ``constant``; ``warmup``, which raises the ratio from 0 over the first half of the steps; or
            ``curriculum``, see :class:`Curriculum`.
        steps: that are planned in all.
        fakes: whether batches hold fakes at all: some recipes make them from the reals.
        pair: a fake that was made of one of the reals has it as its partner in the batch; others have any. Every
            source of reals is still drawn as often.

    Raises:
        UserError: a warm-up without given fakes to begin with, or pairs of fakes that none of the reals is the
            parent of.
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
        pair: bool = False,
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
                hint="give --fake, too, or a --synthetic-ratio below 1",
            )
        self.apart: dict[KindName, bool] = {
            "real": balance == "source",
            "fake": balance == "source",
            "synthetic": per_generator,
        }
        self.real, self.given, self.synthetic = (
            (in_turn(Stratum.each(pools, data.view)) if apart else [Stratum.of(pools, data.view)])
            if pools
            else []
            for pools, apart in zip((real, given, synthetic), self.apart.values(), strict=True)
        )
        self.labels = torch.tensor([0.0] * (batch - self.fakes) + [1.0] * self.fakes)
        self.curriculum = (
            Curriculum(self.synthetic, seed, steps) if schedule == "curriculum" and self.own else None
        )
        self.pairs = Pairs(self.real, self.given + self.synthetic) if pair else None

    def rng(self, step: int) -> np.random.Generator:
        """What draws the batch of a step: of seed and step alone."""
        return np.random.default_rng([self.seed, step])

    def places(self, step: int, rng: np.random.Generator) -> list[Place]:
        """Where the images of a batch are, reals first, then given fakes, then synthetic ones.

        In pairs the k-th fake's partner is the k-th real.
        """
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
        if self.pairs:
            places = self.pairs.paired(places, rng, redraw=not self.curriculum)
        return places

    def windows(self, step: int) -> npt.NDArray[np.float64]:
        """Where the windows of a batch's native images lie, ``[B, 2]`` in [0, 1); partners have the same."""
        places = np.random.default_rng([self.seed, step, 4]).random((self.batch, 2))
        if self.pairs:
            places[-self.fakes :] = places[: self.fakes]
        return places

    def amounts(self) -> Counter[Kind]:
        """How often each source and generator is drawn relative to the others of its kind: once for every turn
        that it has where they take turns, else once for every image."""
        found: Counter[Kind] = Counter()
        strata = (self.real, self.given, self.synthetic)
        for (kind, apart), some in zip(self.apart.items(), strata, strict=True):
            for stratum in some:
                for (source, generator), count in stratum.made().items():
                    found[Kind(kind, source, generator)] += 1 if apart else count
        return found


def read(places: Sequence[Place], windows: npt.NDArray[np.float64] | None = None) -> Pixels:
    """uint8 ``[B, H, W, 3]``; of native images the windows at these shares ``[B, 2]`` of their room."""
    where = np.full((len(places), 2), MIDDLE) if windows is None else windows
    return np.stack([stratum.image(at, window) for (stratum, at), window in zip(places, where, strict=True)])


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
