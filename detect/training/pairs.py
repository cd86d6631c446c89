"""Fakes beside the reals that they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crossfake.errors import UserError

if TYPE_CHECKING:
    from crossfake.detect.training.sampling import Place, Stratum


class Pairs:
    """Which real each fake was made of: what the shards' ``parent`` says.

    Args:
        reals: strata of reals.
        fakes: strata of fakes.

    Raises:
        UserError: no fake has its parent among these reals.
    """

    def __init__(self, reals: Sequence[Stratum], fakes: Sequence[Stratum]) -> None:
        self.reals = reals
        known = {
            name: (number, position)
            for number, stratum in enumerate(reals)
            for position, name in enumerate(stratum.column("ids").tolist())
        }
        self._parents = {
            id(stratum): {
                position: known[name]
                for position, name in enumerate(stratum.column("parent").tolist())
                if name in known
            }
            for stratum in fakes
        }
        if not any(self._parents.values()):
            raise UserError(
                "none of the fakes was made of one of the reals that are trained on: there are no pairs",
                hint="make some with 'synth generate --photos' of these reals, or leave --pair out",
            )
        self._children: dict[tuple[int, int], list[int]] = {}
        for stratum, parents in self._parents.items():
            for position, (number, _) in parents.items():
                self._children.setdefault((stratum, number), []).append(position)

    def paired(self, places: Sequence[Place], rng: np.random.Generator, redraw: bool = True) -> list[Place]:
        """A batch in pairs: the first half its reals, the second its fakes.

        Args:
            places: as drawn without pairs, as many reals as fakes.
            rng: for what is drawn anew.
            redraw: take a fake of the same stratum whose parent is in the stratum of the real that was drawn, so that
                sources of reals stay balanced; else the fakes stay as they are.
        """
        half = len(places) // 2
        reals, fakes = list(places[:half]), list(places[half:])
        numbers = {id(stratum): number for number, stratum in enumerate(self.reals)}
        for k, (stratum, position) in enumerate(fakes):
            children = self._children.get((id(stratum), numbers[id(reals[k][0])]))
            if redraw and children:
                position = children[int(rng.integers(len(children)))]
                fakes[k] = (stratum, position)
            if parent := self._parents[id(stratum)].get(position):
                reals[k] = (self.reals[parent[0]], parent[1])
        return [*reals, *fakes]
