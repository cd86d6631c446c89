"""Families that need no network: photos blended with themselves, or with another person's face.

How that is done is in :mod:`crossfake.datasets.blending`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from crossfake.datasets.blending import RANDOMS, Points, Uniform, landmarks, self_blended, swapped
from crossfake.datasets.codecs import Pixels
from crossfake.images import Images
from crossfake.synth.families import FAMILIES, Family, Recipe
from crossfake.weights import find_weights


class Blender(nn.Module):
    """Base of both: finds the faces, and gives each image its own random numbers.

    Args:
        size: height and width.

    Images are made one by one, so each is the same in whatever company.
    """

    randoms = RANDOMS
    needs_photos: ClassVar[bool] = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def edit(self, photos: Images, partners: Images, vectors: Tensor) -> Images:
        """Fakes, uint8 ``[B, size, size, 3]``: of photos, partners and vectors ``[B, 32]``."""
        uniform = torch.special.ndtr(vectors.double().cpu()).numpy()
        model = find_weights("yunet")
        with ThreadPoolExecutor() as pool:
            faces = [[landmarks(photo, model) for photo in side] for side in (photos, partners)]
            made = pool.map(self.one, photos, partners, *faces, uniform)
            return np.stack(list(made))

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        raise NotImplementedError


class SelfBlended(Blender):
    """Self-blended images (Shiohara & Yamasaki 2022)."""

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        return self_blended(photo, face, u)[0]


class Swapped(Blender):
    """Face swaps: landmark warp, colour transfer, Poisson blending."""

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        return swapped(photo, partner, face, other, u)[0]


def _register(name: str, generator: type[Blender], summary: str) -> None:
    FAMILIES.register(name)(Family(generator=generator, summary=summary, learner=None, recipe=Recipe(lr=0.0)))


_register("blend", SelfBlended, "Self-blended photos, without a network (--photos).")
_register("swap", Swapped, "Faces of one photo in another, without a network (--photos).")
