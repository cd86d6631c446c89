"""Generator families. Adding one is one module: two networks, a recipe, a registration.

The contract of a generator: ``Generator(size, channels)`` has ``size`` and ``randoms``; called with Gaussian
vectors ``[B, randoms]``, a truncation ``psi`` and a ``dtype`` for its convolutions it returns float32
``[B, 3, size, size]`` with black at -1 and white at 1. The vector holds *everything* random about an image.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from crossfake.errors import UserError
from crossfake.registry import Registry


@dataclass(frozen=True)
class Recipe:
    """How a family is trained.

    Attributes:
        lr: Adam's step size, for both networks.
        betas: Adam's decay rates.
        r1_every: R1 is applied every so many steps, times this number; 0 is never.
        ema_kimg: half-life in thousand images of the averaged generator; 0 keeps no average.
        mixing: share of images made of two styles.
    """

    lr: float
    betas: tuple[float, float]
    r1_every: int
    ema_kimg: float
    mixing: float


@dataclass(frozen=True)
class Family:
    """One kind of generator; ``channels_*`` are the default widths on a CPU and on a GPU."""

    generator: type[nn.Module]
    discriminator: type[nn.Module]
    summary: str
    recipe: Recipe
    channels_cpu: int
    channels_gpu: int


def log2_size(size: int) -> int:
    """log2 of an image size; anything but a power of two from 16 to 1024 is a ``UserError``."""
    if size not in (16, 32, 64, 128, 256, 512, 1024):
        raise UserError(
            f"generators make images of 16, 32, … 1024 pixels, not {size}", mend="prepare with such a --size"
        )
    return size.bit_length() - 1


FAMILIES: Registry[Family] = Registry("family")

from crossfake.synth.families import dcgan, stylegan2  # noqa: E402, F401  (they register themselves)
