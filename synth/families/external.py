"""Images made elsewhere, by a generator that is not at hand: a pool to take from, and a card that names it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.synth.families import FAMILIES, Family, Recipe


class External(nn.Module):
    """Takes images from shards, each once.

    Args:
        shards: the folder; ``synth import`` writes down where it was.
        size: of the images.

    Raises:
        UserError: they are not there any more, or have another size.
    """

    randoms = 0

    def __init__(self, shards: str, size: int) -> None:
        super().__init__()
        self.size, self._pool = size, ShardSet(Path(shards))
        self._rows = self._pool.select(label=1)
        if self._pool.size != size:
            raise UserError(f"{shards} holds other images than when it was imported", mend="import it again")

    def take(self, first: int, count: int) -> Images:
        """Fakes number ``first`` to ``first + count - 1``; ``UserError`` when there are not so many."""
        if first + count > len(self._rows):
            raise UserError(f"{self._pool.path} has {len(self._rows):,} fakes only", mend="ask for fewer")
        return self._pool.read_many(self._rows[first : first + count])


FAMILIES.register("external")(
    Family(
        generator=External,
        summary="Images made elsewhere: 'synth import SHARDS' writes the card.",
        learner=None,
        recipe=Recipe(lr=0.0),
    )
)
