"""What the page asks of trained generators. ``detect`` imports no ``synth``: whoever serves hands one of these in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from crossfake.images import Images


class Generators(Protocol):
    """Trained generators by name. Its methods may be called from several threads.

    All raise :class:`crossfake.errors.UserError` for what a user can mend: an unknown name, a damaged model, a
    generator that cannot do what is asked.
    """

    def names(self) -> list[str]:
        """Those that can make pictures of their own, the newest first."""

    def layers(self, name: str) -> tuple[str, ...]:
        """Groups of styles that can be mixed, such as ``coarse``; none for a generator without styles."""

    def sample(self, name: str, seeds: Sequence[int], psi: float) -> Images:
        """A picture for every seed, uint8 ``[N, S, S, 3]``."""

    def interpolate(self, name: str, seeds: Sequence[int], psi: float, steps: int) -> Images:
        """The looped walk through the seeds, ``steps`` pictures from one to the next: uint8 ``[N·steps, S, S, 3]``."""

    def mix(self, name: str, rows: Sequence[int], columns: Sequence[int], layers: str, psi: float) -> Images:
        """A captioned sheet uint8 ``[H, W, 3]``: every row's picture with some styles of every column's."""
