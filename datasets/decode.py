"""Any picture file to 8-bit sRGB, or one line that says why not."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from crossfake.datasets import png
from crossfake.datasets.colour import UNCONVERTED, exif_profile, to_srgb
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError

MAX_PIXELS = 100_000_000  # checked before decoding: a small file can claim to be enormous
MAX_BYTES = 500_000_000
_REDUCIBLE = 2.5  # times MAX_PIXELS that a JPEG may have, which is then decoded at 1/2: a phone's photo
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
# Codes of what is not as it should be, here and in detect
CODES = {
    UNCONVERTED: "with a colour profile that cannot be converted: colours were kept as they are",
    "hdr": "of a high dynamic range or wide gamut that cannot be converted here: colours are off",
    "interlaced": "interlaced, which cannot be undone here: what moves is combed",
}
_CLEAR_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


class SupportsBytes(Protocol):
    """Something with a content, such as a member of an archive."""

    def read_bytes(self) -> bytes:
        """All of the file."""


class Unreadable(UserError):
    """A file that is not a whole image; ``reason`` says it without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} cannot be read as an image ({reason})", hint="replace or remove it")

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        return Unreadable, (self.name, self.reason)  # so that it can leave a worker process


class Decoded(NamedTuple):
    """A picture.

    Attributes:
        pixels: uint8 ``[H, W, 3]``, sRGB, upright.
        scale: pixels of it for one of the file, along a side; below 1 it was decoded smaller.
        codes: keys of :data:`CODES`.
    """

    pixels: Pixels
    scale: float = 1.0
    codes: tuple[str, ...] = ()


class Copies:
    """A file's bytes with every decoded copy that was asked for, so that several who look at it decode it once.

    Attributes:
        content: the file.
        name: what to call it in an error.
        remembered: what was found in its copies, for whoever looks for the same again.
    """

    def __init__(self, content: bytes, name: str = "the image") -> None:
        self.content, self.name = content, name
        self.remembered: dict[tuple[Any, ...], Any] = {}
        self._decoded: dict[int | None, Decoded] = {}

    def decode(self, at_least: int | None = None) -> Decoded:
        """As :func:`decode`: the very same pixels."""
        known = self._decoded.get(at_least) or self._whole
        if known is None:
            known = self._decoded[at_least] = decode(self.content, self.name, at_least)
        return known

    def largest(self, at_least: int) -> Decoded:
        """A copy whose sides are of so many pixels where the picture has them: the largest that there is already."""
        found = max(self._decoded.values(), key=lambda each: each.scale, default=None)
        enough = found is not None and (found.scale == 1 or min(found.pixels.shape[:2]) >= at_least)
        return found if found is not None and enough else self.decode(at_least)

    @property
    def _whole(self) -> Decoded | None:
        return next((each for each in self._decoded.values() if each.scale == 1), None)


@dataclass(frozen=True)
class Frame:
    """One frame of a video; unpacks to ``number, pixels``.

    Attributes:
        number: from 0.
        pixels: uint8 ``[H, W, 3]``, as a player shows them.
        seconds: since the first frame; None where the file does not say.
        codes: keys of :data:`CODES`.
    """

    number: int
    pixels: Pixels
    seconds: float | None = None
    codes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.number, self.pixels))


def decode_image(
    source: str | Path | bytes | Copies, name: str | None = None, at_least: int | None = None
) -> Pixels:
    """The pixels uint8 ``[H, W, 3]`` of :func:`decode`."""
    return decode(source, name, at_least).pixels


def decode(
    source: str | Path | bytes | Copies, name: str | None = None, at_least: int | None = None
) -> Decoded:
    """Decode a file or its bytes.

    EXIF orientation is applied; a colour profile is converted to sRGB; 16-bit values are scaled, not clipped;
    transparency is laid over white; of an animation the first frame is taken.

    Args:
        source: path, the bytes of a file, or its :class:`Copies`.
        name: what to call it in an error.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as both sides keep this many pixels:
            several times faster for large photos.

    Raises:
        Unreadable: not an image, cut short, without pixels, or larger than 100 megapixels, which a JPEG of up to 250
            is not once it is decoded at 1/2; a ``UserError``.
    """
    if isinstance(source, Copies):
        return source.decode(at_least)
    name = name or (str(source) if not isinstance(source, bytes) else "the image")
    try:
        content = source if isinstance(source, bytes) else file_bytes(Path(source))
        with (
            warnings.catch_warnings(action="ignore"),  # MAX_PIXELS is stricter than PIL's warning
            open_image(content) as image,
        ):
            width, height = image.size
            if at_least and min(width, height) >= 2 * at_least:
                image.draft(None, (at_least, at_least))
            elif MAX_PIXELS < width * height <= _REDUCIBLE * MAX_PIXELS:
                image.draft(None, (width // 2, height // 2))  # of a JPEG; others stay as they are
            if image.width * image.height > MAX_PIXELS or width * height > _REDUCIBLE * MAX_PIXELS:
                raise Unreadable(name, f"it has {width}×{height} pixels, too many")
            scale = image.width / width
            rgb, codes = to_rgb(ImageOps.exif_transpose(image))
            return Decoded(np.asarray(rgb), scale, codes)
    except Unreadable:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over when bytes are wrong
        raise Unreadable(name, _reason(error)) from error


def open_image(source: bytes | Path, formats: tuple[str, ...] | None = None) -> Image.Image:
    """As ``PIL.Image.open``, of HEIC too, of a JPEG however large, and of a PNG however much text it carries."""
    start = source[:8] if isinstance(source, bytes) else _start(source)
    if start[:3] == b"\xff\xd8\xff":
        try:
            return JpegImagePlugin.JpegImageFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from error
    if start == png.SIGNATURE:
        source = png.without_long_text(source if isinstance(source, bytes) else file_bytes(source))
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError:
        if not register_heif():
            raise
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


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


def to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A picture of any mode in sRGB over white, and the code of what could not be converted."""
    profile, alpha = image.info.get("icc_profile") or exif_profile(image), None
    if image.mode in _WIDE_MODES:
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values / 257.0 + 0.5).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white")
    elif image.mode in _CLEAR_MODES or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        alpha, image = image.getchannel("A"), image.getchannel("R") if grey else image.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image, done = to_srgb(image, profile)
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image, () if done else (UNCONVERTED,)
