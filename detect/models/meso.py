"""Meso-4 and MesoInception-4 (Afchar et al. 2018, "MesoNet: a compact facial video forgery detection network")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.base import MODELS, DetectorNetwork, Normalise, check_images, check_size

Triple = Sequence[float]


class _Inception(nn.Module):
    """Four parallel paths: 1×1, and 3×3 with dilation 1, 2 and 3 behind a 1×1 (fig. 5); linear where asked to be."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int], relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.paths = nn.ModuleList([nn.Conv2d(inputs, widths[0], 1)])
        for dilation, width in enumerate(widths[1:], 1):
            self.paths.append(
                nn.Sequential(
                    nn.Conv2d(inputs, width, 1),
                    nn.ReLU() if relu else nn.Identity(),
                    nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                )
            )

    def forward(self, maps: Tensor) -> Tensor:
        found = torch.cat([path(maps) for path in self.paths], dim=1)
        return F.relu(found) if self.relu else found


def _stage(layer: nn.Module, outputs: int, pool: int) -> nn.Sequential:
    # Rounded up, so that small images keep a last map; the same where the paper's 256 pixels divide
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.MaxPool2d(pool, pool, ceil_mode=True))


class _Meso(DetectorNetwork):
    """Four stages, then two dense layers.

    Args:
        size: of the images in pixels.
        stages: the layers of each.
        widths: of each.
        mean: of each channel, for images in [0, 1].
        std: likewise.
    """

    def __init__(
        self, size: int, stages: list[nn.Module], widths: tuple[int, ...], mean: Triple, std: Triple
    ) -> None:
        super().__init__()
        self.size = check_size(size)
        self.options = {"size": size}
        self.normalise: Normalise | None = None
        if (tuple(mean), tuple(std)) != ((0, 0, 0), (1, 1, 1)):
            self.normalise = Normalise(tuple(mean), tuple(std))
            self.options |= {"mean": [*mean], "std": [*std]}
        self.network = nn.Sequential(
            *(
                _stage(layer, width, pool)
                for layer, width, pool in zip(stages, widths, (2, 2, 2, 4), strict=True)
            )
        )
        side = -(-size // 32)
        self.dense = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(widths[-1] * side * side, 16), nn.LeakyReLU(0.1)
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 1))

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.size)
        images = self.normalise(images) if self.normalise else images
        images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.dense(self.network(images))
        return features

    @property
    def cam_layer(self) -> nn.Module:
        return self.network[-1].get_submodule("1")


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())


@MODELS.register("meso")
class MesoInception(_Meso):
    """Two inception layers, two 5×5 convolutions, two dense layers; 29 thousand parameters at 256 pixels.

    Args:
        size: of the images in pixels.
        mean: of each channel, for images in [0, 1].
        std: likewise.
        relu: as in the paper; without, the inception layers are linear, as DeepfakeBench has them.
    """

    def __init__(
        self, *, size: int = 256, relu: bool = True, mean: Triple = (0, 0, 0), std: Triple = (1, 1, 1)
    ) -> None:
        stages: list[nn.Module] = [
            _Inception(3, (1, 4, 4, 2), relu),
            _Inception(11, (2, 4, 4, 2), relu),
            _conv(12, 16, 5),
            _conv(16, 16, 5),
        ]
        super().__init__(size, stages, (11, 12, 16, 16), mean, std)
        if not relu:
            self.options["relu"] = False


@MODELS.register("meso4")
class Meso4(_Meso):
    """A 3×3 and three 5×5 convolutions, two dense layers; 28 thousand parameters at 256 pixels.

    Args:
        size: of the images in pixels.
    """

    def __init__(self, *, size: int = 256, mean: Triple = (0, 0, 0), std: Triple = (1, 1, 1)) -> None:
        stages: list[nn.Module] = [_conv(3, 8, 3), _conv(8, 8, 5), _conv(8, 16, 5), _conv(16, 16, 5)]
        super().__init__(size, stages, (8, 8, 16, 16), mean, std)
