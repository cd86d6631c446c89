"""What a file says about itself before any pixel is decoded: format, JPEG tables, metadata."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

Values = npt.NDArray[np.float32]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMAT = (
    *FORMATS,
    "another format",
    "greyscale",
    "palette",
    "transparency",
    "another mode",
    "progressive",
    "name contradicts content",
)
JPEG = ("quality", "distance from the standard table", "4:4:4", "4:2:2", "4:2:0", "quantisation tables")
METADATA = (
    "EXIF",
    "EXIF tags",
    "camera named",
    "software named",
    "ICC profile",
    "XMP",
    "comment or text",
    "thumbnail",
    "JFIF header",
    "JFIF unit",
    "JFIF density",
    "Adobe marker",
)
_MAKE, _MODEL, _SOFTWARE, _THUMBNAIL = 271, 272, 305, 513  # EXIF and TIFF tags

# ITU-T T.81 (JPEG), annex K, table K.1, in raster order
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def _scaled_tables() -> npt.NDArray[np.int64]:
    """The table of every quality from 1 to 100 as the Independent JPEG Group's library scales it, ``[100, 64]``."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables: npt.NDArray[np.int64] = np.clip((_LUMINANCE * scale[:, None] + 50) // 100, 1, 255)
    return tables


_TABLES = _scaled_tables()


def jpeg_quality(table: Any) -> tuple[int, float]:
    """Quality of the Independent JPEG Group's scale whose luminance table is nearest.

    Args:
        table: 64 steps in raster order.

    Returns:
        quality in 1..100, and the mean distance of a step from the standard one, 0 for libjpeg's own tables.

    Example:
        >>> jpeg_quality(_TABLES[89])
        (90, 0.0)
    """
    steps = np.asarray(table, np.int64).ravel()
    distances = np.abs(_TABLES - steps).mean(axis=1)
    best = int(distances.argmin())
    return best + 1, float(distances[best])


def file_values(content: bytes, name: str) -> dict[str, Values]:
    """Measures of a file's bytes by probe; ``jpeg`` only of a JPEG.

    The file has been decoded before, so an error here is of metadata alone and leaves what it concerns empty.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        values = {
            "format": _format(image, kind, name),
            "bytes": np.array([len(content) / max(1, image.width * image.height)], np.float32),
            "metadata": _metadata(image, kind),
        }
        tables = getattr(image, "quantization", None)
        if kind == "JPEG" and tables:
            values["jpeg"] = _jpeg(image, tables)
        return values


def _format(image: Image.Image, kind: str, name: str) -> Values:
    mode = image.mode
    claimed = Image.registered_extensions().get(os.path.splitext(name)[1].lower(), kind)
    contradicts = claimed not in (kind, image.format) and not (claimed == "JPEG2000" or kind == "PPM")
    flags = [kind == known for known in FORMATS]
    flags += [kind not in FORMATS, mode in ("L", "1", "LA"), mode == "P"]
    flags += [mode in ("RGBA", "LA", "PA") or "transparency" in image.info]
    flags += [mode not in ("L", "1", "LA", "P", "PA", "RGB", "RGBA")]
    flags += [bool(image.info.get("progressive") or image.info.get("interlace")), contradicts]
    return np.array(flags, np.float32)


def _jpeg(image: Image.Image, tables: dict[int, Any]) -> Values:
    quality, distance = jpeg_quality(tables[min(tables)])
    sampling = JpegImagePlugin.get_sampling(image)  # 0, 1, 2, or -1 where it is none of these
    return np.array([quality, distance, *(sampling == k for k in range(3)), len(tables)], np.float32)


def _metadata(image: Image.Image, kind: str) -> Values:
    info = image.info
    tags: dict[int, Any] = {}
    thumbnail = False
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(0x8769)}
        thumbnail = _THUMBNAIL in exif.get_ifd(1)
    except Exception:  # PIL raises whatever it stumbles over in a damaged EXIF block
        pass
    # a format without JFIF header counts as having an ordinary one: the format is another probe's business
    jfif = kind != "JPEG" or "jfif" in info
    density = info.get("jfif_density", (1, 1))[0] if kind == "JPEG" else 1
    return np.array(
        [
            "exif" in info or bool(tags),
            len(tags),
            _MAKE in tags or _MODEL in tags,
            _SOFTWARE in tags,
            "icc_profile" in info,
            any("xmp" in str(key).lower() for key in info),
            "comment" in info or bool(getattr(image, "text", None)),
            thumbnail,
            jfif,
            info.get("jfif_unit", 0) if kind == "JPEG" else 0,
            density,
            "adobe" in info,
        ],
        np.float32,
    )
