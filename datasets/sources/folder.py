"""Any folder of images: nested, formats mixed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources import SOURCES, Asked, Record
from crossfake.errors import UserError

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
    ]
)


@SOURCES.register("folder")
def folder(asked: Asked) -> Iterator[Record]:
    """Every image file below a folder, in the order of sorted names; links to folders are not followed."""
    root = Path(asked.word)
    if root.is_file():
        raise UserError(f"{asked.word} is a file", mend="name the folder that it is in")
    for path in walk_images(root):
        yield Record(path, origin=path.relative_to(root).as_posix(), source=root.resolve().name)


def walk_images(root: Path) -> Iterator[Path]:
    """Image files below ``root``; one directory's names are in memory at a time."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{root} cannot be listed ({error.strerror})", mend="check its permissions"
        ) from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk_images(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file():
            yield Path(entry.path)
