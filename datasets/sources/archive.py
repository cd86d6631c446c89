"""Zip archives as folders, read without being unpacked: most published sets are downloaded as one."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from crossfake.datasets.sources import SOURCES, Asked, Member, Record, Rejected, Source
from crossfake.datasets.sources.folder import IMAGES, VIDEOS, is_hidden, labelled
from crossfake.datasets.sources.naming import ByFolders
from crossfake.errors import UserError

MAX_BYTES = 200_000_000  # of one unpacked file: a few kilobytes can claim to hold petabytes


@SOURCES.register("zip")
class Archive(Source):
    about = "images in a zip archive"

    def recognises(self, root: Path) -> bool:
        return root.suffix.lower() == ".zip" and root.is_file()

    def records(self, asked: Asked) -> Iterator[Record]:
        """Images in the order of sorted names, labelled by their folders as those of any folder.

        Names that climb out of the archive are listed as skipped.
        """
        source = asked.path.resolve().stem
        try:
            with zipfile.ZipFile(asked.path) as archive:
                entries = sorted(
                    (entry.filename, entry.file_size, entry.flag_bits) for entry in archive.infolist()
                )
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"{asked.path} is not a whole zip archive ({error})", mend="download it again"
            ) from error
        by = ByFolders({os.path.dirname(name) for name, _, _ in entries if os.path.dirname(name)})
        seen = ""
        for name, size, flags in entries:
            kind = os.path.splitext(name)[1].lower()
            if name.endswith("/") or kind not in IMAGES | VIDEOS or is_hidden(name):
                continue
            image: Member | Rejected = Member(asked.path, name)
            if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
                image = Rejected("unsafe name", "it leads out of the archive")
            elif kind in VIDEOS:
                image = Rejected("video in an archive", "unpack it")
            elif flags & 1:
                image = Rejected("unreadable", "it is encrypted")
            elif size > MAX_BYTES:
                image = Rejected("unreadable", f"it unpacks to {size:,} bytes")
            elif name == seen:
                image = Rejected("unreadable", "a second file of the same name")
            seen = name
            record = labelled(Record(image, origin=name, source=source), by)
            yield replace(record, image=image) if isinstance(image, Rejected) else record

    def fixture(self, out: Path) -> Path:
        """``faces.zip`` with three faces."""
        from crossfake.datasets.sources.fixtures import face_bytes

        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(out / "faces.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"faces/{number}.png", face_bytes(number, "PNG"))
        return out / "faces.zip"


def read(member: Member) -> bytes:
    """The bytes of a member, no more than its listing promised.

    Raises:
        OSError: the archive is damaged there.
    """
    try:
        with _archive(str(member.archive), os.getpid()).open(member.name) as file:
            content = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError) as error:
        raise OSError(f"damaged in the archive: {error}") from error
    if len(content) > MAX_BYTES:
        raise OSError("it unpacks to more than its archive says")
    return content


@lru_cache(maxsize=4)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """One open archive per process: its directory may be long."""
    return zipfile.ZipFile(path)
