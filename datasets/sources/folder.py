"""Any folder of images and videos: nested, formats mixed. Also how all sources walk folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from crossfake.datasets.filetypes import head_of, is_archive, kind_of
from crossfake.datasets.sources.base import (
    ON_REQUEST,
    SOURCES,
    Record,
    Rejected,
    Source,
    SourceSpec,
    is_shards,
)
from crossfake.datasets.sources.naming import SKIP, ByFolders
from crossfake.datasets.sources.tallies import LeftOut
from crossfake.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGES = _words(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif .heic .heif .jxl")
# .ts may as well be TypeScript: what is not listed here is known by its content
VIDEOS = _words(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mts .m2ts .vob .ogv")
_CLUTTER = _words("thumbs.db desktop.ini")


def is_video(path: object) -> bool:
    """Whether it is a file that holds a video, by its content; by its ending where that says nothing."""
    if not isinstance(path, Path):
        return False
    kind = kind_of(head_of(path))
    return kind == "video" if kind else path.suffix.lower() in VIDEOS


def named_video(path: PurePath) -> bool:
    """Whether a file's ending says that it is a video: for lists of frames, which nobody wants opened twice."""
    return path.suffix.lower() in VIDEOS


def slashed(name: str) -> str:
    """A path with ``/``, whatever Windows wrote; Python unpacks such an archive into one folder, with those names."""
    return name.replace("\\", "/")


@SOURCES.register("folder")
class Folder(Source):
    about = "any folder of images and videos, or one file"
    has_videos = True
    takes_labels = True

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        """Every image and video below a folder, in the order of sorted names.

        Where folders are called real and fake (in any of the usual words), they label what is in them, and what lies
        loose beside them is skipped; see :class:`~crossfake.datasets.sources.naming.ByFolders`.
        """
        root = spec.path
        if root.is_file():
            head = head_of(root)
            if root.suffix.lower() not in IMAGES | VIDEOS and kind_of(head) not in ("image", "video"):
                what = "an archive that is not read here" if is_archive(head) else "a file of another kind"
                raise UserError(f"{root} is {what}", hint="name an image, a video, a zip archive or a folder")
            yield Record(root, origin=root.name, source=root.resolve().stem)
            return
        if is_shards(root):
            raise UserError(f"{root} is a shard folder", hint=f"name it as it is, {root}")
        source = root.resolve().name
        by = ByFolders(_folders_below(root, set()), spec.labels)
        for path in walk(root, left_out=spec.left_out):
            origin = slashed(path.relative_to(root).as_posix())
            yield labelled(Record(path, origin=origin, source=source), by)


def labelled(record: Record, by: ByFolders) -> Record:
    """The record with what its folders say."""
    label = by.label(record.origin)
    if label == SKIP:
        return replace(record, image=ON_REQUEST)
    if label is None and by.is_beside_classes(record.origin):
        return replace(record, image=Rejected("not labelled", "its folder says neither real nor fake"))
    return replace(record, label=label, split=by.split(record.origin), generator=by.generator(record.origin))


def _folders_below(root: Path, seen: set[tuple[int, int]], above: str = "") -> Iterator[str]:
    """Paths of the folders below ``root``; those in names that Windows wrote count, too."""
    found = root.stat()
    if (found.st_dev, found.st_ino) in seen:
        return
    seen.add((found.st_dev, found.st_ino))
    within = set()
    for name, is_folder in _listing(root):
        if is_folder and not is_hidden(name):
            yield above + slashed(name)
            yield from _folders_below(root / name, seen, f"{above}{slashed(name)}/")
        elif "\\" in name:
            within.add(above + os.path.dirname(slashed(name)))
    yield from within


def walk(
    root: Path,
    extensions: frozenset[str] = IMAGES | VIDEOS,
    seen: set[tuple[int, int]] | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Path]:
    """Media files below ``root``; the names of one folder at a time are in memory, nothing else.

    A file with an ending that is not known is looked into. Hidden folders and shard folders are passed over. Links are
    followed, into each folder once.

    Args:
        left_out: where files of other kinds are listed.
    """
    yield from _walk(root, root, extensions, set() if seen is None else seen, left_out)


def _walk(
    top: Path, root: Path, extensions: frozenset[str], seen: set[tuple[int, int]], left_out: LeftOut | None
) -> Iterator[Path]:
    try:
        found = root.stat()
    except OSError as error:
        raise _unlisted(root, error) from error
    if (found.st_dev, found.st_ino) in seen:
        return
    seen.add((found.st_dev, found.st_ino))
    wanted = {kind for kind, known in (("image", IMAGES), ("video", VIDEOS)) if extensions & known}
    for name, is_folder in sorted(_listing(root)):
        ending = os.path.splitext(name)[1].lower()
        if is_folder:
            if not is_hidden(name) and not is_shards(root / name):
                yield from _walk(top, root / name, extensions, seen, left_out)
        elif name.startswith("._"):  # what Apple keeps beside a file is none itself
            continue
        elif ending in extensions:
            yield root / name
        elif ending not in IMAGES | VIDEOS and not is_clutter(name):
            head = head_of(root / name)
            if kind_of(head) in wanted:
                yield root / name
            elif left_out is not None:
                left_out.add_file(slashed((root / name).relative_to(top).as_posix()), head)


def _listing(root: Path) -> Iterator[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder."""
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                yield entry.name, _is_folder(entry)
    except OSError as error:
        raise _unlisted(root, error) from error


def _unlisted(root: Path, error: OSError) -> UserError:
    return UserError(f"{root} cannot be listed ({error.strerror})", hint="check its permissions")


def is_clutter(name: str) -> bool:
    """Whether systems put such a file in by themselves; Windows's folders, unpacked by Python, are empty files."""
    last = name.rsplit("/", 1)[-1]
    return last.startswith(".") or last.lower() in _CLUTTER or last.endswith("\\")


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders directly below ``root``; none when it is no folder."""
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if _is_folder(e) and not is_hidden(e.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{root} cannot be listed ({error.strerror})", hint="check its permissions"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def is_hidden(path: str) -> bool:
    """Whether a path leads through a hidden folder, or one that Apple adds to archives."""
    return any(name.startswith(".") and name != ".." or name == "__MACOSX" for name in path.split("/"))


def find_folders(root: Path, holding: frozenset[str], depth: int = 6) -> Iterator[Path]:
    """Folders at or below ``root`` that hold one of the names; what is below those is not searched."""
    names = subfolders(root)
    if holding.intersection(names):
        yield root
    elif depth:
        for name in names:
            if not (root / name).is_symlink():
                yield from find_folders(root / name, holding, depth - 1)
