"""What the first bytes of a file say: its kind, and how many pixels or seconds it claims, without decoding any."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from crossfake.datasets import filetypes
from crossfake.datasets.animation import is_animated
from crossfake.datasets.decode import Unreadable, file_bytes, open_image, register_heif
from crossfake.datasets.filetypes import AVIF, HEAD, Kind, picture_format
from crossfake.datasets.video import import_av, open_video, shown_size
from crossfake.errors import MissingDependency, UserError

_PICTURES = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "HEIF")  # whose sizes are known here without decoding
_MOST_RATE = 240  # frames per second: a phone's slow motion


class Refused(UserError):
    """A file that is not taken.

    Attributes:
        code: ``empty``, ``too-large``, ``too-many-pixels``, ``too-long``, ``too-many-files``, ``not-an-image``,
            ``damaged``, ``avif-not-supported``, ``heic-not-supported``, ``video-not-supported``, ``unsafe-archive``,
            ``nested-archive``, ``encrypted``.
        status: for HTTP: 413 for what is too much, 415 for what is of no known kind, 422 for the rest.
        headers: of the answer.
    """

    def __init__(
        self, code: str, message: str, hint: str, status: int = 422, headers: Mapping[str, str] | None = None
    ) -> None:
        self.code, self.status, self.headers = code, status, dict(headers or {})
        super().__init__(message, hint)


def refusal(error: UserError | Unreadable) -> Refused:
    """An error that its asker can mend, with a code; without the path that the message of a damaged file holds."""
    if isinstance(error, Unreadable):
        reason = f"the file cannot be read ({error.reason})"
        return Refused("damaged", reason, "save or send it again, from where it comes")
    return error if isinstance(error, Refused) else Refused("malformed", error.message, error.hint or "")


def kind_of(head: bytes) -> Kind | None:
    """What a file is, by its first 512 bytes; None for what is not taken from strangers."""
    kind = filetypes.kind_of(head)
    return None if kind == "image" and picture_format(head) not in _PICTURES else kind


def _is_avif(head: bytes) -> bool:
    """Whether any brand of the first box says so (ISO/IEC 14496-12, sec. 4.3)."""
    length = int.from_bytes(head[:4])
    if not 16 <= length <= HEAD:
        raise broken("picture")
    return any(head[at : at + 4] in AVIF for at in range(8, length, 4))


@dataclass(frozen=True)
class Claims:
    """What a header says of a picture or video: pixels as stored, of a video with square pixels, seconds (0 when
    unknown), more frames than one.

    ``tile`` is how many pixels a TIFF's tiles have: each is decoded whole, however small the picture.
    """

    width: int
    height: int
    seconds: float = 0.0
    animated: bool = False
    tile: int = 0


def read_picture(path: Path, head: bytes) -> Claims:
    """A picture's size.

    Raises:
        Refused: the header is broken, the format needs a package that is not installed, or it is AVIF: its decoder
            makes room for what the video inside says, whatever size the file states.
    """
    name = picture_format(head) or ""
    if name == "HEIF" and _is_avif(head):
        raise Refused("avif-not-supported", "AVIF pictures are not read here", "save it as PNG", 415)
    if name == "WEBP":  # PIL would make room for all pixels at once
        return _webp(head)
    if name == "HEIF" and not register_heif():
        raise Refused(
            "heic-not-supported",
            "HEIC pictures cannot be read here",
            "send a JPEG or PNG, or install pillow-heif",
            415,
        )
    try:
        with warnings.catch_warnings(action="ignore"), open_image(path, (name,)) as image:
            tile = _tile(image) if name == "TIFF" else 0
            several = bool(getattr(image, "is_animated", False))
            if name in ("GIF", "PNG"):
                several = is_animated(file_bytes(path))
            return Claims(*image.size, animated=several, tile=tile)
    except Image.DecompressionBombError:
        raise too_many_pixels(None) from None
    except UnidentifiedImageError as error:
        raise broken("picture") from error
    except Exception as error:  # PIL's parsers raise whatever they stumble over when bytes are wrong
        raise broken("picture") from error


def _tile(image: Any) -> int:
    """Pixels of a tile (TIFF 6.0, sec. 15); 0 for strips, which end with the picture."""
    return int(image.tag_v2.get(322, 0)) * int(image.tag_v2.get(323, 0))


def _webp(head: bytes) -> Claims:
    """Of the three kinds of WebP (RFC 9649, sec. 2.4 to 2.7)."""
    try:
        chunk, body = head[12:16], head[20:]
        if chunk == b"VP8X":
            width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
            return Claims(width, height, animated=bool(body[0] & 2))
        if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack("<HH", body[6:10])
            return Claims(width & 0x3FFF, height & 0x3FFF)
        if chunk == b"VP8L" and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            return Claims(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    except (struct.error, IndexError):
        pass
    raise broken("picture")


def read_video(path: Path, most_seconds: float) -> Claims:
    """A video's frame size and duration, from its container alone.

    Raises:
        Refused: it holds no picture, has more frames than so many seconds can have, or PyAV is not installed.
    """
    try:
        av = import_av()
    except MissingDependency as error:
        raise Refused(
            "video-not-supported", "videos cannot be read here", "send single frames, or install PyAV", 415
        ) from error
    try:
        with open_video(path) as (container, stream):
            if stream is None:
                raise Refused("not-an-image", "there is no picture in this video", "send another file", 415)
            if stream.codec_context is None:
                raise Refused(
                    "not-an-image", "this video is in a format that is not known", "send it as MP4", 415
                )
            seconds = (container.duration or 0) / 1e6
            if not seconds and stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            if not seconds:  # as browsers record it
                seconds = _last_stamp(container, stream)
            if stream.frames > most_seconds * _MOST_RATE:
                raise too_long(most_seconds)
            return Claims(*shown_size(stream), max(0.0, seconds))
    except (av.FFmpegError, OSError, ValueError, EOFError, OverflowError, ZeroDivisionError) as error:
        raise broken("video") from error


def _last_stamp(container: object, stream: object) -> float:
    last = 0.0
    for packet in container.demux(stream):  # type: ignore[attr-defined]
        if packet.pts is not None and packet.time_base:
            last = max(last, float(packet.pts * packet.time_base))
    return last


def broken(what: str) -> Refused:
    """The refusal of a file, named by its kind, that is damaged."""
    return Refused("damaged", f"this {what} is damaged or cut short", "send the original file")


def too_many_pixels(limit: int | None) -> Refused:
    """The refusal of a picture with more pixels than this; None where the limit is not ours to say."""
    most = f": {limit / 1e6:g} million at most" if limit else ""
    return Refused("too-many-pixels", f"this has too many pixels{most}", "make it smaller", 413)


def too_long(limit: float) -> Refused:
    """The refusal of a video of more than so many seconds."""
    return Refused(
        "too-long", f"this video lasts too long: {limit:g} seconds at most", "send a part of it", 413
    )
