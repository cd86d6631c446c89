"""The JPEG that a picture once was, read from its pixels: where its blocks begin, and at what quality it was saved."""

from __future__ import annotations

import io
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from crossfake.datasets.types import Pixels

_UNIT = 16  # pixels: blocks of colours at 4:2:0
_SIDE = 160  # of the part that is looked at
_VISIBLE = 0.08  # logarithm of how much sharper steps across the grid are, above which there is one
_QUALITIES = range(30, 99)
_DIP = 1.15  # how many times nearer a picture is to itself at its own quality than at those beside it


class Jpeg(NamedTuple):
    """Quality of libjpeg's scale, and pixels from the picture's corner to where a block of 16 begins, 0 to 15."""

    quality: int
    top: int
    left: int


def grid_profile(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """How much sharper steps between columns are at each phase of a grid of 8 pixels, as logarithms: ``[8]``.

    Steps are second differences, which cancel smooth shading (after Fan and de Queiroz 2003, "Identification of bitmap
    compression history"). Phase 7 is the grid of a picture that was not cropped; the median is 0.
    """
    step = np.diff(grey, axis=1)
    bend = np.abs(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2).mean(axis=0)
    # bend k lies between pixels k + 1 and k + 2; the grid's edges lie after pixels 7, 15, …
    profile = np.array([bend[(phase - 1) % 8 :: 8].mean() for phase in range(8)]) + 1e-3
    return np.asarray(np.log(profile / np.median(profile)))


def find_jpeg(image: Pixels) -> Jpeg | None:
    """The last JPEG of a picture that was decoded, and perhaps cropped, but not resampled since; None without one.

    Saved once more at its own quality in its own grid, a JPEG changes least (JPEG ghosts, Farid 2009).

    Args:
        image: uint8 ``[H, W, 3]``; under 40 pixels none is found.
    """
    if min(image.shape[:2]) < 40:
        return None
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = grid_profile(grey), grid_profile(grey.T)
    if min(across.max(), down.max()) < _VISIBLE:
        return None
    top, left = ((int(profile.argmax()) + 1) % 8 for profile in (down, across))
    part = grey[top:, left:][:_SIDE, :_SIDE].astype(np.uint8)
    errors = np.array([_error(part, Jpeg(quality, 0, 0)) for quality in _QUALITIES])
    beside = np.sqrt(errors[:-4] * errors[4:])  # two off: tables of neighbours can be equal
    dips = beside / errors[2:-2]
    if dips.max() < _DIP:
        return None
    quality = _QUALITIES[2 + int(dips.argmax())]
    shifts = [Jpeg(quality, top + 8 * down, left + 8 * across) for down in (0, 1) for across in (0, 1)]
    return min(shifts, key=lambda jpeg: _error(image, jpeg))


def as_jpeg(image: Pixels, jpeg: Jpeg) -> Pixels:
    """uint8 ``[H, W, 3]`` or ``[H, W]`` as if cut out of a JPEG, with colours of half the resolution (4:2:0)."""
    top, left = -jpeg.top % _UNIT, -jpeg.left % _UNIT
    larger = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    buffer = io.BytesIO()
    Image.fromarray(larger).save(buffer, "JPEG", quality=jpeg.quality, subsampling=2)
    return np.array(Image.open(buffer))[top:, left:]


def _error(image: Pixels, jpeg: Jpeg) -> float:
    """Mean squared difference between a picture and its JPEG, in squared grey levels, and 1/12 of rounding."""
    return float(np.square(as_jpeg(image, jpeg).astype(np.float32) - image).mean()) + 1 / 12
