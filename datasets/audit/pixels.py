"""What pixels say without the face in them: grid, spectrum, colours, thumbnail, surroundings."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.faces import Face
from crossfake.datasets.types import Pixels
from crossfake.images import fitted

Values = npt.NDArray[np.float32]

BLOCKS = ("8-pixel grid, columns", "8-pixel grid, rows", "strongest grid, columns", "strongest grid, rows")
SIZE = ("width", "height", "aspect ratio")
_BANDS = 16  # of the spectrum, from 0 to half a cycle per pixel
SPECTRUM = (
    "cut-off frequency",
    "spectral slope",
    *(f"power at {(k + 0.5) / 2 / _BANDS:.2f} cycles per pixel" for k in range(_BANDS // 2, _BANDS)),
)
SCALE = (
    "interpolation, columns",
    "interpolation, rows",
    "frequency of interpolation, columns",
    "frequency of interpolation, rows",
)
CLIPPED = ("cut off at the sides", "cut off above or below")
COLOURS = (
    *(f"mean {name}" for name in ("red", "green", "blue")),
    *(f"contrast of {name}" for name in ("red", "green", "blue")),
    "brightness",
    "contrast",
    "darkest 5%",
    "brightest 5%",
    "mean saturation",
    "spread of saturation",
    "share of pure black",
    "share of pure white",
)
GRID = 8
THUMBNAIL = tuple(
    f"{name} at row {y + 1}, column {x + 1}"
    for y in range(GRID)
    for x in range(GRID)
    for name in ("red", "green", "blue")
)
SURROUNDINGS = (
    *THUMBNAIL,
    *(f"{what} {name}" for what in ("mean", "contrast of") for name in ("red", "green", "blue")),
)
FACES = ("face score", "no face found", "faces", "face width", "face height", "face across", "face down")
_CROP = 512  # pixels: the middle of a photo is enough for grid and spectrum
_SLOW = 0.1  # cycles per pixel
_GLANCE = 256  # pixels: colours are measured in a copy no larger than this
_AROUND = 1.3  # the face's box is enlarged so much before it is hidden
_LEAST_SURROUNDINGS = 0.15  # of the picture: below that the face fills it
SURE = 0.6  # a face scored lower does not count as found


def middle(grey: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """At most ``side`` rows and columns from the middle, starting on the JPEG grid of the picture's top left corner."""
    top, left = (max(0, (length - side) // 2) // 8 * 8 for length in grey.shape)
    return grey[top : top + side, left : left + side]


def blockiness(image: Pixels) -> Values:
    """How much sharper steps are across an 8-pixel grid than elsewhere, as logarithms of ratios.

    Steps are second differences, which cancel smooth shading, averaged by phase of the grid (after Fan and de Queiroz
    2003, "Identification of bitmap compression history"). The strongest phase finds a grid that a crop has shifted.

    Returns:
        float32 ``[4]``: at the phase of an uncropped JPEG and at the strongest phase, across columns and rows. NaN
        for pictures under 24 pixels.
    """
    grey = middle(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), _CROP)
    if min(grey.shape) < 24:
        return np.full(len(BLOCKS), np.nan, np.float32)
    aligned, strongest = [], []
    for lines in (grey, grey.T):
        step = np.diff(lines, axis=1)
        bend = np.abs(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2).mean(axis=0)
        # bend k lies between pixels k + 1 and k + 2; the grid's edges lie after pixels 7, 15, …
        profile = np.array([bend[(phase - 1) % 8 :: 8].mean() for phase in range(8)]) + 1e-3
        ratios = np.log(profile / np.median(profile))
        aligned.append(ratios[7])
        strongest.append(ratios.max())
    return np.array(aligned + strongest, np.float32)


def spectrum(image: Pixels) -> Values:
    """Where the radially averaged power spectrum falls off, its slope and its upper half relative to the lower.

    Natural pictures follow a power law (Field 1987); enlarging leaves the top empty, generators leave peaks there
    (Durall et al. 2020).

    Returns:
        float32 ``[10]``; NaN for pictures under 24 pixels.
    """
    grey = middle(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), _CROP // 2)
    if min(grey.shape) < 24:
        return np.full(len(SPECTRUM), np.nan, np.float32)
    window = np.hanning(grey.shape[0])[:, None] * np.hanning(grey.shape[1])
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2
    across, down = np.fft.rfftfreq(grey.shape[1]), np.fft.fftfreq(grey.shape[0])
    band = np.floor(np.hypot(down[:, None], across) * 2 * _BANDS).astype(int)
    inside = band < _BANDS
    total = np.bincount(band[inside], power[inside], _BANDS)
    average = np.log(total / np.maximum(np.bincount(band[inside], minlength=_BANDS), 1) + 1e-3)
    frequency = np.log((np.arange(_BANDS) + 0.5) / (2 * _BANDS))
    low = slice(1, 6)
    slope, level = np.polyfit(frequency[low], average[low], 1)
    fallen = average < slope * frequency + level - 3.0  # a twentieth of what the power law promises
    kept = np.flatnonzero(~fallen)
    cutoff = (kept[-1] + 1) / (2 * _BANDS)
    return np.array([cutoff, slope, *(average[_BANDS // 2 :] - average[low].mean())], np.float32)


def resampled(image: Pixels) -> Values:
    """Whether pixels were interpolated: that makes second differences rise and fall with the pixels' old places.

    The period of their mean over lines is the factor of scaling (Gallagher 2005, "Detection of linear and cubic
    interpolation in JPEG compressed images"): the strongest peak in its spectrum, apart from the JPEG grid's.

    Returns:
        float32 ``[4]``: logarithms of the peak over the median, across columns and rows, and its frequency in cycles
        per pixel; NaN for pictures under 24 pixels.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if min(grey.shape) < 24:
        return np.full(len(SCALE), np.nan, np.float32)
    peaks, places = [], []
    for lines in (grey, grey.T):
        bend = np.log(np.abs(np.diff(lines, 2, axis=1)).mean(axis=0) + 1e-3)
        power = np.abs(np.fft.rfft((bend - bend.mean()) * np.hanning(len(bend))))
        frequency = np.fft.rfftfreq(len(bend))
        grid = np.abs(frequency[:, None] - (0.125, 0.25, 0.375)).min(axis=1) < 1.5 / len(bend)
        power[(frequency < _SLOW) | grid] = np.nan  # shading is slow
        best = int(np.nanargmax(power))
        peaks.append(np.log((power[best] + 1e-6) / (np.nanmedian(power) + 1e-6)))
        places.append(frequency[best])
    return np.array(peaks + places, np.float32)


def clipped(image: Pixels) -> Values:
    """How much a square that was cut out of a photo lacks of being one: float32 ``[2]``, shares of its side."""
    height, width = image.shape[:2]
    return np.array([max(0.0, 1 - width / height), max(0.0, 1 - height / width)], np.float32)


def glance(image: Pixels) -> Pixels:
    """The picture, shrunk where it is large: colours stay what they are."""
    return fitted(image, _GLANCE)


def colours(small: Pixels) -> Values:
    """Means, spreads and extremes of a picture's colours in [0, 1]: float32 ``[14]``."""
    red, green, blue = (small[..., k].astype(np.float32).ravel() / 255 for k in range(3))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    top = np.maximum(np.maximum(red, green), blue)
    bottom = np.minimum(np.minimum(red, green), blue)
    saturation = (top - bottom) / np.maximum(top, 1 / 255)
    return np.array(
        [
            *(channel.mean() for channel in (red, green, blue)),
            *(channel.std() for channel in (red, green, blue)),
            grey.mean(),
            grey.std(),
            *np.quantile(grey, (0.05, 0.95)),
            saturation.mean(),
            saturation.std(),
            (top < 1 / 255).mean(),
            (bottom > 254 / 255).mean(),
        ],
        np.float32,
    )


def thumbnail(small: Pixels) -> Values:
    """The picture at 8×8 in [0, 1]: float32 ``[192]``."""
    shrunk = cv2.resize(small.astype(np.float32) / 255, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32).ravel()


def surroundings(image: Pixels, face: Face | None) -> Values | None:
    """What is around the face at 8×8, and its colours: float32 ``[198]``; None when the face fills the picture.

    The face's box, enlarged by 1.3, is hidden; without a face the ellipse in the middle. What is hidden takes the mean
    colour of the rest, so that the place of the box tells little.
    """
    height, width = image.shape[:2]
    if face is None:
        y, x = np.mgrid[0:height, 0:width]
        ellipse = ((x + 0.5) / width * 2 - 1) ** 2 / 0.36 + ((y + 0.5) / height * 2 - 1) ** 2 / 0.64
        shown = (ellipse > 1).astype(np.float32)
    else:
        left, top, across, down = face.box
        grow_x, grow_y = across * (_AROUND - 1) / 2, down * (_AROUND - 1) / 2
        rows = slice(max(0, round(top - grow_y)), max(0, round(top + down + grow_y)))
        columns = slice(max(0, round(left - grow_x)), max(0, round(left + across + grow_x)))
        shown = np.ones((height, width), np.float32)
        shown[rows, columns] = 0
    if shown.mean() < _LEAST_SURROUNDINGS:
        return None
    values = image.astype(np.float32) / 255
    rest = values[shown > 0]
    mean = rest.mean(axis=0, dtype=np.float64).astype(np.float32)
    values = np.where(shown[..., None] > 0, values, mean)
    shrunk = np.asarray(cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)
    return np.concatenate([shrunk.ravel(), mean, rest.std(axis=0, dtype=np.float64)]).astype(np.float32)


def face_values(image: Pixels, faces: list[Face]) -> Values:
    """Score, number and place of the faces, the largest first; lengths relative to the picture: float32 ``[7]``."""
    sure = [face for face in faces if face.confidence >= SURE]
    score = max((face.confidence for face in faces), default=0.0)
    if not sure:
        return np.array([score, 1, 0, *[np.nan] * 4], np.float32)
    height, width = image.shape[:2]
    left, top, across, down = sure[0].box
    place = [
        across / width,
        down / height,
        (left + across / 2) / width,
        (top + down / 2) / height,
    ]
    return np.array([score, 0, len(sure), *place], np.float32)
