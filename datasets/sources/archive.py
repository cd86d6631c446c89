"""Zip archives as folders, read without being unpacked: most published sets are downloaded as one."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from crossfake.datasets.filetypes import HEAD, Kind, head_of, kind_of
from crossfake.datasets.sources.base import (
    SOURCES,
    Member,
    Record,
    Rejected,
    Source,
    SourceSpec,
)
from crossfake.datasets.sources.folder import IMAGES, VIDEOS, is_clutter, is_hidden, labelled, slashed
from crossfake.datasets.sources.naming import ByFolders
from crossfake.datasets.sources.tallies import LeftOut
from crossfake.errors import UserError

MAX_BYTES = 200_000_000  # of one unpacked file: a few kilobytes can claim to hold petabytes
_END = struct.Struct("<4s2H")  # of the central directory, up to the number of this part (APPNOTE 4.3.16)
_DAMAGED = (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error)
_TAIL = (1 << 16) + 22  # bytes that hold it: a comment may follow


@SOURCES.register("zip")
class Archive(Source):
    about = "images in a zip archive"
    takes_labels = True

    def recognises(self, root: Path) -> bool:
        return root.is_file() and (root.suffix.lower() == ".zip" or kind_of(head_of(root)) == "archive")

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        """Images in the order of sorted names, labelled by their folders as those of any folder.

        Names that climb out of the archive are listed as skipped.
        """
        source = spec.path.resolve().stem
        entries = _entries(spec.path)
        by = ByFolders({os.path.dirname(way) for way, _ in entries if os.path.dirname(way)}, spec.labels)
        for way, kind, found in _members(spec.path, entries, spec.left_out):
            image: Member | Rejected = found
            if kind == "video" and isinstance(found, Member):
                image = Rejected("video in an archive", "unpack it")
            record = labelled(Record(image, origin=way, source=source), by)
            yield replace(record, image=image) if isinstance(image, Rejected) else record

    def fixture(self, out: Path) -> Path:
        """``faces.zip`` with three faces."""
        from crossfake.datasets.sources.fixtures import face_bytes

        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(out / "faces.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"faces/{number}.png", face_bytes(number, "PNG"))
        return out / "faces.zip"


def members(path: Path, left_out: LeftOut) -> Iterator[tuple[str, Kind, Member | Rejected]]:
    """Pictures and videos of a zip archive: each one's path in it with ``/``, what it is, and where, or why not.

    Args:
        left_out: where its other files are listed.

    Raises:
        UserError: it is damaged, or one part of several.
    """
    return _members(path, _entries(path), left_out)


def _entries(path: Path) -> list[tuple[str, zipfile.ZipInfo]]:
    """Files by their paths, with ``/`` whatever Windows wrote, in order."""
    if is_one_of_several(path):
        raise UserError(
            f"{path} is one part of an archive in several",
            hint=f"join them: zip -s 0 {path.with_suffix('.zip').name} --out whole.zip",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [(slashed(entry.filename), entry) for entry in archive.infolist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a whole zip archive ({error})", hint="download it again") from error
    files = [(way, entry) for way, entry in entries if not way.endswith("/") and not is_hidden(way)]
    return sorted(files, key=lambda pair: pair[0])


def is_one_of_several(path: Path) -> bool:
    """Whether a zip archive is a part of several, whose other parts hold most of what its list names."""
    try:
        with open(path, "rb") as file:
            if file.read(4) == b"PK\7\x08":
                return True
            file.seek(-min(path.stat().st_size, _TAIL), os.SEEK_END)
            tail = file.read()
    except OSError:
        return False
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        return False
    number = int(_END.unpack_from(tail, at)[1])
    return 0 < number < 0xFFFF  # ZIP64 writes the largest number where it says it elsewhere


def _members(
    path: Path, entries: list[tuple[str, zipfile.ZipInfo]], left_out: LeftOut
) -> Iterator[tuple[str, Kind, Member | Rejected]]:
    seen = ""
    for way, entry in entries:
        ending = os.path.splitext(way)[1].lower()
        kind: Kind | None = "image" if ending in IMAGES else "video" if ending in VIDEOS else None
        if kind is None:
            if is_clutter(way):
                continue
            head = _head(path, entry)
            kind = kind_of(head)
            if kind is None or kind == "archive":
                left_out.add_file(way, head)
                continue
        found: Member | Rejected = Member(path, entry.filename)
        if way.startswith("/") or ".." in way.split("/") or re.match("[A-Za-z]:/", way):
            found = Rejected("unsafe name", "it leads out of the archive")
        elif entry.flag_bits & 1:
            found = Rejected("unreadable", "it is encrypted")
        elif entry.file_size > MAX_BYTES:
            found = Rejected("unreadable", f"it unpacks to {entry.file_size:,} bytes")
        elif way == seen:
            found = Rejected("unreadable", "a second file of the same name")
        seen = way
        yield way, kind, found


def _head(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """The first bytes of a member; none of one that cannot be read."""
    try:
        with _archive(str(path), os.getpid()).open(entry) as file:
            return file.read(HEAD)
    except _DAMAGED:
        return b""


def read(member: Member) -> bytes:
    """The bytes of a member, no more than its listing promised.

    Raises:
        OSError: the archive is damaged there.
    """
    try:
        with _archive(str(member.archive), os.getpid()).open(member.name) as file:
            content = file.read(MAX_BYTES + 1)
    except _DAMAGED as error:
        raise OSError(f"damaged in the archive: {error}") from error
    if len(content) > MAX_BYTES:
        raise OSError("it unpacks to more than its archive says")
    return content


@lru_cache(maxsize=4)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """One open archive per process: its directory may be long."""
    return zipfile.ZipFile(path)
