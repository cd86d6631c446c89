"""What a generator family is. Adding one is one module: a generator, how it learns, a registration; and its line in
``FAMILIES``.

The contract of a generator, ``Generator(**arguments)``:

- ``size``, and ``latent_dim``: how many Gaussian numbers an image takes. They are *everything* random about it.
- Called with vectors ``[B, latent_dim]``, a truncation ``psi``, a ``dtype`` for its convolutions and one-hot ``labels``
  ``[B, classes]`` or None, it returns float32 ``[B, 3, size, size]`` with black at -1 and white at 1.
- Where it can work on photos, it has ``edit(photos, partners, vectors, dtype)``: lists of uint8 ``[H, W, 3]`` to a list
  of the same shapes as the photos. ``partnered`` says that it takes partners, as many others, of other people;
  ``any_size`` that photos may be of any shape. Where it can do nothing else, it is no ``nn.Module`` that is called, and
  ``needs_photos`` is true.

The contract of learning is :class:`crossfake.synth.training.learner.GeneratorLearner`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from crossfake.errors import UserError
from crossfake.registry import Registry
from crossfake.synth.training.learner import GeneratorLearner, Plan


@dataclass(frozen=True)
class Hyperparameters:
    """How a family is trained.

    Attributes:
        lr: Adam's step size, for all networks.
        betas: Adam's decay rates.
        ema_kimg: half-life in thousand images of the averaged generator; 0 keeps no average.
        r1_every: R1 is applied every so many steps, times this number; 0 is never.
        mixing: share of images made of two styles.
        noise: whether the layers of a style generator get noise.
        path_weight: of path-length regularisation.
        gamma: of the gradient penalty; None is 0.0002 · size² / batch (Karras et al. 2020b).
    """

    lr: float
    betas: tuple[float, float] = (0.0, 0.99)
    ema_kimg: float = 10.0
    r1_every: int = 0
    mixing: float = 0.0
    noise: bool = True
    path_weight: float = 0.0
    gamma: float | None = None


def plain_arguments(plan: Plan) -> dict[str, Any]:
    """What networks are made with, where a family needs nothing else."""
    return {"size": plan.size, "channels": plan.channels, "classes": plan.classes}


@dataclass(frozen=True)
class Family:
    """One kind of generator.

    Attributes:
        generator: its network, called with what ``arguments`` gives.
        summary: one line.
        learner: how it learns; None when there is nothing to learn.
        recipe: numbers of that.
        recipe_cpu: those on a CPU, where a training sees few images; None where they are the same.
        discriminator: called with the same arguments; None for a family without one.
        channels_cpu: default width on a CPU.
        channels_gpu: on a GPU.
        batch_cpu: default batch on a CPU.
        conditional: whether it can be trained with classes.
        windows: whether it can learn from windows of native photos.
        arguments: what the networks are built with; kept in the model's card.
    """

    generator: Callable[..., nn.Module]
    summary: str
    learner: Callable[[Plan, int], GeneratorLearner] | None
    recipe: Hyperparameters
    recipe_cpu: Hyperparameters | None = None
    discriminator: Callable[..., nn.Module] | None = None
    channels_cpu: int = 0
    channels_gpu: int = 0
    batch_cpu: int = 16
    conditional: bool = False
    windows: bool = False
    arguments: Callable[[Plan], dict[str, Any]] = plain_arguments


def log2_size(size: int) -> int:
    """log2 of an image size; anything but a power of two from 16 to 1024 is a ``UserError``."""
    if size not in (16, 32, 64, 128, 256, 512, 1024):
        raise UserError(
            f"generators make images of 16, 32, … 1024 pixels, not {size}", hint="prepare with such a --size"
        )
    return size.bit_length() - 1


_HERE = "crossfake.synth.families"
FAMILIES: Registry[Family] = Registry(
    "family",
    {
        "autoencoder": f"{_HERE}.autoencoder",
        "blend": f"{_HERE}.blend",
        "dcgan": f"{_HERE}.dcgan",
        "diffusion": f"{_HERE}.diffusion",
        "external": f"{_HERE}.external",
        "pipeline": f"{_HERE}.pipeline",
        "r3gan": f"{_HERE}.r3gan",
        "reconstruct": f"{_HERE}.reconstruct",
        "stylegan2": f"{_HERE}.stylegan2",
        "stylegan3": f"{_HERE}.stylegan3",
        "stylegan3-r": f"{_HERE}.stylegan3",
        "swap": f"{_HERE}.blend",
    },
)
