"""What of an image a network sees: all of it, resampled to one size (``aligned``), or windows of its own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from crossfake.bounds import WindowCount, WindowSide, check_bounds
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.options import PixelKind
from crossfake.pages import plural

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of several images, one image after the other.

    Attributes:
        images: uint8 ``[M, S, S, 3]``.
        counts: ``[N]``, how many of them each image has; at least one.

    Example:
        >>> two = Windows(np.zeros((3, 8, 8, 3), np.uint8), np.array([1, 2]))
        >>> len(two), two.mean(np.array([1.0, 2.0, 4.0])).tolist()
        (2, [1.0, 3.0])
    """

    images: Pixels
    counts: Indices

    @classmethod
    def join(cls, parts: Sequence[Windows]) -> Windows:
        """Those of several sets, one after the other; all windows must have one size."""
        return cls(np.concatenate([p.images for p in parts]), np.concatenate([p.counts for p in parts]))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: slice) -> Windows:
        """Those of consecutive images."""
        start, stop, _ = rows.indices(len(self))
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        return Windows(self.images[ends[start] : ends[max(start, stop)]], self.counts[start:stop])

    def mean(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of ``[M, ...]``, one value per window, the mean of each image ``[N, ...]``."""
        if not len(self):
            return values[:0]
        starts = np.cumsum(self.counts) - self.counts
        counts = self.counts.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
        mean: npt.NDArray[Any] = np.add.reduceat(values, starts, axis=0) / counts
        return mean

    def error(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Standard error of each image's mean ``[N]`` of values ``[M]``; 0 where there is one window."""
        apart = (values - np.repeat(self.mean(values), self.counts)) ** 2
        freedom = np.maximum(1, self.counts - 1)
        spread: npt.NDArray[np.float64] = np.sqrt(self.mean(apart) / freedom)
        return spread


Images = Pixels | Sequence[Pixels] | Windows
"""Crops: ``[N, S, S, 3]`` of one size, a list of ``[H, W, 3]`` of any, or windows that were cut already."""


@dataclass(frozen=True)
class View:
    """What a detector sees of an image.

    Attributes:
        pixels: ``aligned``: all of it, resampled to the network's size. ``native``: windows, never resampled.
        window: side of a window.
        windows: of each image when it is judged, as far as they differ.
    """

    pixels: str = "aligned"
    window: WindowSide = 128
    windows: WindowCount = 5

    def __post_init__(self) -> None:
        if self.pixels not in get_args(PixelKind):
            raise UserError(
                f"there is no view {self.pixels!r}", hint=f"choose one of {', '.join(get_args(PixelKind))}"
            )
        check_bounds(self)

    @property
    def native(self) -> bool:
        """Whether pixels are as the camera or generator left them."""
        return self.pixels == "native"

    @property
    def whole(self) -> bool:
        """Whether it is of a detector made elsewhere; see :class:`crossfake.detect.whole.Whole`."""
        return False

    def describe(self) -> dict[str, Any]:
        """As a bundle's card has it."""
        return asdict(self)

    @classmethod
    def of_card(cls, card: dict[str, Any]) -> View:
        """Of a bundle; those made before there were views are aligned.

        Raises:
            UserError: it is no view.
        """
        found = card.get("view") or {}
        try:
            if isinstance(found, dict) and found.get("pixels") == "whole":
                from crossfake.detect.whole import Whole

                return Whole(**found)
            return cls(**found)
        except TypeError as error:
            raise UserError(f"a card's view is damaged ({error})", hint="copy the bundle again") from error

    def places(self, shape: Sequence[int], count: int | None = None) -> Indices:
        """Top and left of the windows of an image, ``[K, 2]``: a grid over it, from the middle outwards.

        Args:
            shape: height and width of the image, of which more may follow.
            count: how many windows, :attr:`windows` when None; fewer where they would be the same.

        Raises:
            UserError: the image is smaller than a window.

        Example:
            >>> View("native", 16).places((32, 32), 5).tolist()
            [[8, 8], [0, 8], [8, 0], [8, 16], [16, 8]]
        """
        room = np.array(shape[:2], np.int64) - self.window
        if room.min() < 0:
            raise UserError(
                f"an image of {shape[0]}×{shape[1]} is smaller than the window of {self.window}",
                hint="take a larger image: none is enlarged",
            )
        count = self.windows if count is None else count
        grid = np.round(_grid(count) * room).astype(np.int64)
        if room.min() >= count:  # then no two of them can be the same
            return grid[:count]
        first = np.sort(np.unique(grid, axis=0, return_index=True)[1])
        return grid[first][:count]

    def cut(self, images: Sequence[Pixels], count: int | None = None) -> Windows:
        """The windows of images uint8 ``[H, W, 3]``.

        Raises:
            UserError: one is smaller than a window, or no uint8 image.
        """
        parts, size = [np.empty((0, self.window, self.window, 3), np.uint8)], self.window
        counts = []
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise UserError(
                    f"the detector takes uint8 images [H, W, 3], not {image.dtype} {image.shape}",
                    hint="prepare them with --pixels native",
                )
            places = self.places(image.shape, count)
            counts.append(len(places))
            parts.append(np.stack([image[y : y + size, x : x + size] for y, x in places]))
        return Windows(np.concatenate(parts), np.array(counts, np.int64))

    def read(
        self, shards: ShardSet, rows: Indices, count: int | None = None
    ) -> tuple[Pixels | Windows, Indices, list[str]]:
        """What a network sees of a set's rows, the rows that are not damaged, and what is wrong with the others."""
        if not self.native:
            return shards.read_whole(rows)
        parts = [Windows(np.empty((0, self.window, self.window, 3), np.uint8), np.empty(0, np.int64))]
        whole: list[int] = []
        damaged: list[str] = []
        for row in map(int, rows):
            places = self.places(shards.shapes[row].tolist(), count)
            try:
                images = [shards.window(row, int(y), int(x), self.window) for y, x in places]
            except UserError as error:
                damaged.append(error.message)
                continue
            parts.append(Windows(np.stack(images), np.array([len(images)])))
            whole.append(row)
        return Windows.join(parts), np.array(whole, np.int64), damaged

    def turned(self, images: Sequence[Pixels], shards: ShardSet) -> Sequence[Pixels]:
        """Images of a set's rows, as read or changed since, as :meth:`cut` takes them: here the same."""
        return images

    def check(self, shards: ShardSet, rows: Indices | None = None) -> None:
        """Raise ``UserError`` unless a set's images, or these rows of it, can be seen this way."""
        if not self.native:
            if shards.native:
                raise UserError(
                    f"{shards.path} holds native pixels, which an aligned view does not take",
                    hint="prepare it with --size, or train with --view native",
                )
            return
        if not shards.native:
            raise UserError(
                f"the images of {shards.path} were resized: a native view needs their own pixels",
                hint="prepare it with --pixels native, or train with --view aligned",
            )
        shapes = shards.shapes if rows is None else shards.shapes[rows]
        if small := int((shapes.min(axis=1) < self.window).sum()):
            raise UserError(
                f"{plural(small, 'image')} of {shards.path} {'is' if small == 1 else 'are'} smaller than the window "
                f"of {self.window}",
                hint=f"prepare it with --min-size {self.window}, or train with a smaller --window",
            )


ALIGNED = View()


@cache
def _grid(count: int) -> npt.NDArray[np.float64]:
    """Places of at least ``count`` windows as shares of the room that they have, ``[K, 2]``, the middle first."""
    side = int(np.ceil(np.sqrt(count))) | 1  # odd, so that one of them is in the middle
    shares = np.array([0.5]) if side == 1 else np.linspace(0, 1, side)
    places = np.stack([np.repeat(shares, side), np.tile(shares, side)], axis=1)
    return places[np.argsort(np.round(((places - 0.5) ** 2).sum(1), 9), kind="stable")]


def joined(parts: Sequence[Pixels | Windows]) -> Pixels | Windows:
    """Parts of one kind as one."""
    windows = [part for part in parts if isinstance(part, Windows)]
    return (
        Windows.join(windows) if windows else np.concatenate([p for p in parts if not isinstance(p, Windows)])
    )
