"""EXIF as text: tags by name, where and when a picture was taken, and the thumbnail's place."""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image

from crossfake.detect.metadata.results import ENTRIES, Entry, cut

_POINTERS = {tag.value for tag in ExifTags.IFD} | {513, 514}
_COMMENTS = {
    b"ASCII\0\0\0": "utf-8",
    b"UNICODE\0": "utf-16",
    b"JIS\0\0\0\0\0": "iso2022_jp",
    bytes(8): "utf-8",
}
_DATES = {
    "DateTimeOriginal": "taken",
    "DateTimeDigitized": "digitised",
    "DateTime": "file changed",
    "PreviewDateTime": "preview made",
}
_LONGEST = 4 << 20  # letters of a tag that generators are looked for in


def tags(exif: Image.Exif) -> dict[str, str]:
    """All tags as whole text, by name."""
    found: dict[str, str] = {}
    for directory, names in (
        (dict(exif), ExifTags.TAGS),
        (_directory(exif, ExifTags.IFD.Exif), ExifTags.TAGS),
        (_directory(exif, ExifTags.IFD.GPSInfo), ExifTags.GPSTAGS),
    ):
        for tag, value in directory.items():
            if tag not in _POINTERS and len(found) < ENTRIES:
                name = names.get(tag, f"tag {tag:#06x}")
                if text := _text(name, value):
                    found.setdefault(name, text)
    return found


def entries(found: dict[str, str]) -> tuple[Entry, ...]:
    """To be shown: names as they are, values without control characters and not too long."""
    return tuple(Entry(name, cut(value)) for name, value in found.items())


def dates(found: dict[str, str]) -> list[Entry]:
    """When it was taken, digitised and changed, as EXIF has it, with the zone where one is given."""
    listed = []
    for name, words in _DATES.items():
        if name in found:
            zone = found.get(name.replace("DateTime", "OffsetTime"), "")
            listed.append(Entry(words, cut(f"{found[name]} {zone}".strip(), 60)))
    return listed


def place(exif: Image.Exif) -> str:
    """Latitude and longitude in degrees; empty when they are not there, or make no sense."""
    gps = _directory(exif, ExifTags.IFD.GPSInfo)
    try:
        sides = []
        for reference, value, most in ((1, 2, 90), (3, 4, 180)):
            degrees, minutes, seconds = (float(part) for part in gps[value])
            total = degrees + minutes / 60 + seconds / 3600
            if not 0 <= total <= most:
                return ""
            sides.append(f"{-total if str(gps.get(reference, ''))[:1] in 'SW' else total:.5f}")
        return ", ".join(sides)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ""


def thumbnail_place(exif: Image.Exif) -> tuple[int, int] | None:
    """Where the thumbnail starts, and how long it is."""
    second = _directory(exif, ExifTags.IFD.IFD1)
    start, length = second.get(513), second.get(514)
    return (start, length) if isinstance(start, int) and isinstance(length, int) else None


def _directory(exif: Image.Exif, which: int) -> dict[int, Any]:
    try:
        return dict(exif.get_ifd(which))
    except Exception:  # PIL raises whatever it stumbles over in a damaged block
        return {}


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes):
        if name == "UserComment":
            return _comment(value)
        if name.startswith("XP"):
            return value.decode("utf-16-le", "replace").strip("\0 ")
        text = value.rstrip(b"\0")
        plain = len(text) < 64 and all(32 <= byte < 127 for byte in text)
        return text.decode("ascii") if plain else f"{len(value):,} bytes"
    if isinstance(value, tuple | list):
        shown = ", ".join(_text(name, each) for each in value[:16])
        return f"{shown}, …" if len(value) > 16 else shown
    if isinstance(value, str):
        return value[:_LONGEST].strip("\0 ")
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError, ZeroDivisionError):
        return str(value)


def _comment(value: bytes) -> str:
    """EXIF 3.0, sec. 4.6.6, UserComment: eight bytes name the code; of UTF-16 programs differ in the order of bytes."""
    code, body = _COMMENTS.get(value[:8]), value[8 : 8 + _LONGEST]
    if code is None:
        return value[:_LONGEST].decode("utf-8", "replace").strip("\0 ")
    if code == "utf-16":
        code = "utf-16-be" if body[:200:2].count(0) > body[1:200:2].count(0) else "utf-16-le"
    return body.decode(code, "replace").strip("\0\ufeff ")
