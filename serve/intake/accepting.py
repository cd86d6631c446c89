"""What a stranger sends, looked at before anything is decoded: kind by content, size, pixels, length, archives."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossfake.datasets.animation import may_move
from crossfake.datasets.filetypes import HEAD, is_archive
from crossfake.provenance import hash_file
from crossfake.serve.intake.headers import (
    Refused,
    broken,
    kind_of,
    read_picture,
    read_video,
    too_long,
    too_many_pixels,
)
from crossfake.serve.intake.limits import DEFAULTS, MIB, Limits

TAKEN = "JPEG, PNG, WebP, HEIC, GIF and TIFF pictures, videos, and zip archives of them"
_LONGEST_NAME = 80
_RATIO = 100  # pictures and videos hardly shrink; bombs do a thousandfold
_ENTRY = 1024  # bytes that an archive's directory may take for each file that is allowed
_END = struct.Struct("<4s4H2LH")  # end of the central directory (APPNOTE 4.3.16)
_LONGEST_COMMENT = 65535
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Received:
    """One file of a request: where it lies, and what its sender calls it, which is only shown."""

    path: Path
    name: str


@dataclass(frozen=True)
class Upload:
    """A file that passed.

    Attributes:
        path: where it lies; its name there says nothing.
        kind: ``image``, ``video`` (an animated picture is one) or ``archive``, by content; ``unknown`` for one of
            several files that was refused.
        sha256: of its bytes.
        bytes: how many.
        name_for_display: cleaned, at most 80 characters, never a path.
        width: in pixels as stored; 0 when not known before decoding.
        height: likewise.
        seconds: that a video lasts; 0 when unknown.
        animated: a picture with more frames or pages than the first.
        refused: why it is not taken; None of one that passed.
    """

    path: Path
    kind: str
    sha256: str
    bytes: int
    name_for_display: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    animated: bool = False
    refused: Refused | None = None


@contextlib.contextmanager
def session_folder() -> Iterator[Path]:
    """A private folder (mode 0700) that is deleted with all in it when left.

    Example:
        >>> with session_folder() as folder:
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """
    folder = Path(tempfile.mkdtemp(prefix="crossfake-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def display_name(name: str) -> str:
    """A stranger's file name as it may be shown: no folders, no control characters, at most 80 characters.

    Example:
        >>> display_name("../../etc/passwd")
        'passwd'
        >>> display_name("")
        'file'
    """
    from crossfake.detect.prediction.output import printable  # brings torch

    shown = printable(re.split(r"[/\\]", name)[-1].strip())
    if len(shown) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        shown = f"{shown[: half - 1]}…{shown[-half:]}"
    return shown or "file"


def accept(path: Path, limits: Limits = DEFAULTS, name: str = "") -> Upload:
    """Check a file without decoding it.

    Args:
        path: the file.
        name: what the sender calls it; shown, cleaned, and otherwise not used.

    Raises:
        Refused: it is too much, damaged, or of no kind that is taken.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise broken("file")
        if not found.st_size:
            raise Refused("empty", "the file is empty", "send another one")
        with open(path, "rb") as file:
            head = file.read(HEAD)
        kind = kind_of(head)
        if kind is None:
            raise Refused(
                "not-an-image", f"this is no file of a known kind: {TAKEN}", "send one of those", 415
            )
        if found.st_size > limits.bytes_of(kind):
            raise _too_large(limits.bytes_of(kind))
        upload = Upload(path, kind, hash_file(path), found.st_size, display_name(name))
    except OSError as error:
        raise broken("file") from error
    if kind == "archive":
        return upload
    claims = read_picture(path, head) if kind == "image" else read_video(path, limits.seconds)
    if max(claims.width * claims.height, claims.tile) > limits.pixels:
        raise too_many_pixels(limits.pixels)
    if min(claims.width, claims.height) < 1:
        raise broken(kind)
    if claims.seconds > limits.seconds:
        raise too_long(limits.seconds)
    if claims.animated and may_move(head):
        upload = replace(upload, kind="video")
    return replace(
        upload, width=claims.width, height=claims.height, seconds=claims.seconds, animated=claims.animated
    )


def accept_all(received: Sequence[Received], folder: Path, limits: Limits = DEFAULTS) -> list[Upload]:
    """Many files, those of zip archives among them; one that is not taken is listed with why.

    Args:
        received: as they came.
        folder: private; takes what is unpacked.

    Raises:
        Refused: the only one is an archive that is not taken, or all together are too much, which is looked at before
            the next one is unpacked.
    """
    uploads: list[Upload] = []
    for each in received:
        archive = False
        try:
            upload = accept(each.path, limits, each.name)
            archive = upload.kind == "archive"
            if archive:
                inside = folder / f"archive-{len(uploads)}"
                inside.mkdir()
                uploads += unpack(upload, inside, limits)
                upload.path.unlink()
            else:
                uploads.append(upload)
        except Refused as error:
            if archive and len(received) == 1:
                raise
            uploads.append(_not_taken(each.path, display_name(each.name), error))
        if len(uploads) > limits.files:
            raise _too_many_files(limits)
        if sum(upload.bytes for upload in uploads) > limits.bytes_archive:
            raise _too_large(limits.bytes_archive, "these are too many bytes")
    return uploads


