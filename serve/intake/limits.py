"""How much the page and the API take from a stranger; checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from crossfake.bounds import MOST, Bounds, Count, check_bounds

MIB = 1 << 20
Bytes = Annotated[int, Bounds(1, 2**63 - 1)]


@dataclass(frozen=True)
class Limits:
    """The most that is accepted. What is beyond is refused with a code, never cut down silently.

    Attributes:
        bytes_image: of one picture.
        bytes_video: of one video.
        bytes_archive: of a zip file, and of all that it unpacks to.
        pixels: of a picture, and of a video's frame.
        frames: of a video that are looked at, evenly spread.
        seconds: a video may last.
        files: of an archive or a batch.
        faces: of a picture, and people of a video, that are judged, the largest first.

    Raises:
        UserError: one of them is not at least 1.

    Example:
        >>> Limits(pixels=1000).pixels
        1000
    """

    bytes_image: Bytes = 32 * MIB
    bytes_video: Bytes = 256 * MIB
    bytes_archive: Bytes = 512 * MIB
    pixels: Count = 64_000_000
    frames: Count = 64
    seconds: Annotated[float, Bounds(1, MOST)] = 600
    files: Count = 500
    faces: Count = 32

    def __post_init__(self) -> None:
        check_bounds(self, prefix="")

    def bytes_of(self, kind: str) -> int:
        """The most bytes of an ``image``, a ``video`` or an ``archive``."""
        return {"image": self.bytes_image, "video": self.bytes_video, "archive": self.bytes_archive}[kind]


DEFAULTS = Limits()
