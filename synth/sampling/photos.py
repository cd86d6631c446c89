"""Real images that a generator works on: which, in what order, and with what partners."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError


class Photos:
    """Real images that a model works on: image i is made of photo i, and so on round, and a partner that is drawn.

    Args:
        folder: their shards.
        split: those of this split; all when None.
        size: that they must have; 0 is any.
        partnered: whether partners are needed.

    Raises:
        UserError: there are none, they have another size, or are too few for partners; of all splits, some have none.
    """

    def __init__(self, folder: Path, split: str | None, size: int, partnered: bool) -> None:
        self.shards, self.partnered = ShardSet(folder), partnered
        if size and self.shards.size != size:
            raise UserError(
                f"{folder} holds images of {self.shards.size or 'any size'} pixels, the model makes {size}",
                hint=f"prepare them with --size {size}",
            )
        self.rows = self.shards.select(split=split, label=0)
        self._pixels = self.shards.columns["crc32"]
        self.splits = self.shards.columns["split"]
        if not len(self.rows):
            which = f" of split {split}" if split else ""
            raise UserError(f"{folder} has no reals{which}", hint="name another --photos")
        if split is None and (self.splits[self.rows] == "").any():
            raise UserError(
                f"{folder} is not split",
                hint="run 'crossfake data split' first: fakes keep their photo's split",
            )
        for side in np.unique(self.splits[self.rows]).tolist() if partnered else ():
            if len(np.unique(self._pixels[self._of_split[side]])) < 2:
                raise UserError(
                    f"{folder} has fewer than two different reals of split {side}",
                    hint="name another --photos",
                )

    @cached_property
    def _of_split(self) -> dict[str, npt.NDArray[np.int64]]:
        splits = self.splits[self.rows]
        return {side: self.rows[splits == side] for side in np.unique(splits).tolist()}

    def row(self, number: int) -> int:
        """The row of the photo that a fake is made of; they come round."""
        return int(self.rows[number % len(self.rows)])

    def facts(self, number: int) -> dict[str, Any]:
        """What the row of a fake takes over from its photo: the person in it, the split, and which it is."""
        row, columns = self.row(number), self.shards.columns
        return {
            "group": str(columns["group"][row]),
            "origin": f"{number} of {columns['origin'][row]}",
            "split": str(columns["split"][row]),
            "parent": str(self._ids[row]),
        }

    @cached_property
    def _ids(self) -> npt.NDArray[Any]:
        return self.shards.ids()

    def partner(self, number: int, seed: int) -> int:
        """A photo of another group, or another one of the same where there is no other; never the photo itself.

        A copy of it, in whatever group, is the photo itself. It is of the photo's split.
        """
        groups, own = self.shards.columns["group"], self.row(number)
        rows = self._of_split[str(self.splits[own])]
        stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, number]))
        start = int(stream.integers(len(rows)))
        same_group = -1
        for step in range(len(rows)):
            row = int(rows[(start + step) % len(rows)])
            if self._pixels[row] == self._pixels[own]:
                continue
            if groups[row] != groups[own]:
                return row
            same_group = row if same_group < 0 else same_group
        return same_group

    def read(self, numbers: Iterable[int], seed: int) -> tuple[list[Pixels], list[Pixels]]:
        """Photos of these images, and their partners where they are needed: uint8 ``[H, W, 3]`` each."""
        numbers = list(numbers)
        partners = [self.partner(number, seed) for number in numbers] if self.partnered else []
        return self.shards.read_each(map(self.row, numbers)), self.shards.read_each(partners)

    def bytes_of(self, first: int, last: int) -> int:
        """How much images ``first`` to ``last - 1`` take."""
        shapes = self.shards.shapes[[self.row(number) for number in range(first, last)]]
        return int(3 * shapes.prod(axis=1).sum())

    def seen(self, split: str | None) -> Seen:
        """What fakes of these photos have seen. Where they are of all splits, rows to test on are for tests alone, and
        so are the fakes made of them: who learns from the others has seen the others."""
        if split is not None:
            return Seen.of(self.shards, self.rows)
        train, val = (self._of_split.get(side, self.rows[:0]) for side in ("train", "val"))
        return Seen.of(self.shards, train) | Seen.of(self.shards, val, "validated on")
