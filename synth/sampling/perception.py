"""How far apart two images look: the best network on disk, as features whose squared difference is the distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.synth.families.stylegan2 import Discriminator
from crossfake.synth.quality.features import STAGES, InceptionFeatures
from crossfake.synth.quality.lpips_diversity import SMALLEST, Lpips
from crossfake.synth.sampling.discriminators import load_discriminator
from crossfake.synth.sampling.models import Model
from crossfake.weights import find_weights, locate

_LARGEST = 256  # pixels: what networks of ImageNet see of larger images (Karras et al. 2020a, app. D)
_INCEPTION_SIDE = 96  # pixels: a 16×16 image would not survive its strides
_INCEPTION_DIMS = 192  # features deeper in know what it is, not where


@dataclass(frozen=True)
class Perception:
    """A perceptual distance.

    Attributes:
        name: which one, for people and for results.
        features: images float32 ``[B, 3, H, W]`` in [-1, 1] to float32 ``[B, F]``, with gradients.

    Example:
        >>> pixels = Perception("pixels", pixel_features)
        >>> pixels.distance(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)).tolist()
        [0.0, 0.0]
    """

    name: str
    features: Callable[[Tensor], Tensor]

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """``[B, 3, H, W]`` twice to ``[B]``."""
        return (self.features(a) - self.features(b)).square().sum(dim=1)


def choose_perception(model: Model, net: str = "vgg", weights: Path | None = None) -> Perception:
    """LPIPS where its weights are, else the model's own discriminator, else Inception, else pixels.

    Args:
        model: whose images are compared.
        net: the network of LPIPS that is wanted most.
        weights: its file; others are not looked for then.

    Raises:
        UserError: ``weights`` is not there, or another network.
    """
    nets = [net] if weights else sorted(("vgg", "alex", "squeeze"), key=lambda name: name != net)
    for name in nets:
        if weights or locate(f"lpips-{name}"):
            return Perception(f"LPIPS ({name})", _lpips(name, find_weights(f"lpips-{name}", weights), model))
    discriminator = load_discriminator(model)
    if isinstance(discriminator, Discriminator):
        return Perception("the discriminator's features and pixels", _judged(discriminator, model.dtype))
    if file := locate("inception"):
        return Perception("Inception's features and pixels", _inception(file, model))
    return Perception("pixels and their gradients", pixel_features)


def pixel_features(images: Tensor) -> Tensor:
    """Pixels and their differences to the neighbours, at sizes from 256 down to 4: ``[B, 3, H, W] -> [B, F]``.

    The squared difference is the mean square error of each, averaged over the sizes.
    """
    x, scales = _at_most(images), []
    while True:
        scales.append([x, x.diff(dim=2), x.diff(dim=3)])
        if x.shape[-1] <= 4:
            break
        x = F.avg_pool2d(x, 2)
    flat = [m.flatten(1) / math.sqrt(m[0].numel() * len(scales)) for maps in scales for m in maps]
    return torch.cat(flat, dim=1)


def unit_features(maps: Iterable[Tensor]) -> Tensor:
    """Feature maps ``[B, C, H, W]``, of unit length at each place, as ``[B, F]``.

    The squared difference is LPIPS without calibration (Zhang et al. 2018, eq. 1): summed over channels, averaged over
    places and maps.
    """
    flat = [(_unit(m) / math.sqrt(m[0, 0].numel())).flatten(1) for m in maps]
    return torch.cat(flat, dim=1) / math.sqrt(len(flat))


def _unit(maps: Tensor) -> Tensor:
    maps = maps.float()
    return maps * (maps.square().sum(dim=1, keepdim=True) + 1e-10).rsqrt()


def _at_most(images: Tensor, side: int = _LARGEST) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="area") if images.shape[-1] > side else images


def _at_least(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] >= side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def _lpips(net: str, file: Path, model: Model) -> Callable[[Tensor], Tensor]:
    """LPIPS v0.1 as features: those of the image to be found are computed once, not at every step."""
    network = Lpips(net, file, model.device).model
    gains = [head.model[-1].weight.clamp(min=0).sqrt() for head in network.lins]

    def features(images: Tensor) -> Tensor:
        x = network.scaling_layer(_at_least(_at_most(images), SMALLEST))
        with torch.autocast(x.device.type, model.dtype, enabled=model.dtype is not torch.float32):
            maps = network.net(x)
        weighted = [_unit(m) * gain / math.sqrt(m[0, 0].numel()) for m, gain in zip(maps, gains, strict=True)]
        return torch.cat([m.flatten(1) for m in weighted], dim=1)

    return features


def _judged(discriminator: Discriminator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def features(images: Tensor) -> Tensor:
        x = discriminator.from_rgb(images.to(dtype, memory_format=torch.channels_last))
        maps = [x]
        for block in discriminator.blocks.values():
            maps.append(block(maps[-1]))
        return torch.cat([unit_features(maps), pixel_features(images)], dim=1)

    return features


def _inception(file: Path, model: Model) -> Callable[[Tensor], Tensor]:
    network = InceptionFeatures(
        file, _INCEPTION_DIMS, model.device, "fp32" if model.dtype is torch.float32 else "bf16"
    )
    kept = [
        k
        for k, name in enumerate(n for dim in STAGES if dim <= _INCEPTION_DIMS for n in STAGES[dim])
        if not name.startswith("maxpool")
    ]

    def features(images: Tensor) -> Tensor:
        x = _at_least(_at_most(images), _INCEPTION_SIDE).to(network.dtype, memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for k, stage in enumerate(network.stages):
            x = stage(x)
            if k in kept:
                maps.append(x)
        return torch.cat([unit_features(maps), pixel_features(images)], dim=1)

    return features
