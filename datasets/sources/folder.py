"""Any folder of images and videos: nested, formats mixed. Also how all sources walk folders and name classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources import SOURCES, Asked, Record, Source
from crossfake.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGES = _words(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif .heic .heif")
VIDEOS = _words(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp")
_REAL = _words("real reals 0_real nature natural genuine authentic original human pristine bonafide")
_FAKE = _words(
    "fake fakes 1_fake ai synthetic generated artificial deepfake deepfakes ai-generated manipulated"
)


@SOURCES.register("folder")
class Folder(Source):
    about = "any folder of images and videos, or one file"
    has_videos = True

    def records(self, asked: Asked) -> Iterator[Record]:
        """Every image and video below a folder, in the order of sorted names; links to folders are not followed.

        Where the folders directly below say real and fake (in any of the usual words, and nothing else), they label
        what is in them.
        """
        root = asked.path
        if root.is_file():
            if root.suffix.lower() not in IMAGES | VIDEOS:
                raise UserError(
                    f"{root} is a file of another kind", mend="name an image, a video or a folder"
                )
            yield Record(root, origin=root.name, source=root.resolve().stem)
            return
        source = root.resolve().name
        classes = {name: label_of(name) for name in subfolders(root)}
        labelled = {0, 1} == set(classes.values())
        for path in walk(root):
            origin = path.relative_to(root).as_posix()
            label = classes.get(origin.split("/")[0]) if labelled else None
            yield Record(path, origin=origin, source=source, label=label)


def walk(root: Path, extensions: frozenset[str] = IMAGES | VIDEOS) -> Iterator[Path]:
    """Media files below ``root``; the names of one folder at a time are in memory, nothing else."""
    try:
        with os.scandir(root) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in extensions
                or entry.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        raise UserError(
            f"{root} cannot be listed ({error.strerror})", mend="check its permissions"
        ) from error
    for name, is_folder in names:
        if is_folder:
            yield from walk(root / name, extensions)
        elif not (
            root / name
        ).is_dir():  # a link to a folder; one that leads nowhere is listed as unreadable later
            yield root / name


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders directly below ``root``; none when it is no folder."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{root} cannot be listed ({error.strerror})", mend="check its permissions"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def find_folders(root: Path, holding: frozenset[str], depth: int = 6) -> Iterator[Path]:
    """Folders at or below ``root`` that hold one of the names; what is below those is not searched."""
    names = subfolders(root)
    if holding.intersection(names):
        yield root
    elif depth:
        for name in names:
            if not (root / name).is_symlink():
                yield from find_folders(root / name, holding, depth - 1)


def label_of(name: str) -> int | None:
    """0 for a class called real, 1 for one called fake, in the words that published sets use; None for others."""
    word = name.strip().lower()
    return 0 if word in _REAL else 1 if word in _FAKE else None


def split_of(name: str) -> str:
    """``train``, ``val`` or ``test`` for what published sets call them; empty for anything else."""
    word = name.strip().lower()
    return {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "dev": "val",
    }.get(word, "test" if word.startswith("test") else "")
