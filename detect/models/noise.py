"""Noise residuals: fixed ones from steganalysis, and learnt ones from constrained convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.base import MODELS, DetectorNetwork, conv_block, full_precision, pooled

_TRUNCATION = 2.0
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
# Weights along a line, how many directions it is laid in, and the step of the first weight from the centre
_LINES = (((-1, 1), 8, 0), ((1, -2, 1), 4, -1), ((1, -3, 3, -1), 8, -1))
_SQUARE_3 = ((-1, 2, -1), (2, -4, 2), (-1, 2, -1))
_SQUARE_5 = (
    (-1, 2, -2, 2, -1),
    (2, -6, 8, -6, 2),
    (-2, 8, -12, 8, -2),
    (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)


def srm_kernels() -> Tensor:
    """The 30 linear residual filters of the spatial rich model, float32 ``[30, 1, 5, 5]`` (Fridrich & Kodovský 2012,
    fig. 1): differences of first order (8 directions), second (4) and third (8), then EDGE 3×3 and 5×5 (4 each),
    SQUARE 3×3 and 5×5. Each is divided by the weight of its centre, so its sum is 0 and its centre −1."""
    kernels = []
    for weights, directions, first in _LINES:
        for down, right in _DIRECTIONS[:directions]:
            kernel = torch.zeros(5, 5)
            for step, weight in enumerate(weights, first):
                kernel[2 + step * down, 2 + step * right] = weight
            kernels.append(kernel)
    for square in (F.pad(torch.tensor(_SQUARE_3).float(), (1, 1, 1, 1)), torch.tensor(_SQUARE_5).float()):
        edge = square.clone()
        edge[3:] = 0
        kernels += [*(edge.rot90(turns) for turns in range(4)), square]
    stacked = torch.stack(kernels)[:, None]
    return stacked / -stacked[..., 2:3, 2:3]


class ConstrainedConv(nn.Module):
    """5×5 convolutions that predict each pixel from its neighbours and keep the error (Bayar & Stamm 2016, eq. 2).

    The centre of each kernel is −1 and its other weights sum to 1. The weights are projected onto that condition
    at each use, by adding to all alike; the paper divides by the sum, which fails where the sum is near zero.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 5, 5) / 24)
        self.others: Tensor
        others = torch.ones(5, 5)
        others[2, 2] = 0
        self.register_buffer("others", others, persistent=False)

    def kernels(self) -> Tensor:
        """``[outputs, inputs, 5, 5]``, obeying the condition."""
        free = self.weight * self.others
        missing = 1 - free.sum((2, 3), keepdim=True)
        return free + self.others * missing / 24 - (1 - self.others)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to residuals ``[B, maps, H, W]``."""
        return F.conv2d(images, self.kernels(), padding=2)


@MODELS.register("noise")
class Noise(DetectorNetwork):
    """Truncated rich-model residuals of the brightness, and six learnt ones of the colours, through a small CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.srm: Tensor
        self.register_buffer("srm", srm_kernels(), persistent=False)
        self.constrained = ConstrainedConv(3, 6)
        channels = len(self.srm) + 6
        self.network = nn.Sequential(
            nn.BatchNorm2d(channels),
            conv_block(channels, 32),
            conv_block(32, 64, stride=2),
            conv_block(64, 64, stride=2),
            conv_block(64, 128, stride=2),
        )
        self.pool = pooled()
        self.head = nn.Linear(128, 1)

    def residuals(self, images: Tensor) -> Tensor:
        """``[B, 36, H, W]``, float32, in steps of 8-bit brightness; the first 30 within ±2."""
        with full_precision(images):
            levels = images.float() * 255
            fixed = F.conv2d(levels.mean(1, keepdim=True), self.srm, padding=2)
            return torch.cat([fixed.clamp(-_TRUNCATION, _TRUNCATION), self.constrained(levels)], dim=1)

    def features(self, images: Tensor) -> Tensor:
        residuals = self.residuals(images).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.pool(self.network(residuals))
        return features

    @property
    def cam_layer(self) -> nn.Module:
        return self.network[-1]