def unpack(upload: Upload, folder: Path, limits: Limits = DEFAULTS) -> list[Upload]:
    """The files of a zip archive, written to ``folder`` under numbers.

    A file that is not taken alone is listed with why; an archive that is unsafe is refused as a whole.
    What systems put in beside the files (``__MACOSX``, names that begin with a dot) is left out.

    Raises:
        Refused: it has too many files or bytes, a bomb, links, paths that leave it, passwords, or archives in it.
    """
    try:
        _check_directory(upload.path, upload.bytes, limits)
        with zipfile.ZipFile(upload.path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            for member in members:
                _check_member(member)
            members = [each for each in members if not _is_clutter(each.filename)]
            if len(members) > limits.files:
                raise _too_many_files(limits)
            if sum(each.file_size for each in members) > limits.bytes_archive:
                raise _too_large(limits.bytes_archive, "this unpacks to too much")
            left = limits.bytes_archive
            uploads = []
            for number, member in enumerate(members):
                uploads.append(_extract(archive, member, folder / f"{number:05d}", left, limits))
                left -= uploads[-1].bytes
            return uploads
    except Refused:
        raise
    except Exception as error:  # zipfile raises whatever it stumbles over when bytes are wrong
        raise broken("archive") from error


def _check_directory(path: Path, size: int, limits: Limits) -> None:
    """Refuse a list of files that alone would fill the memory, before zipfile reads it."""
    with open(path, "rb") as file:
        file.seek(-min(size, _END.size + _LONGEST_COMMENT), 2)
        tail = file.read()
    at = len(tail) - _END.size
    if tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":  # zipfile looks for it in the same order
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise broken("archive")
    part, *_, count, length = _END.unpack_from(tail, at)[1:6]
    if 0 < part < 0xFFFF:
        raise Refused("unsafe-archive", "this is one part of an archive in several", "join them first")
    if length == 0xFFFFFFFF or tail[max(0, at - 20) : at][:4] == b"PK\6\7":
        raise Refused("unsafe-archive", "this archive is in the ZIP64 format", "pack fewer files")
    if length > MIB + limits.files * _ENTRY:
        raise _too_many_files(limits)
    if not count:
        raise Refused("empty", "the archive is empty", "send another one")


def _check_member(member: zipfile.ZipInfo) -> None:
    name, mode = member.filename, member.external_attr >> 16
    parts = re.split(r"[/\\]", member.orig_filename)
    if (
        name.startswith(("/", "\\"))
        or ".." in parts
        or re.match(r"[A-Za-z]:", name)
        or "\0" in member.orig_filename
    ):
        raise Refused("unsafe-archive", "a path in this archive leads out of it", "pack it anew")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise Refused("unsafe-archive", "this archive holds links or devices", "pack the files themselves")
    if member.flag_bits & 0x41:
        raise Refused("encrypted", "this archive has a password", "pack it without one")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("unsafe-archive", "this archive is packed in an unusual way", "pack it as a plain zip")
    if member.file_size > MIB and member.file_size > _RATIO * max(1, member.compress_size):
        raise _bomb()


def _extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, limits: Limits
) -> Upload:
    name, written = display_name(member.filename), 0
    try:
        with archive.open(member) as source:
            head = source.read(HEAD)
            if is_archive(head):
                raise Refused("nested-archive", "this archive holds other archives", "unpack those first")
            kind = kind_of(head)
            if kind is None:
                raise Refused("not-an-image", "not a picture or video", "leave it out")
            most = limits.bytes_of(kind)
            with open(target, "xb") as out:
                while head and written <= most:
                    out.write(head)
                    written += len(head)
                    if written > left:  # whatever its directory says
                        raise _too_large(limits.bytes_archive, "this unpacks to too much")
                    if written > max(MIB, _RATIO * member.compress_size):
                        raise _bomb()
                    head = source.read(_CHUNK)
        if written > most:
            raise _too_large(most)
        return accept(target, limits, member.filename)
    except Refused as error:
        if error.code in ("nested-archive", "unsafe-archive") or written > left:
            raise
        return _not_taken(target, name, error, written)
    except (zipfile.BadZipFile, zlib.error, EOFError):  # the others may be whole
        return _not_taken(target, name, Refused("damaged", "damaged in the archive", "pack it anew"), written)


def _not_taken(target: Path, name: str, why: Refused, written: int = 0) -> Upload:
    target.unlink(missing_ok=True)
    return Upload(target, "unknown", "", written, name, refused=why)


def _bomb() -> Refused:
    return Refused("unsafe-archive", "this archive unpacks to far more than it holds", "pack it anew")


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith(".")


def _too_large(limit: int, what: str = "this is too large") -> Refused:
    return Refused("too-large", f"{what}: {limit / MIB:g} MiB at most", "send something smaller", 413)


def _too_many_files(limits: Limits) -> Refused:
    return Refused("too-many-files", f"this holds too many files: {limits.files} at most", "send fewer", 413)
