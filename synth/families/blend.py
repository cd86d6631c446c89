"""Families that need no network: photos blended with themselves, or with another person's face.

How that is done is in :mod:`crossfake.datasets.blending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossfake.datasets.blending import RANDOMS, Points, Uniform, landmarks, self_blended, swapped
from crossfake.datasets.types import Pixels
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters
from crossfake.weights import find_weights


class Blender(nn.Module):
    """Base of both: finds the faces, and gives each image its own random numbers.

    Args:
        size: height and width; 0 where each photo has its own.

    Images are made one by one, so each is the same in whatever company.
    """

    latent_dim = RANDOMS
    needs_photos: ClassVar[bool] = True
    any_size: ClassVar[bool] = True
    partnered: ClassVar[bool] = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def edit(
        self, photos: Sequence[Pixels], partners: Sequence[Pixels], vectors: Tensor, dtype: torch.dtype
    ) -> list[Pixels]:
        """Fakes, uint8 ``[H, W, 3]`` each, of photos of these shapes, partners and vectors ``[B, 32]``."""
        uniform = torch.special.ndtr(vectors.double().cpu()).numpy()
        model = find_weights("yunet")
        partners = partners if self.partnered else photos
        with ThreadPoolExecutor() as pool:
            faces = [landmarks(photo, model) for photo in photos]
            others = [landmarks(photo, model) for photo in partners] if self.partnered else faces
            return list(pool.map(self.one, photos, partners, faces, others, uniform))

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        """A fake of a photo, uint8 ``[H, W, 3]``, from its face, another with its own, and numbers in [0, 1)."""
        raise NotImplementedError


class SelfBlendedFaces(Blender):
    """Self-blended images (Shiohara & Yamasaki 2022)."""

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        return self_blended(photo, face, u)[0]


class Swapped(Blender):
    """Face swaps: landmark warp, colour transfer, Poisson blending."""

    partnered: ClassVar[bool] = True

    def one(self, photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> Pixels:
        return swapped(photo, partner, face, other, u)[0]


def _register(name: str, generator: type[Blender], summary: str) -> None:
    FAMILIES.register(name)(
        Family(generator=generator, summary=summary, learner=None, recipe=Hyperparameters(lr=0.0))
    )


_register("blend", SelfBlendedFaces, "Self-blended photos, without a network (--photos).")
_register("swap", Swapped, "Faces of one photo in another, without a network (--photos).")
