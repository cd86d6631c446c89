"""What may happen to a picture between the forger and the detector: blur, noise, other sizes, real JPEG and WebP.

Without such changes a detector learns how its training files were saved rather than how its fakes were made. Recipes
(:mod:`crossfake.detect.training.recipes`) say which of them are drawn, and how often; here each is done to one
picture, since OpenCV blurs the pictures of a batch one by one five times as quickly as a batched convolution on the
CPU does, and compression is done by real encoders: differentiable JPEG only resembles them.
"""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
from PIL import Image

from crossfake.datasets.types import Pixels


def mirrored(images: Pixels, which: np.ndarray) -> Pixels:
    """Mirror images ``[B, H, W, 3]`` where ``which``, bool ``[B]``, says so; a new array."""
    pixels = images.copy()
    for number in np.flatnonzero(which):
        pixels[number] = cv2.flip(images[number], 1)
    return pixels


def cropped(images: Pixels, size: int, places: np.ndarray) -> Pixels:
    """A square of each image, where two numbers from 0 to 1 say, ``[B, 2]``: uint8 ``[B, size, size, 3]``."""
    room = images.shape[2] - size + 1
    corners = np.minimum((places * room).astype(int), room - 1)
    return np.stack(
        [
            image[top : top + size, left : left + size]
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


def coded(image: Pixels, codec: str, quality: int, subsampling: int = 2) -> Pixels:
    """uint8 ``[H, W, 3]`` through Pillow's encoder ``JPEG`` or ``WEBP``, and back.

    Args:
        image: the picture.
        codec: ``JPEG`` or ``WEBP``.
        quality: 1 to 100.
        subsampling: of a JPEG's colours: 2 for 4:2:0, 1 for 4:2:2, 0 for 4:4:4.
    """
    buffer = io.BytesIO()
    special = {"method": 0} if codec == "WEBP" else {"subsampling": subsampling}
    Image.fromarray(image).save(buffer, codec, quality=quality, **special)
    return np.array(Image.open(buffer).convert("RGB"))


def window_coded(image: Pixels, codec: str, quality: int, subsampling: int, u: np.ndarray) -> Pixels:
    """:func:`coded` as if uint8 ``[H, W, 3]`` were cut out of a larger picture that was compressed.

    Two numbers from 0 to 1 say where in the codec's grid of blocks of 16 pixels the window begins: a grid that always
    began at its corner would be found nowhere else.
    """
    top, left = (np.minimum(u, 1 - 1e-9) * 16).astype(int)
    larger = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(coded(np.asarray(larger, np.uint8), codec, quality, subsampling)[top:, left:])


def rescaled(image: Pixels, scale: float, u: np.ndarray) -> Pixels:
    """uint8 ``[S, S, 3]`` made larger or smaller, and a window of the same size cut out of it.

    Args:
        image: the window.
        scale: 0.5 to 2; what is missing beside a smaller picture is mirrored.
        u: three numbers from 0 to 1: the filter, and the place from top and from left.
    """
    side = image.shape[0]
    size = max(1, round(side * scale))
    if size == side:
        return image
    soft = cv2.INTER_AREA if size < side else cv2.INTER_LANCZOS4
    interpolation = (soft, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[min(int(u[0] * 3), 2)]
    other = cv2.resize(image, (size, size), interpolation=interpolation)
    top, left = (min(int(place * (abs(size - side) + 1)), abs(size - side)) for place in u[1:3])
    if size > side:
        return np.ascontiguousarray(other[top : top + side, left : left + side], np.uint8)
    rest = side - size
    return np.asarray(
        cv2.copyMakeBorder(other, top, rest - top, left, rest - left, cv2.BORDER_REFLECT_101), np.uint8
    )


def resampled(image: Pixels, share: float, choice: float) -> Pixels:
    """Made smaller to ``share`` of its size, and large again; ``choice``, 0 to 1, chooses the filters."""
    height, width = image.shape[:2]
    low, narrow = (max(8, min(side, round(side * share))) for side in (height, width))
    filters = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    down, up = filters[min(int(choice * 3), 2)], filters[1 + int(choice * 6) % 2]
    small = cv2.resize(image, (narrow, low), interpolation=down)
    return np.asarray(cv2.resize(small, (width, height), interpolation=up), np.uint8)


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
