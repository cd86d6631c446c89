"""Recipes: what happens to a batch between the shards and the network, uint8 ``[B, H, W, 3]`` all the way.

Nothing is drawn with an eye on the label, and every image takes the same number of random draws whatever comes of
them, so that a recipe can give neither class away.

Example:
    >>> recipe = RECIPES.get("plain")(0.5, 8)
    >>> draws = recipe.draw(np.random.default_rng(0), 4)
    >>> recipe(np.zeros((4, 8, 8, 3), np.uint8), draws).shape
    (4, 8, 8, 3)
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from crossfake.datasets.blending import RANDOMS, Points, aligned_face, faces_of, self_blended
from crossfake.datasets.types import Pixels
from crossfake.detect.training.augmentation import (
    blurred,
    coded,
    cropped,
    mirrored,
    noised,
    resampled,
    rescaled,
    shared,
    window_coded,
)
from crossfake.registry import Registry
from crossfake.weights import find_weights

_SIDE = 224  # of the pictures that Wang et al. train on

Draws = npt.NDArray[np.float64]


class Recipe:
    """One way to prepare batches.

    Args:
        probability: of each change to an image; mirroring is not one of them.
        size: height and width of the images.
        crop: how they were cut out of photos, as shards describe it.

    Attributes:
        n_random: random numbers that an image takes.
        reals_only: fakes are made from the reals of the batch: what is called has reals only, and what comes back is
            these and, after them, as many fakes.
    """

    n_random: ClassVar[int] = 1
    reals_only: ClassVar[bool] = False

    def __init__(self, probability: float, size: int, crop: Mapping[str, Any] | None = None) -> None:
        self.probability, self.size, self.crop = probability, size, crop or {}

    def keep_size(self) -> None:
        """Cut nothing off: the network is made for images of this size."""

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        """All that is random about ``count`` images, ``[count, n_random]``."""
        return rng.random((count, self.n_random))

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        """uint8 ``[B, H, W, 3]``, as the shards have them, to the batch that is trained on: a new array."""
        raise NotImplementedError

    def fakes(self, reals: Pixels, draws: Draws) -> Pixels:
        """The fakes that a recipe of reals makes of uint8 ``[N, H, W, 3]``, before any other change."""
        raise NotImplementedError


RECIPES: Registry[type[Recipe]] = Registry("recipe")


@RECIPES.register("plain")
class Plain(Recipe):
    """Half of the images mirrored, nothing else."""

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        return mirrored(images, draws[:, 0] < 0.5)


@RECIPES.register("wang2020")
class Wang2020(Recipe):
    """Blur and JPEG (Wang et al. 2020, sec. 4.1): sigma 0 to 3, quality 30 to 100, each with the probability.

    Theirs are 0.5, or 0.1 to test how much it matters. Sigma is for pictures of 224 pixels, and less in proportion
    for smaller ones. Of larger ones a square of 224 is cut in training; the network judges them whole, as theirs does.
    """

    n_random = 7
    _cuts: bool = True

    def keep_size(self) -> None:
        self._cuts = False

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        uniform = [rng.random(count) for _ in range(4)]
        quality = rng.integers(30, 101, count).astype(np.float64)
        return np.column_stack([*uniform, quality, rng.random((count, 2))])

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        images = mirrored(images, draws[:, 0] < 0.5)
        strongest = 3.0 * min(images.shape[2], _SIDE) / _SIDE

        def change(image: Pixels, u: Draws) -> Pixels:
            if u[1] < self.probability:
                image = blurred(image, float(u[2]) * strongest, strongest)
            return coded(image, "JPEG", int(u[4])) if u[3] < self.probability else image

        images = _each(images, draws, change)
        return cropped(images, _SIDE, draws[:, 5:7]) if self._cuts and images.shape[2] > _SIDE else images


@RECIPES.register("robust")
class Robust(Recipe):
    """Whatever the web does to pictures: other sizes, noise, JPEG or WebP; or a social network's chain of them.

    Each of the three with the probability, and with half the probability the chain in place of them.
    """

    n_random = 16

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        images = mirrored(images, draws[:, 0] < 0.5)
        return _each(images, draws, self._change)

    def _change(self, image: Pixels, u: Draws) -> Pixels:
        p = self.probability
        if u[1] < p / 2:
            return shared(image, u[2:7])
        if u[7] < p:
            image = resampled(image, 0.4 + 0.6 * float(u[8]), float(u[9]))
        if u[10] < p:
            image = noised(image, 10 * float(u[11]), int(u[12] * 2**32))
        if u[13] < p:
            image = coded(image, "WEBP" if u[14] < 0.5 else "JPEG", 30 + int(u[15] * 71))
        return image


@RECIPES.register("native")
class Native(Recipe):
    """For windows of native pixels: light compression, now and then another scale, and no blur.

    The traces that such windows are looked at for do not survive strong changes. With the probability a window goes
    through JPEG (4:2:0 or 4:4:4) or WebP of quality 70 to 98, in grids that begin anywhere; with a fifth of it, its
    scale is changed before, by 0.8 to 1.25.
    """

    n_random = 11
    _rescaling: ClassVar[float] = 0.2  # as often as this share of the probability
    _scales: ClassVar[tuple[float, float]] = (0.8, 1.25)
    _compression: ClassVar[float] = 1.0
    _qualities: ClassVar[tuple[int, int]] = (70, 98)

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        images = mirrored(images, draws[:, 0] < 0.5)
        return _each(images, draws, self._change)

    def _change(self, image: Pixels, u: Draws) -> Pixels:
        if u[1] < self.probability * self._rescaling:
            image = self._rescaled(image, u[2:6])
        return self._coded(image, u[7:11]) if u[6] < self.probability * self._compression else image

    def _rescaled(self, image: Pixels, u: Draws) -> Pixels:
        low, high = self._scales
        return rescaled(image, low * (high / low) ** float(u[0]), u[1:])

    def _coded(self, image: Pixels, u: Draws) -> Pixels:
        low, high = self._qualities
        codec, subsampling = (("JPEG", 2), ("JPEG", 0), ("WEBP", 2))[min(int(u[0] * 3), 2)]
        return window_coded(image, codec, low + int(u[1] * (high - low + 1)), subsampling, u[2:4])


@RECIPES.register("native-compression")
class NativeCompression(Native):
    """``native`` without other scales."""

    _rescaling = 0.0


@RECIPES.register("native-rescaling")
class NativeRescaling(Native):
    """``native`` without compression, and with scales of 0.6 to 1.5 with the probability."""

    _rescaling = 1.0
    _scales = (0.6, 1.5)
    _compression = 0.0


@RECIPES.register("native-strong")
class NativeStrong(Native):
    """Every window at another scale, 0.6 to 1.5, and through JPEG of quality 50 to 95: twice with the probability."""

    n_random = 12
    _scales = (0.6, 1.5)
    _qualities = (50, 95)

    def _change(self, image: Pixels, u: Draws) -> Pixels:
        image = self._coded(self._rescaled(image, u[1:5]), u[5:8])
        return self._coded(image, u[9:12]) if u[8] < self.probability else image

    def _coded(self, image: Pixels, u: Draws) -> Pixels:
        low, high = self._qualities
        return window_coded(image, "JPEG", low + int(u[0] * (high - low + 1)), 2, u[1:3])


@RECIPES.register("sbi")
class SelfBlended(Wang2020):
    """Reals and self-blended images of them (Shiohara & Yamasaki 2022), side by side in each batch.

    A real and its fake are mirrored, blurred, compressed and cut alike, as theirs are. A window of native pixels shows
    a part of a face, if any: there the mask has a face's shape, and lies where an aligned crop would have one.
    """

    n_random = Wang2020.n_random + RANDOMS
    reals_only = True

    def __init__(self, probability: float, size: int, crop: Mapping[str, Any] | None = None) -> None:
        super().__init__(probability, size, crop)
        self._windows = self.crop.get("pixels") == "native"
        aligned = self.crop.get("policy") == "face" or self._windows
        self._model = None if aligned else find_weights("yunet")
        self._found: dict[int, Points] = {}
        self._one = threading.Lock()  # a face detector serves one thread

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        return np.column_stack([super().draw(rng, count), rng.random((count, RANDOMS))])

    def __call__(self, images: Pixels, draws: Draws) -> Pixels:
        return super().__call__(
            np.concatenate([images, self.fakes(images, draws)]), np.concatenate([draws, draws])
        )

    def fakes(self, reals: Pixels, draws: Draws) -> Pixels:
        u = draws[:, Wang2020.n_random :]
        made = [
            self_blended(real, self._face(real), numbers)[0] for real, numbers in zip(reals, u, strict=True)
        ]
        return np.stack(made)

    def _face(self, image: Pixels) -> Points:
        if self._windows:
            return aligned_face(image.shape[0])
        if self._model is None:
            return faces_of([image], self.crop)[0]
        key = zlib.crc32(image.data if image.flags.c_contiguous else image.tobytes())
        with self._one:
            if key not in self._found:  # a face is looked for once in a training
                self._found[key] = faces_of([image], self.crop, self._model)[0]
            return self._found[key]


def _each(images: Pixels, draws: Draws, change: Callable[[Pixels, Draws], Pixels]) -> Pixels:
    """Change the images of a batch one by one, in place."""
    for image, numbers in zip(images, draws, strict=True):
        changed = change(image, numbers)
        if changed is not image:
            image[:] = changed
    return images
