"""Frames of an animated GIF, WebP, PNG or AVIF, through PIL: each is drawn on the one before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Set

import numpy as np
from PIL import Image, ImageOps

from crossfake.datasets import png
from crossfake.datasets.decode import MAX_PIXELS, Frame, Unreadable, open_image, to_rgb

HEAD = 16  # bytes that say whether a file may be one
_MOST = 40 * MAX_PIXELS  # of all frames together
_USUAL = 100  # milliseconds that browsers show a frame which does not say how long


def may_move(head: bytes) -> bool:
    """Whether the first 16 bytes are those of a format that can be animated."""
    return (
        head[:6] in (b"GIF87a", b"GIF89a")
        or head[:8] == png.SIGNATURE
        or (head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X")
        or head[4:12] == b"ftypavis"
    )


def is_animated(content: bytes) -> bool:
    """Whether a file is a picture with several frames in time; a TIFF's pages are not.

    Example:
        >>> is_animated(b"GIF89a")
        False
    """
    if not may_move(content[:HEAD]) or (content[:8] == png.SIGNATURE and not png.is_animated(content)):
        return False
    try:
        with warnings.catch_warnings(action="ignore"), open_image(content) as image:
            # one frame and another still for old programs are enough: that still is not what is seen
            return bool(getattr(image, "is_animated", False))
    except Exception:  # damaged: decoding it says how
        return False


def count_animation(content: bytes) -> int:
    """How many frames it has; 0 when it is damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), open_image(content) as image:
            return len(_numbers(image))
    except Exception:  # as PIL's decoders please
        return 0


def _numbers(image: Image.Image) -> range:
    """PIL's numbers of the frames. A PNG may hold a still for programs that know no animation: nobody sees it."""
    still = bool(getattr(image, "default_image", False))
    return range(int(still), int(getattr(image, "n_frames", 1)))


def animation_frames(content: bytes, wanted: Set[int], name: str) -> Iterator[Frame]:
    """The frames of these numbers, in order; one cut short gives those that it has.

    Raises:
        Unreadable: damaged before its first frame, or too much to draw.
    """
    given, passed = 0, 0.0
    try:
        with warnings.catch_warnings(action="ignore"), open_image(content) as image:
            numbers = _numbers(image)
            if image.width * image.height * len(numbers) > _MOST or image.width * image.height > MAX_PIXELS:
                raise Unreadable(
                    name, f"{len(numbers)} frames of {image.width}×{image.height} pixels, too many"
                )
            for number, place in enumerate(numbers[: max(wanted, default=-1) + 1]):
                image.seek(place)
                image.load()  # also those that are not wanted: the next are drawn on them
                if number in wanted:
                    rgb, codes = to_rgb(ImageOps.exif_transpose(image))
                    yield Frame(number, np.asarray(rgb), passed / 1000, codes)
                    given += 1
                passed += float(image.info.get("duration") or _USUAL)
    except Unreadable:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over when bytes are wrong
        if not given:
            raise Unreadable(name, str(error).partition("\n")[0] or type(error).__name__) from error
