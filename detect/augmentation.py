"""Flip, blur and real JPEG (Wang et al. 2020, sec. 4.1), drawn without looking at the label.

Without them a detector learns how its training files were saved rather than how its fakes were made.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_MAX_SIGMA = 3.0 / 224  # Wang et al.'s strongest blur, as a share of their picture
_QUALITY = (30, 100)


def augment(images: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: uint8 ``[B, 3, H, W]`` on the CPU.
        probability: of blur, and of JPEG, for each image; half of all images are mirrored in any case.
        rng: everything random is drawn from it, the same number of draws whatever the outcome.

    Returns:
        uint8 ``[B, 3, H, W]``.
    """
    batch = len(images)
    flips = torch.from_numpy(rng.random(batch) < 0.5)
    blurred, sigma = rng.random(batch) < probability, rng.random(batch)
    compressed, quality = rng.random(batch) < probability, rng.integers(_QUALITY[0], _QUALITY[1] + 1, batch)
    images = torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
    if blurred.any():
        images[torch.from_numpy(blurred)] = _blur(images[torch.from_numpy(blurred)], sigma[blurred])
    for index in np.flatnonzero(compressed):
        images[index] = jpeg(images[index], int(quality[index]))
    return images


def _blur(images: Tensor, share: np.ndarray) -> Tensor:
    from kornia.filters import gaussian_blur2d

    strongest = _MAX_SIGMA * images.shape[-1]
    sigma = torch.from_numpy(np.maximum(share * strongest, 0.01)).float()
    width = 2 * math.ceil(3 * strongest) + 1
    blurred = gaussian_blur2d(images.float(), (width, width), torch.stack([sigma, sigma], dim=1))
    return blurred.round_().clamp_(0, 255).to(torch.uint8)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """A real encoder and decoder: differentiable JPEG only resembles them. uint8 ``[3, H, W]`` on the CPU."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
