"""The small picture inside EXIF: whether it still shows what the file shows."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from crossfake.datasets.decode import MAX_PIXELS, open_image
from crossfake.detect.metadata.results import Thumbnail

_SIDE = 32  # pixels in which both are compared
_LARGEST = 1024  # sides of a thumbnail that is looked at
_ALIKE = 0.85  # correlation
_FLAT = 4.0  # standard deviation of grey values below which there is nothing to compare
_SHAPE = 0.06  # share by which the sides' ratio may differ: thumbnails are rounded to whole pixels, or have black bars
_BLACK = 24  # grey value up to which a row or column of a bar is black

_MATCHES = "The thumbnail in EXIF shows the picture."
_DIFFERS = (
    "The thumbnail in EXIF does not show this picture: it was cropped or changed after the thumbnail was made, by a "
    "program that left the old one. That may be harmless."
)
_FLAT_WORDS = "The thumbnail in EXIF cannot be compared: it, or the picture, is of one colour."


def read_thumbnail(stored: bytes, content: bytes) -> Thumbnail:
    """Compare a thumbnail with the file it lies in, both as they are stored, before they are turned.

    Args:
        stored: the thumbnail's bytes.
        content: those of the whole file.

    Raises:
        ValueError: either cannot be opened, or is too large.
    """
    try:
        with open_image(stored) as small, open_image(content) as whole:
            if max(small.size) > _LARGEST:
                raise ValueError(f"it has {small.width}×{small.height} pixels")
            if whole.width * whole.height > MAX_PIXELS:
                raise ValueError("the picture has too many pixels")
            whole.draft("L", (4 * _SIDE, 4 * _SIDE))
            ratio = whole.width / whole.height
            picture = small.convert("RGB")
            one, other = _compared(_without_bars(picture.convert("L"), ratio)), _compared(whole.convert("L"))
            ratios = _without_bars(picture.convert("L"), ratio).size
    except ValueError:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over when bytes are wrong
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error
    size, pixels = picture.size, np.asarray(picture)
    if min(one.std(), other.std()) < _FLAT:
        close = abs(float(one.mean() - other.mean())) < 4 * _FLAT and max(one.std(), other.std()) < 2 * _FLAT
        return Thumbnail(*size, None, close, _MATCHES if close else _FLAT_WORDS, pixels)
    likeness = round(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]), 3)
    shape = abs(ratios[0] / ratios[1] / ratio - 1) <= _SHAPE
    matches = likeness >= _ALIKE and shape
    return Thumbnail(*size, likeness, matches, _MATCHES if matches else _DIFFERS, pixels)


def _compared(grey: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)


def _without_bars(grey: Image.Image, ratio: float) -> Image.Image:
    """The thumbnail without the black bars that fill a camera's 4:3 frame around a picture of another shape."""
    values = np.asarray(grey)
    if abs(grey.width / grey.height / ratio - 1) <= _SHAPE:
        return grey
    rows, columns = np.flatnonzero(values.max(1) > _BLACK), np.flatnonzero(values.max(0) > _BLACK)
    if not len(rows) or not len(columns):
        return grey
    return grey.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def stored_thumbnail(exif: bytes, start: int, length: int) -> bytes:
    """The bytes that EXIF's second directory points to (EXIF 3.0, sec. 4.6.5: JPEGInterchangeFormat)."""
    body = exif.removeprefix(b"Exif\0\0")
    return io.BytesIO(body[max(0, start) :]).read(max(0, length))
