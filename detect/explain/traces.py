"""Two maps that image forensics looks at, each with a sentence on how it misleads. Neither asks a detector."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from crossfake.datasets.types import Pixels

QUALITY = 90  # at which a picture is saved anew
MOST_PIXELS = 25_000_000  # of a picture that maps are made of
_SHOWN = 800  # pixels of a map's longer side
_WINDOW = 9  # pixels that noise is measured over
_LEAST = 8.0  # grey levels that are shown as white at least: else nothing at all would look like much

ERROR_LEVELS = (
    f"Error levels: how much each place changes when the picture is saved as JPEG of quality {QUALITY}, brightened. "
    "Edges, fine texture and saturated colours are bright in every picture, and after a second saving all is dark. A "
    "bright place is no sign of an edit; compare only places of like texture. On generated pictures, screenshots and "
    "what a site has saved anew it says nothing."
)
NOISE = (
    "Noise: how strong the grain is that a median of 3×3 pixels takes away, brightened. Edges are bright in every "
    "picture. Smooth places come from skies, blur, strong compression and a phone's own denoising as well as from "
    "retouching or a generator. A difference between two places asks a question; it answers none."
)


@dataclass(frozen=True)
class TraceMap:
    """A map of a whole picture.

    Attributes:
        name: ``error levels`` or ``noise``.
        words: what it shows, and how it misleads.
        picture: uint8 ``[h, w, 3]``, grey, at most 800 pixels wide and high.
    """

    name: str
    words: str
    picture: Pixels


def trace_maps(picture: Pixels) -> tuple[TraceMap, ...]:
    """Both maps of a picture uint8 ``[H, W, 3]`` in its own pixels; none of one that is too large.

    Example:
        >>> [each.name for each in trace_maps(np.zeros((32, 48, 3), np.uint8))]
        ['error levels', 'noise']
    """
    if picture.shape[0] * picture.shape[1] > MOST_PIXELS:
        return ()
    return (
        TraceMap("error levels", ERROR_LEVELS, _shown(error_levels(picture))),
        TraceMap("noise", NOISE, _shown(noise(picture))),
    )


def error_levels(picture: Pixels) -> npt.NDArray[np.uint8]:
    """The largest change of a channel when the picture is saved as JPEG, uint8 ``[H, W]`` (Krawetz 2007)."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    with Image.open(out) as again:
        changed: npt.NDArray[np.uint8] = cv2.absdiff(picture, np.asarray(again)).max(axis=2)
    return changed


def noise(picture: Pixels) -> npt.NDArray[np.float32]:
    """The mean distance of grey values from their median of 3×3, over 9×9 pixels: float32 ``[H, W]``."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grain = cv2.absdiff(grey, cv2.medianBlur(grey, 3)).astype(np.float32)
    strength: npt.NDArray[np.float32] = cv2.blur(grain, (_WINDOW, _WINDOW)).astype(np.float32)
    return strength


def _shown(values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Pixels:
    """Reduced by taking the mean, and brightened until a hundredth of it is white."""
    height, width = values.shape
    scale = min(1.0, _SHOWN / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    white = max(_LEAST, float(np.quantile(small, 0.99)))
    grey = (small * (255 / white)).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
