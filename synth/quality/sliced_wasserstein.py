"""Sliced Wasserstein distance between image patches, one figure per scale: needs no trained network.

Karras et al. 2018, "Progressive growing of GANs", section 5: patches of 7×7 pixels from each level of a Laplacian
pyramid (Burt and Adelson 1983), each set normalised per colour channel, compared along random directions
(Rabin et al. 2011). The finest level tells of sharpness and noise, the coarsest of large shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH, PATCHES_PER_IMAGE, DIRECTIONS, COARSEST = 7, 128, 512, 16
IMAGES = 16_384  # per side in the paper: 2²¹ patches per level

# Cumulative histograms instead of sorted projections: 16 MB per level whatever the number of patches, and
# several times quicker. A patch has variance 1, and |F - G| hardly changes over a bin of 1/256.
_BINS, _REACH = 16_384, 32.0
_FLAT = 0.1  # of 255: a channel that varies less has nothing to normalise


def levels(size: int) -> list[int]:
    """Sizes of the pyramid's levels, finest first; empty unless ``size`` is a power of two from 16.

    Example:
        >>> levels(64), levels(100)
        ([64, 32, 16], [])
    """
    if size < COARSEST or size & (size - 1):
        return []
    return [size >> k for k in range(size.bit_length()) if size >> k >= COARSEST]


def sliced_wasserstein(
    real: Iterable[Tensor], fake: Iterable[Tensor], size: int, device: torch.device, seed: int = 0
) -> dict[int, tuple[float, float]]:
    """Mean Wasserstein-1 distance along 512 random directions, per level, times 1000 as in the paper.

    Args:
        real, fake: batches of uint8 ``[B, 3, size, size]``; each is gone through twice. As with any distance
            between samples, fewer images give a larger figure: compare only figures of like numbers.
        size: a power of two from 16.
        device: where it is computed.
        seed: of the patch positions and the directions.

    Returns:
        Size of the level -> (distance, standard error over the directions).
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(DIRECTIONS, 3 * PATCH**2, generator=generator)
    directions = (directions / directions.norm(dim=1, keepdim=True)).to(device)
    a, b = (
        _distributions(batches, size, directions, seed + side) for side, batches in enumerate((real, fake))
    )
    distances = {level: (a[level] - b[level]).abs().sum(1) * (2 * _REACH / _BINS) * 1e3 for level in a}
    return {
        level: (float(each.mean()), float(each.std() / DIRECTIONS**0.5)) for level, each in distances.items()
    }


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """float32 ``[B, 3, H, H]`` -> what each scale adds to the next coarser one, finest first; the last is the
    16×16 image itself."""
    pyramid = [images]
    while pyramid[-1].shape[-1] > COARSEST:
        coarse = _blur(pyramid[-1])[:, :, ::2, ::2]
        pyramid[-1] = pyramid[-1] - _enlarge(coarse)
        pyramid.append(coarse)
    return pyramid


def _blur(images: Tensor, gain: float = 1.0) -> Tensor:
    """The 5-tap binomial along both axes, mirrored at the border."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16 * gain**0.5
    channels = images.shape[1]
    kernel = taps.expand(channels, 1, 5)
    images = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel[:, :, None], groups=channels)
    return F.conv2d(images, kernel[..., None], groups=channels)


def _enlarge(images: Tensor) -> Tensor:
    """Twice the size: zeros in between, then blurred with four times the gain."""
    count, channels, height, width = images.shape
    sparse = images.new_zeros(count, channels, 2 * height, 2 * width)
    sparse[:, :, ::2, ::2] = images
    return _blur(sparse, gain=4.0)


def _patches(batches: Iterable[Tensor], device: torch.device, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Level and its random patches, float32 ``[B·128, 3, 49]``, level by level for each batch."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        rows = torch.arange(len(batch))[:, None]
        for scale in laplacian_pyramid(batch.to(device).float()):
            size = scale.shape[-1]
            place = torch.randint(size - PATCH + 1, (2, len(batch), PATCHES_PER_IMAGE), generator=generator)
            windows = scale.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
            yield size, windows[rows, :, place[0], place[1]].flatten(0, 1).flatten(2)


def _distributions(batches: Iterable[Tensor], size: int, directions: Tensor, seed: int) -> dict[int, Tensor]:
    """Level -> distribution function of the patches along each direction, float64 ``[512, bins]``.

    Normalising needs the mean and deviation of all patches, so they are drawn twice from the same seed.
    """
    device = directions.device
    sums = {level: torch.zeros(3, 3, dtype=torch.float64, device=device) for level in levels(size)}
    for level, patches in _patches(batches, device, seed):
        total, squares = (x.sum((0, 2), dtype=torch.float64) for x in (patches, patches.square()))
        sums[level] += torch.stack([torch.full_like(total, len(patches) * PATCH**2), total, squares])
    norms = {}
    for level, (count, total, squares) in sums.items():
        mean = total / count
        deviation = (squares / count - mean**2).clamp(min=0).sqrt()
        norms[level] = mean.float(), deviation.where(deviation > _FLAT, 1.0).float()

    counts = {level: torch.zeros(DIRECTIONS * _BINS, dtype=torch.int32, device=device) for level in sums}
    start = torch.arange(DIRECTIONS, device=device)[:, None] * _BINS
    one = torch.ones(1, dtype=torch.int32, device=device)
    for level, patches in _patches(batches, device, seed):
        mean, deviation = norms[level]
        normal = (patches - mean[:, None]) / deviation[:, None]
        bins = (directions @ normal.flatten(1).T).add_(_REACH).mul_(_BINS / (2 * _REACH)).long()
        places = bins.clamp_(0, _BINS - 1).add_(start).flatten()
        counts[level].scatter_add_(0, places, one.expand(len(places)))
    return {
        level: each.view(DIRECTIONS, _BINS).cumsum(1).double() / (float(sums[level][0, 0]) / PATCH**2)
        for level, each in counts.items()
    }
