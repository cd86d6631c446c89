"""Any folder of images and videos: nested, formats mixed. Also how all sources walk folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from crossfake.datasets.sources import SOURCES, Asked, Record, Rejected, Source, is_shards
from crossfake.datasets.sources.naming import ByFolders
from crossfake.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGES = _words(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif .heic .heif")
VIDEOS = _words(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp")


def is_video(path: object) -> bool:
    return isinstance(path, Path) and path.suffix.lower() in VIDEOS


@SOURCES.register("folder")
class Folder(Source):
    about = "any folder of images and videos, or one file"
    has_videos = True

    def records(self, asked: Asked) -> Iterator[Record]:
        """Every image and video below a folder, in the order of sorted names.

        Where folders are called real and fake (in any of the usual words), they label what is in them, and what is in
        none of them is skipped; see :class:`~crossfake.datasets.sources.naming.ByFolders`.
        """
        root = asked.path
        if root.is_file():
            if root.suffix.lower() not in IMAGES | VIDEOS:
                raise UserError(
                    f"{root} is a file of another kind", mend="name an image, a video or a folder"
                )
            yield Record(root, origin=root.name, source=root.resolve().stem)
            return
        if is_shards(root):
            raise UserError(f"{root} is a shard folder", mend=f"name it as it is, {root}")
        source = root.resolve().name
        by = ByFolders(_ways(root))
        for path in walk(root):
            origin = path.relative_to(root).as_posix()
            yield labelled(Record(path, origin=origin, source=source), by)


def labelled(record: Record, by: ByFolders) -> Record:
    """The record with what its folders say."""
    label = by.label(record.origin)
    if by.labelled and label is None:
        return replace(record, image=Rejected("not labelled", "its folder says neither real nor fake"))
    return replace(record, label=label, split=by.split(record.origin), generator=by.generator(record.origin))


def _ways(root: Path, depth: int = 4, way: str = "") -> Iterator[str]:
    """Paths of the folders below ``root``, ``depth`` levels deep."""
    for name in subfolders(root):
        yield way + name
        if depth > 1:
            yield from _ways(root / name, depth - 1, f"{way}{name}/")


def walk(
    root: Path, extensions: frozenset[str] = IMAGES | VIDEOS, seen: set[tuple[int, int]] | None = None
) -> Iterator[Path]:
    """Media files below ``root``; the names of one folder at a time are in memory, nothing else.

    Hidden folders and shard folders are passed over. Links are followed, into each folder once.
    """
    seen = set() if seen is None else seen
    try:
        found = root.stat()
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(root) as entries:
            names = sorted(
                (entry.name, is_folder)
                for entry in entries
                if (is_folder := _is_folder(entry)) or os.path.splitext(entry.name)[1].lower() in extensions
            )
    except OSError as error:
        raise UserError(
            f"{root} cannot be listed ({error.strerror})", mend="check its permissions"
        ) from error
    for name, is_folder in names:
        if not is_folder:
            yield root / name
        elif not is_hidden(name) and not is_shards(root / name):
            yield from walk(root / name, extensions, seen)


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders directly below ``root``; none when it is no folder."""
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if _is_folder(e) and not is_hidden(e.name))
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


def is_hidden(way: str) -> bool:
    """Whether a path leads through a hidden folder, or one that Apple adds to archives."""
    return any(name.startswith(".") and name != ".." or name == "__MACOSX" for name in way.split("/"))


def find_folders(root: Path, holding: frozenset[str], depth: int = 6) -> Iterator[Path]:
    """Folders at or below ``root`` that hold one of the names; what is below those is not searched."""
    names = subfolders(root)
    if holding.intersection(names):
        yield root
    elif depth:
        for name in names:
            if not (root / name).is_symlink():
                yield from find_folders(root / name, holding, depth - 1)
