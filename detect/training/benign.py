"""What people do to photos of people without making them fakes: denoise, sharpen, tone, beautify, send them on.

A detector that has seen no retouched real takes the traces of retouching for those of a generator. Edits say nothing
about the label, so that a test of them is a test of false alarms (:mod:`crossfake.detect.evaluation.benign`).

Example:
    >>> photo = np.zeros((48, 64, 3), np.uint8)
    >>> edited(photo, np.random.default_rng(0)).shape
    (48, 64, 3)
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.types import Pixels
from crossfake.detect.training.augmentation import coded, sharpened, window_coded

Kind = Literal["denoise", "sharpen", "tone", "beautify", "messenger"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RANDOMS = 9  # random numbers that an edit takes
_LIMITS = (1600, 1280, 960)  # longest side that messengers leave a photo
_FORWARDED = 0.3  # share of photos that are sent twice

Numbers = npt.NDArray[np.float64]


def edited(images: Pixels, rng: np.random.Generator) -> Pixels:
    """One edit of each, of a kind drawn at random: uint8 ``[N, H, W, 3]``, windows of photos, or ``[H, W, 3]``.

    The shape stays. Two calls with generators of one seed edit alike, whatever the images.
    """
    if images.ndim == 3:
        return edited(images[None], rng)[0]
    draws = rng.random((len(images), 1 + RANDOMS))
    out = np.empty_like(images)
    for place, (image, u) in enumerate(zip(images, draws, strict=True)):
        out[place] = edit(image, KINDS[int(u[0] * len(KINDS))], u[1:])
    return out


def edit(image: Pixels, kind: Kind, u: Numbers, *, whole: bool = False) -> Pixels:
    """uint8 ``[H, W, 3]`` as it may come out of a phone, an editor or a messenger.

    Args:
        image: the picture.
        kind: ``denoise``: non-local means (Buades et al. 2005), as phones do in poor light. ``sharpen``: unsharp
            masking. ``tone``: exposure, contrast and white balance by curves, as photographers set them (Bychkovsky
            et al. 2011). ``beautify``: a bilateral filter (Tomasi & Manduchi 1998), which smooths skin and keeps
            edges, mixed with the picture. ``messenger``: made to fit, and JPEG of quality 70 to 85, once or twice, as
            chats leave photos (Shullani et al. 2017).
        u: ``[RANDOMS]`` numbers from 0 to 1 that say how strongly.
        whole: the picture is a photo and no part of one: a messenger makes it smaller, to 1600, 1280 or 960 pixels.
            The shape stays otherwise.
    """
    if kind == "denoise":
        strength = 4 + 6 * float(u[0])
        return np.asarray(cv2.fastNlMeansDenoising(image, None, strength, 3, 9), np.uint8)
    if kind == "sharpen":
        return sharpened(image, 0.3 + 1.2 * float(u[0]))
    if kind == "tone":
        return _toned(image, u)
    if kind == "beautify":
        smooth = cv2.bilateralFilter(image, 9, 15 + 30 * float(u[0]), 2 + 3 * float(u[1]))
        share = 0.5 + 0.5 * float(u[2])
        return np.asarray(cv2.addWeighted(smooth, share, image, 1 - share, 0), np.uint8)
    return _sent(image, u, whole)


def _toned(image: Pixels, u: Numbers) -> Pixels:
    """A power for exposure, an S (or its inverse) for contrast, gains of red and blue; one table a channel."""
    levels = np.linspace(0, 1, 256)
    curve = levels ** (0.75 * 1.8 ** float(u[0]))
    curve = curve - (-0.3 + 0.9 * float(u[1])) * np.sin(2 * np.pi * curve) / (2 * np.pi)
    gains = np.array([0.94 + 0.12 * float(u[2]), 1.0, 0.94 + 0.12 * float(u[3])])
    table = np.clip(np.rint(255 * curve[:, None] * gains), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def _sent(image: Pixels, u: Numbers, whole: bool) -> Pixels:
    limit, longest = _LIMITS[int(u[0] * len(_LIMITS))], max(image.shape[:2])
    if whole and longest > limit:
        height, width = (max(1, round(side * limit / longest)) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    for start in (1, 5) if u[4] < _FORWARDED else (1,):
        quality = 70 + int(u[start] * 16)
        if whole:
            image = coded(image, "JPEG", quality)
        else:
            image = window_coded(image, "JPEG", quality, 2, u[start + 1 : start + 3])
    return image
