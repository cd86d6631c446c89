"""Images made elsewhere, by a generator that is not at hand: a pool to take from, and a card that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.splits import NAMES
from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters


class External(nn.Module):
    """Takes images from shards, each once.

    Args:
        shards: the folder; ``synth import`` writes down where it was.
        size: of the images.
        content: hash of the shards when they were imported.

    Raises:
        UserError: they are not there any more, or are others.
    """

    latent_dim = 0

    def __init__(self, shards: str, size: int, content: str) -> None:
        super().__init__()
        self.size, self.pool = size, ShardSet(Path(shards))
        self._chosen: dict[str, npt.NDArray[np.int64]] = {}
        if self.pool.size != size or self.pool.content_hash != content:
            raise UserError(f"{shards} holds other images than when it was imported", hint="import it again")

    def rows(self, split: str = "") -> npt.NDArray[np.int64]:
        """Rows of the fakes of a split, in order; of all of them where the pool is not split, or none is named."""
        if split not in self._chosen:
            fakes = self.pool.select(label=1)
            splits = self.pool.columns["split"][fakes]
            self._chosen[split] = fakes[splits == split] if split and (splits != "").any() else fakes
        return self._chosen[split]

    def take(self, first: int, count: int, split: str = "") -> Images:
        """Fakes number ``first`` to ``first + count - 1``; ``UserError`` when there are not so many."""
        rows = self.rows(split)
        if first + count > len(rows):
            others = [name for name in NAMES if name != split and len(self.rows(name))]
            if not len(rows) and others:
                raise UserError(
                    f"{self.pool.path} has no fakes of split {split}, only of {' and '.join(others)}",
                    hint=f"take those with --split {others[0]}",
                )
            there = f"{len(rows):,} fakes only" + (f", of split {split}" if split else "")
            raise UserError(f"{self.pool.path} has {there}", hint="ask for fewer")
        return self.pool.read_many(rows[first : first + count])


FAMILIES.register("external")(
    Family(
        generator=External,
        summary="Images made elsewhere: 'synth import SHARDS' writes the card.",
        learner=None,
        recipe=Hyperparameters(lr=0.0),
    )
)
