"""What may happen to a picture between the forger and the detector: blur, noise, other sizes, real JPEG and WebP.

Without such changes a detector learns how its training files were saved rather than how its fakes were made. Recipes
(:mod:`crossfake.detect.training.recipes`) say which of them are drawn, and how often; here each is done to one
picture, since OpenCV blurs the pictures of a batch one by one five times as quickly as a batched convolution on the
CPU does, and
compression is done by real encoders: differentiable JPEG only resembles them.
"""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crossfake.datasets.codecs import Pixels


def mirrored(images: Tensor, which: np.ndarray) -> Tensor:
    """Mirror images ``[B, 3, H, W]`` where ``which``, bool ``[B]``, says so; a new tensor, channels last."""
    pixels = np.array(images.permute(0, 2, 3, 1).numpy(), order="C")
    for number in np.flatnonzero(which):
        pixels[number] = cv2.flip(pixels[number], 1)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def cropped(images: Tensor, size: int, places: np.ndarray) -> Tensor:
    """A square of each image, where two numbers from 0 to 1 say, ``[B, 2]``: uint8 ``[B, 3, size, size]``."""
    room = images.shape[-1] - size + 1
    corners = np.minimum((places * room).astype(int), room - 1)
    return torch.stack(
        [
            image[:, top : top + size, left : left + size]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
    )


def blurred(image: Pixels, sigma: float, strongest: float) -> Pixels:
    """Gaussian blur of uint8 ``[H, W, 3]``.

    Args:
        image: the picture.
        sigma: in pixels.
        strongest: the largest sigma that may be drawn, which fixes the kernel's width.
    """
    width = 2 * math.ceil(3 * strongest) + 1
    # a fixed-point kernel rounds more than it blurs when it is narrow
    soft = cv2.GaussianBlur(
        image.astype(np.float32), (width, width), max(sigma, 0.01), borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(cv2.convertScaleAbs(soft))


def jpeg(image: Tensor, quality: int) -> Tensor:
    """JPEG there and back of uint8 ``[3, H, W]`` on the CPU."""
    return torch.from_numpy(coded(image.permute(1, 2, 0).numpy(), "JPEG", quality)).permute(2, 0, 1)


def coded(image: Pixels, codec: str, quality: int) -> Pixels:
    """uint8 ``[H, W, 3]`` through Pillow's encoder ``JPEG`` or ``WEBP``, and back."""
    buffer = io.BytesIO()
    speed = {"method": 0} if codec == "WEBP" else {}
    Image.fromarray(image).save(buffer, codec, quality=quality, **speed)
    return np.array(Image.open(buffer).convert("RGB"))


def resampled(image: Pixels, share: float, way: float) -> Pixels:
    """Made smaller to ``share`` of its size, and large again; ``way``, 0 to 1, chooses the filters."""
    side = image.shape[0]
    smaller = max(8, min(side, round(side * share)))
    ways = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    down, up = ways[min(int(way * 3), 2)], ways[1 + int(way * 6) % 2]
    small = cv2.resize(image, (smaller, smaller), interpolation=down)
    return np.asarray(cv2.resize(small, (side, side), interpolation=up), np.uint8)


def noised(image: Pixels, sigma: float, seed: int) -> Pixels:
    """Gaussian noise of that standard deviation, in grey levels, independent in all pixels and channels."""
    field = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return _rounded(image + np.float32(sigma) * field)


def sharpened(image: Pixels, amount: float) -> Pixels:
    """Unsharp masking with a Gaussian of one pixel."""
    whole = image.astype(np.float32)
    return _rounded(whole + np.float32(amount) * (whole - cv2.GaussianBlur(whole, (0, 0), 1.0)))


def shared(image: Pixels, u: np.ndarray) -> Pixels:
    """What a picture goes through that is uploaded and downloaded: resize, JPEG, sharpening, JPEG.

    Five numbers from 0 to 1 say how. Networks keep what they do to themselves; this is the shape of it as measured
    from outside (Wu et al. 2022, "Robust image forgery detection over online social network shared images").
    """
    image = resampled(image, 0.5 + 0.5 * float(u[0]), float(u[1]))
    image = coded(image, "JPEG", 70 + int(u[2] * 26))
    image = sharpened(image, 0.6 * float(u[3]))
    return coded(image, "JPEG", 60 + int(u[4] * 36))


def _rounded(pixels: np.ndarray) -> Pixels:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
