"""Colour profiles (ISO 15076-1, "ICC"): pictures that carry one, to sRGB."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image

UNCONVERTED = "colour-profile"  # code of a picture whose colours were kept as they are
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # by the profile's own word
_SAME = 2  # of 255: between two profiles that are both called sRGB
_LARGEST = 1 << 25  # bytes of a profile


def exif_profile(image: Image.Image) -> bytes | None:
    """Adobe RGB's profile, where a camera says so in Exif alone: "R03" of DCF 2.0, or the 2 that some write."""
    if "exif" not in image.info or image.mode != "RGB":
        return None
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        if space == 2 or (space == 0xFFFF and exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03"):
            return adobe_rgb()
    except Exception:  # whatever PIL stumbles over in damaged metadata, of which pixels know nothing
        pass
    return None


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """A profile of Adobe RGB (1998), sec. 4.3.4: its primaries under D50, and its exponent of 563/256."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv" + struct.pack(">IIHxx", 0, 1, 563)
    tags = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value
    head = struct.pack(">I4xI4s4s4s12x4s28x", at + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (head + xyz(0.9642, 1.0, 0.8249)[8:]).ljust(128, b"\0") + table + body


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """A picture in sRGB, and whether that could be done.

    Args:
        image: mode L, RGB, CMYK or LAB.
        profile: what its file holds; None leaves the colours as they are, except for LAB, which is of no device.

    Returns:
        mode RGB; with the colours as they were where the profile is broken or of another kind of picture.
    """
    if profile or image.mode == "LAB":
        from PIL import ImageCms

        try:
            return _converted(image, profile or b""), True
        except (
            ImageCms.PyCMSError,
            ImportError,
            ValueError,
            OSError,
            TypeError,
        ):  # ImportError: PIL without littleCMS
            if image.mode == "LAB":
                raise ValueError("LAB colours without a profile that can be read") from None
            return image.convert("RGB"), False
    return image.convert("RGB"), True


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms

    mode, transform = _transform(profile)
    if mode == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if image.mode != mode:
        raise ValueError(f"a profile for {mode} in a picture of {image.mode}")
    if transform is None:
        return image.convert("RGB")
    done = ImageCms.applyTransform(image, transform)
    assert done is not None  # it is only when done in place
    return done


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, Any]:
    """The mode that a profile is for, and what converts it to sRGB: None where that would change nothing.

    Raises:
        ValueError, OSError, ImageCms.PyCMSError: it cannot be read, or is not of pictures.
    """
    from PIL import ImageCms

    if len(profile) > _LARGEST:
        raise ValueError("too large")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else lab
    space = str(given.profile.xcolor_space).strip()
    if space not in _MODES:
        raise ValueError(f"colours of the kind {space}")
    mode = _MODES[space]
    made = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode in ("RGB", "L"):
        probe = _probe(mode)
        off = np.asarray(ImageCms.applyTransform(probe, made), int) - np.asarray(probe.convert("RGB"), int)
        if np.abs(off).max() <= _SAME:
            return mode, None
    return mode, made


def _probe(mode: str) -> Image.Image:
    """Values from all over the range."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(steps[None])
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3))
