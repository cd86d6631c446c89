"""Relations of neighbouring pixels (Tan et al. 2024, "Rethinking the up-sampling operations")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.base import IMAGENET, MODELS, DetectorNetwork, Normalise, pooled


def neighbour_residual(images: Tensor) -> Tensor:
    """Each pixel minus the upper left one of its 2×2 block: what up-sampling by two leaves there is small (eq. 2).

    Args:
        images: float ``[B, C, H, W]``.

    Returns:
        The same shape, in the range of a difference.
    """
    height, width = images.shape[-2:]
    corners = images[..., ::2, ::2]
    return images - F.interpolate(corners, scale_factor=2.0, mode="nearest")[..., :height, :width]


class _Bottleneck(nn.Module):
    """ResNet's block of 1×1, 3×3 and 1×1 convolutions around a short cut (He et al. 2016, fig. 5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.layers(maps) + self.shortcut(maps))


@MODELS.register("npr")
class Npr(DetectorNetwork):
    """The residuals, scaled as in the authors' code, through the first two stages of ResNet-50."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise(*IMAGENET)
        self.network = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
            nn.MaxPool2d(3, 2, 1),
            nn.Sequential(_Bottleneck(64, 64, 1), _Bottleneck(256, 64, 1), _Bottleneck(256, 64, 1)),
            nn.Sequential(_Bottleneck(256, 128, 2), *(_Bottleneck(512, 128, 1) for _ in range(3))),
        )
        self.pool = pooled()
        self.head = nn.Linear(512, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        residual = neighbour_residual(self.normalise(images)) * (2 / 3)
        features: Tensor = self.pool(self.network(residual))
        return features

    @property
    def cam_layer(self) -> nn.Module:
        return self.network[-1]
