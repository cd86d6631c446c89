"""Any picture file to 8-bit RGB, or one line that says why not."""

from __future__ import annotations

import io
import stat
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crossfake.datasets.codecs import Pixels
from crossfake.errors import UserError

MAX_PIXELS = 100_000_000  # checked before decoding: a small file can claim to be enormous
MAX_BYTES = 500_000_000
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class SupportsBytes(Protocol):
    """Something with a content, such as a member of an archive."""

    def read_bytes(self) -> bytes: ...


class Unreadable(UserError):
    """A file that is not a whole image; ``reason`` says it without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} cannot be read as an image ({reason})", mend="replace or remove it")

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        return Unreadable, (self.name, self.reason)  # so that it can leave a worker process


def decode_image(source: str | Path | bytes, name: str | None = None, at_least: int | None = None) -> Pixels:
    """Decode a file or its bytes.

    EXIF orientation is applied; 16-bit values are scaled, not clipped; transparency is laid over white; of an
    animation the first frame is taken.

    Args:
        source: path, or the bytes of a file.
        name: what to call it in an error.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as both sides keep this many pixels:
            several times faster for large photos.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        Unreadable: not an image, cut short, without pixels, or larger than 100 megapixels; a ``UserError``.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "the image")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # MAX_PIXELS is stricter than PIL's warning
            _opened(source) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(name, f"it has {image.width}×{image.height} pixels, too many")
            if at_least and min(image.size) >= 2 * at_least:
                image.draft(None, (at_least, at_least))
            pixels: Pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
            return pixels
    except Unreadable:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over when bytes are wrong
        raise Unreadable(name, _reason(error)) from error


def _opened(source: str | Path | bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError:
        if not register_heif():
            raise
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


@lru_cache(maxsize=1)
def register_heif() -> bool:
    """Teach PIL to read HEIC photos of phones; False when the package pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def file_bytes(source: Path | bytes | SupportsBytes) -> bytes:
    """What a file holds; of a member of an archive what it unpacks to.

    Raises:
        OSError: it cannot be read, is a pipe or a device (which might never end), or is larger than 500 MB.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, Path):
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a file")
        if found.st_size > MAX_BYTES:
            raise OSError(f"it has {found.st_size:,} bytes, too many")
    return source.read_bytes()


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0] or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_MODES:
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 257.0 + 0.5).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white")
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert("RGB")
