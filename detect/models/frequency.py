"""The spectrum of an image (Frank et al. 2020, "Leveraging frequency analysis for deep fake image recognition")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crossfake.detect.models.base import (
    MODELS,
    DetectorNetwork,
    check_choice,
    check_images,
    check_size,
    conv_block,
    full_precision,
)

# Rounding to 8 bits leaves about 1e-3 in every coefficient: what is below is no trace of anything
_FLOOR = 1e-3


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II as a matrix ``[size, size]``, float32: ``M @ x`` is ``scipy.fft.dct(x, norm="ortho")``."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


@MODELS.register("frequency")
class Frequency(DetectorNetwork):
    """Logarithm of the magnitudes of each channel's DCT, standardised coefficient by coefficient, then a linear
    model or a small CNN. There is no map over the picture: the CNN's is over frequencies.

    Args:
        size: of the images in pixels.
        head: ``linear`` or ``cnn``.
    """

    def __init__(self, *, size: int = 128, head: str = "linear") -> None:
        super().__init__()
        self.size = check_size(size)
        check_choice("head", head, ("linear", "cnn"))
        self.options = {"size": size, "head": head}
        self.matrix: Tensor
        self.register_buffer("matrix", dct_matrix(size), persistent=False)
        # Nothing before it is trained, so its statistics are plain averages over all batches so far
        self.standardise = nn.BatchNorm1d(3 * size * size, eps=1e-6, momentum=None, affine=False)
        self.network = nn.Sequential()
        side, channels = size, 3
        if head == "cnn":
            for width in (16, 32, 64):
                self.network.append(conv_block(channels, width, stride=2))
                side, channels = (side + 1) // 2, width
        self.head = nn.Linear(channels * side * side, 1)

    def spectrum(self, images: Tensor) -> Tensor:
        """Log-magnitudes ``[B, 3, size, size]``, float32; mean brightness, from mid-grey, at [0, 0]."""
        check_images(images, self.size)
        with full_precision(images):
            coefficients = self.matrix @ (images.float() - 0.5) @ self.matrix.T
            return torch.log(coefficients.abs() + _FLOOR)

    def features(self, images: Tensor) -> Tensor:
        spectrum = self.spectrum(images)
        with full_precision(images):
            spectrum = self.standardise(spectrum.flatten(1)).view_as(spectrum)
        maps: Tensor = self.network(spectrum)
        return maps.flatten(1)
