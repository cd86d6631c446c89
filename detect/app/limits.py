"""How much the page and the API take from a stranger; checked before anything is decoded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from crossfake.errors import UserError

MIB = 1 << 20


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

    bytes_image: int = 32 * MIB
    bytes_video: int = 256 * MIB
    bytes_archive: int = 512 * MIB
    pixels: int = 64_000_000
    frames: int = 64
    seconds: float = 600
    files: int = 500
    faces: int = 32

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value >= 1 or value == float("inf"):
                raise UserError(
                    f"a limit of {value} {field.name} is none", mend=f"give {field.name} as 1 or more"
                )

    def bytes_of(self, kind: str) -> int:
        """The most bytes of an ``image``, a ``video`` or an ``archive``."""
        return {"image": self.bytes_image, "video": self.bytes_video, "archive": self.bytes_archive}[kind]


DEFAULTS = Limits()
