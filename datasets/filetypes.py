"""What kind of file something is, by its first bytes: names and endings may say anything, or nothing."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal

Kind = Literal["image", "video", "archive"]
HEAD = 512  # bytes that the kind is read from

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF = {b"avif", b"avis"}  # brands; without one of them no decoder takes a file for AVIF
_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}  # QuickTime files that state no brand
# MPEG transport streams repeat one byte: its first place, and the length of a packet (cameras add a time stamp)
_TRANSPORT = ((0, 188), (4, 192))
_OTHER_ARCHIVES = (b"7z\xbc\xaf'\x1c", b"Rar!\x1a\x07", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"(\xb5/\xfd")
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # bytes of the second header: two letters alone say little


def kind_of(head: bytes) -> Kind | None:
    """What a file is, by its first 512 bytes; None for anything that is no picture, video or zip archive.

    Example:
        >>> kind_of(b"GIF89a" + bytes(10)), kind_of(b"plain text")
        ('image', None)
    """
    if picture_format(head):
        return "image"
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08"):  # the last: the first of several parts
        return "archive"
    if head[4:8] == b"ftyp" or head[4:8] in _BOXES:
        return "video"
    if head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"OggS", b"FLV\1", b"0&\xb2u"):
        return "video"  # Matroska and WebM, MPEG and VOB, Ogg, Flash, Windows Media
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video"
    for first, length in _TRANSPORT:
        packets = head[first:HEAD:length]
        if len(packets) > 2 and set(packets) == {0x47}:
            return "video"
    return None


def picture_format(head: bytes) -> str | None:
    """The name that PIL has for a picture's format; None for what is no picture."""
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[4:8] == b"ftyp":
        return "HEIF" if head[8:12] in _HEIC | AVIF else None
    if head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "JXL"
    if head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return "JPEG2000"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and head[3:4] in b"#0123456789":
        return "PPM"
    return None


def is_archive(head: bytes) -> bool:
    """Whether it is an archive of any kind, also of those that are not read."""
    return kind_of(head) == "archive" or head.startswith(_OTHER_ARCHIVES) or head[257:262] == b"ustar"


def head_of(path: Path) -> bytes:
    """The first bytes of a file; none of what is no file (a pipe might wait for ever) or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return b""
