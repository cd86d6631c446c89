"""What every detector network is: :class:`DetectorNetwork`, and the parts that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.errors import UserError
from crossfake.registry import Registry

MODELS: Registry[Callable[..., DetectorNetwork]] = Registry(
    "model",
    {
        "clip_probe": "crossfake.detect.models.clip_probe",
        "cnn": "crossfake.detect.models.cnn",
        "ensemble": "crossfake.detect.models.ensemble",
        "frequency": "crossfake.detect.models.frequency",
        "meso": "crossfake.detect.models.meso",
        "meso4": "crossfake.detect.models.meso",
        "noise": "crossfake.detect.models.noise",
        "npr": "crossfake.detect.models.npr",
        "published": "crossfake.detect.models.published",
        "squeezenet": "crossfake.detect.models.squeezenet",
    },
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALLEST, LARGEST = 16, 4096


class DetectorNetwork(nn.Module):
    """A network from images to one logit each.

    A subclass builds ``head`` and says what ``features`` are. It registers its parts in the order that the image
    passes them, the head last. The keyword arguments of its constructor are its options.

    Attributes:
        name: what :func:`create_model` knows it by.
        options: what :func:`create_model` needs besides to build it again; JSON can hold them. ``size`` is among them
            where a model is for images of one size only.
        head: from features to logits ``[B, 1]``.
    """

    name: str = ""
    head: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B]``, float32, positive for fakes, of float images ``[B, 3, H, W]`` in [0, 1]."""
        return self.logits(self.features(images))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[B]`` of features ``[B, F]``, never in bfloat16: it would leave a few values, and ties, of many."""
        with full_precision(features):
            logits: Tensor = self.head(features.float())
        return logits.squeeze(1)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees, ``[B, F]``."""
        raise NotImplementedError

    @property
    def cam_layer(self) -> nn.Module | None:
        """The module whose output is the last spatial map, ``[B, C, h, w]``; None where there is none."""
        return None

    @property
    def backbone(self) -> nn.Module:
        """The part that published weights are for."""
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters in groups from the image to the head, each once. Those that are never trained are left out."""
        return split_stages(self)


def split_stages(module: nn.Module) -> list[list[nn.Parameter]]:
    """One group per child, in order of registration; a sequence is one group per layer."""
    groups = []
    for child in module.children():
        for layer in child if isinstance(child, nn.Sequential) else [child]:
            if parameters := list(layer.parameters()):
                groups.append(parameters)
    return groups


class Normalise(nn.Module):
    """(images − mean) / std, channels last. Part of each network, so that callers never need to know it."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in [0, 1] to what the network was trained on."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class PositiveHead(nn.Linear):
    """A linear layer on features cut at zero, with no negative weight: only what is there can speak for a fake
    (Rajan & Lee 2025, "Stay-Positive").

    Weights that a step made negative are set to zero before the next, as in the paper.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``[B, features] -> [B, 1]``."""
        # clamped in place: through clamp() a weight of zero would never get a gradient again
        if self.training:
            with torch.no_grad():
                self.weight.clamp_(min=0)
        weight = self.weight if self.training else self.weight.clamp(min=0)
        return F.linear(F.relu(features), weight, self.bias)


def linear_head(width: int, kind: str) -> nn.Linear:
    """From features ``[B, width]`` to logits ``[B, 1]``: ``linear`` or ``positive``."""
    return PositiveHead(width, 1) if kind == "positive" else nn.Linear(width, 1)


def full_precision(images: Tensor) -> torch.autocast:
    """Context in which autocast is off: for differences of nearly equal numbers, which bfloat16 cannot hold."""
    return torch.autocast(images.device.type, enabled=False)


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def pooled() -> nn.Sequential:
    """From a map ``[B, C, h, w]`` to its mean ``[B, C]``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def check_size(size: object) -> int:
    """The option ``size`` in pixels.

    Raises:
        UserError: it is no whole number in reach.
    """
    if not isinstance(size, int) or isinstance(size, bool) or not SMALLEST <= size <= LARGEST:
        raise UserError(
            f"a model cannot be built for images of {size!r} pixels",
            hint=f"give a size from {SMALLEST} to {LARGEST}",
        )
    return size


def check_images(images: Tensor, size: int) -> None:
    """Raise ``UserError`` if a network that was built for one size gets another."""
    if images.shape[-2:] != (size, size):
        height, width = images.shape[-2:]
        raise UserError(
            f"the model was built for images of {size}×{size}, not {height}×{width}",
            hint=f"build it with options={{'size': {height}}}",
        )


def unfit(images: Tensor, name: str) -> UserError:
    """The error for images that a network halves to nothing, or to maps that no longer match."""
    return UserError(
        f"{name} cannot take images of {images.shape[-2]}×{images.shape[-1]}",
        hint="prepare larger ones, best a multiple of 32 in size, or choose another model",
    )


def check_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``UserError`` unless the value is one of the choices."""
    if value not in choices:
        raise UserError(f"{option} cannot be {value!r}", hint=f"choose one of {', '.join(choices)}")
