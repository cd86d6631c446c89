"""Shards as a torch data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.pages import plural


class ShardDataset(Dataset[tuple[Tensor, int, int]]):
    """Rows of one or more shard folders, map-style, safe with workers under fork and spawn.

    Args:
        folders: a shard folder or several; all must hold images of one size, or all be native.
        split: keep only rows of this split (or of these).
        label: keep only reals (0) or fakes (1).
        window: of native rows, side of the square that is read at a random place of each.
        seed: of the places; they are drawn anew for every epoch, see :meth:`set_epoch`.

    Items are ``(image uint8 [3, H, W], label, position)``. :meth:`batch` reads many at once.

    Raises:
        UserError: no row is left, the sizes differ, or rows are smaller than the window.

    Example:
        >>> dataset = ShardDataset("faces", split="train")  # doctest: +SKIP
        >>> dataset.batch([0, 5, 2]).shape  # doctest: +SKIP
        torch.Size([3, 3, 64, 64])
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        split: str | Sequence[str] | None = None,
        label: int | None = None,
        window: int | None = None,
        seed: int = 0,
    ) -> None:
        self.sets = [ShardSet(f) for f in ([folders] if isinstance(folders, str | Path) else folders)]
        self.window, self.seed = window, seed
        self._drawn: tuple[int, npt.NDArray[np.float64]] | None = None
        shared: Any = torch.zeros((), dtype=torch.int64)
        self._epoch: Tensor = shared.share_memory_()  # workers that live on see it change
        self.size = window or self._one_size()
        chosen = [shards.select(split=split, label=label) for shards in self.sets]
        self._set = np.repeat(np.arange(len(self.sets)), [len(rows) for rows in chosen])
        self._row = np.concatenate(chosen)
        self._labels = self.column("label")
        if not len(self._row):
            wanted = f"split {split!r}" if split else "such"
            raise UserError(
                f"{', '.join(str(s.path) for s in self.sets)} has no {wanted} images",
                hint="prepare with --split",
            )
        if window:
            self._check_window(window)

    def _one_size(self) -> int:
        sizes = {shards.size for shards in self.sets}
        if len(sizes) > 1 or None in sizes:
            named = ", ".join(f"{shards.path} {shards.size or 'any size'}" for shards in self.sets)
            raise UserError(
                f"images of one size are needed, found {named}", hint="prepare all with the same --size"
            )
        return int(sizes.pop() or 0)

    def _check_window(self, window: int) -> None:
        for shards, rows in self.rows():
            if not shards.native:
                raise UserError(
                    f"the images of {shards.path} were resized: windows are of native ones",
                    hint="prepare it with --pixels native",
                )
            small = int((shards.shapes[rows].min(1) < window).sum())
            if small:
                raise UserError(
                    f"{plural(small, 'image')} of {shards.path} {'is' if small == 1 else 'are'} smaller than {window}",
                    hint=f"prepare it with --min-size {window}, or take a smaller window",
                )

    def set_epoch(self, epoch: int) -> None:
        """Draw the windows' places anew, as ``DistributedSampler.set_epoch`` does its order."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._row)

    def rows(self) -> list[tuple[ShardSet, npt.NDArray[np.int64]]]:
        """The folders, and which of their rows these are."""
        return [(shards, self._row[self._set == k]) for k, shards in enumerate(self.sets)]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A shard column (``label``, ``group``, ``generator`` …) of these rows, in order."""
        parts = [shards.columns[name][self._row[self._set == k]] for k, shards in enumerate(self.sets)]
        return np.concatenate(parts)

    def image(self, position: int) -> Pixels:
        """One image, or this epoch's window of it, uint8 ``[H, W, 3]``."""
        shards: ShardSet = self.sets[self._set[position]]
        row = int(self._row[position])
        if not self.window:
            return shards.read(row)
        top, left = (
            self._places(int(self._epoch))[position] * (shards.shapes[row] - self.window + 1)
        ).astype(int)
        return shards.window(row, int(top), int(left), self.window)

    def _places(self, epoch: int) -> npt.NDArray[np.float64]:
        """Where each row's window is, as shares of the room for it, ``[N, 2]``; those of one epoch are kept."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, np.random.default_rng([self.seed, epoch]).random((len(self), 2))
        return self._drawn[1]

    def batch(self, positions: Iterable[int]) -> Tensor:
        """uint8 ``[B, 3, H, W]``, a channels-last view of the pixels as stored: nothing is copied twice."""
        return torch.from_numpy(np.stack([self.image(int(p)) for p in positions])).permute(0, 3, 1, 2)

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list[tuple[Tensor, int, int]]:
        """A DataLoader's whole batch at once."""
        images = self.batch(positions)
        return [(image, int(self._labels[p]), p) for image, p in zip(images, positions, strict=True)]
