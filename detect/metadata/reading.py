"""All that a file says of itself, read without running, fetching or trusting anything."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from crossfake.datasets import png
from crossfake.datasets.audit.files import jpeg_quality
from crossfake.datasets.decode import file_bytes, open_image
from crossfake.datasets.filetypes import HEAD, head_of, kind_of
from crossfake.datasets.video import import_av
from crossfake.detect.metadata import exif as exif_tags
from crossfake.detect.metadata.credentials import read_credentials, unchecked
from crossfake.detect.metadata.generators import read_claims
from crossfake.detect.metadata.results import ENTRIES, Claim, Entry, Jpeg, Metadata, cut
from crossfake.detect.metadata.thumbnail import read_thumbnail, stored_thumbnail
from crossfake.detect.metadata.xmp import SOURCE_TYPE, SOURCE_TYPES, read_xmp, source_type
from crossfake.errors import UserError

_MOST_TEXTS = 64
_MOST_UNPACKED = 4 << 20  # bytes of one text; deflate packs a gigabyte into a megabyte
_MOST_IN_ALL = 16 << 20
_MOST_PROFILE = 4 << 20
_SAMPLING = ("4:4:4", "4:2:2", "4:2:0")
_XMP = "XML:com.adobe.xmp"
_XMP_DATES = {
    "photoshop:DateCreated": "taken (XMP)",
    "xmp:CreateDate": "made (XMP)",
    "xmp:ModifyDate": "changed (XMP)",
    "xmp:MetadataDate": "metadata changed (XMP)",
}
_TEXT_DATES = {
    "Creation Time": "made",
    "creation_time": "made",
    "com.apple.quicktime.creationdate": "taken",
}
_SOFTWARE = (
    "Software",
    "ProcessingSoftware",
    "encoder",
    "com.apple.quicktime.software",
    "com.android.version",
)


def read_metadata(source: Path | bytes, anchors: str = "", thumbnail: bool = True) -> Metadata:
    """What a picture or a video says of itself. A hostile file costs some milliseconds and gives notes, no error.

    Args:
        source: the file, or what it holds.
        anchors: certificates (PEM) that signers of C2PA manifests are trusted by.
        thumbnail: compare a thumbnail in EXIF with the picture, which has to be decoded for it.

    Example:
        >>> read_metadata(b"GIF89a, but no more").notes
        ('The header cannot be read (no known image format).',)
    """
    head = source[:HEAD] if isinstance(source, bytes) else head_of(source)
    try:
        if kind_of(head) == "video":
            return _video(source, anchors)
        with warnings.catch_warnings(action="ignore"):  # of damaged tags: they are left out
            return _picture(file_bytes(source), anchors, thumbnail)
    except OSError as error:
        return Metadata("unknown", notes=(f"It cannot be read ({error.strerror or error}).",))


def _picture(content: bytes, anchors: str, thumbnail: bool) -> Metadata:
    notes: list[str] = []
    try:
        with open_image(content) as image:
            kind = str(image.format)
            texts = _texts(content, image, notes)
            exif = _exif(content, image, notes)
            packet = texts.pop(_XMP, "") or _packet(image.info.get("xmp") or "")
            jpeg = _jpeg(image)
            icc = _icc(image.info.get("icc_profile"), notes)
            raw = image.info.get("exif", b"")
    except Exception as error:  # PIL's parsers raise whatever they stumble over when bytes are wrong
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else cut(error, 120)
        return Metadata("unknown", notes=(f"The header cannot be read ({reason}).",))
    xmp = _xmp(packet, notes)
    small = None
    if thumbnail and (place := exif_tags.thumbnail_place(exif)):
        try:
            small = read_thumbnail(stored_thumbnail(raw, *place), content)
        except ValueError as error:
            notes.append(f"The thumbnail in EXIF cannot be read ({cut(error, 120)}).")
    credentials, signed = read_credentials(content, kind, anchors)
    if credentials.state == "absent" and "dcterms:provenance" in xmp:
        credentials = unchecked(": it lies elsewhere, and nothing is fetched.")
    tags = exif_tags.tags(exif)
    return _put_together(
        kind,
        texts,
        tags,
        xmp,
        signed,
        notes,
        credentials=credentials,
        thumbnail=small,
        jpeg=jpeg,
        icc=icc,
        place=exif_tags.place(exif),
    )


def _video(source: Path | bytes, anchors: str) -> Metadata:
    notes: list[str] = []
    texts: dict[str, str] = {}
    try:
        av = import_av()
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with av.open(file, metadata_errors="replace") as container:
            kind = str(container.format.name)
            for part in (container, *container.streams):
                for key, value in list(part.metadata.items())[:ENTRIES]:
                    texts.setdefault(str(key), str(value)[:_MOST_UNPACKED])
    except UserError as error:  # PyAV is not installed
        kind, notes = "video", [str(error)]
    except Exception as error:  # FFmpeg's and PyAV's errors have no class in common
        return Metadata("unknown", notes=(f"The header cannot be read ({cut(error, 120)}).",))
    with contextlib.suppress(ValueError, RecursionError):  # ComfyUI's videos hold both graphs in the comment
        inner = json.loads(texts.get("comment", ""))
        if isinstance(inner, dict):
            texts |= {key: _as_text(inner[key]) for key in ("prompt", "workflow") if key in inner}
    with _opened(source) as content:
        credentials, signed = read_credentials(content, "video", anchors)
    place = texts.get("com.apple.quicktime.location.ISO6709", texts.get("location", ""))
    return _put_together(kind, texts, {}, {}, signed, notes, credentials=credentials, place=cut(place, 60))


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    """What a file holds, without reading it into memory."""
    if isinstance(source, bytes):
        yield source
        return
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _put_together(
    kind: str,
    texts: dict[str, str],
    tags: dict[str, str],
    xmp: dict[str, str],
    signed: tuple[Claim, ...],
    notes: list[str],
    **more: Any,
) -> Metadata:
    get = {**texts, **tags}.get
    maker, model = (
        get("Make", get("com.apple.quicktime.make", "")),
        get("Model", get("com.apple.quicktime.model", "")),
    )
    camera = model if maker and model.startswith(maker) else f"{maker} {model}".strip()
    software = [get(name, "") for name in _SOFTWARE] + [xmp.get("xmp:CreatorTool", "")]
    listed = exif_tags.dates(tags)
    listed += [Entry(words, cut(xmp[name], 60)) for name, words in _XMP_DATES.items() if name in xmp]
    listed += [Entry(words, cut(texts[name], 60)) for name, words in _TEXT_DATES.items() if name in texts]
    unsigned = read_claims(texts, tags, xmp)
    source = source_type(xmp.get(SOURCE_TYPE, ""))
    return Metadata(
        format=kind,
        claims=(*signed, *(each for each in unsigned if each.tool not in {known.tool for known in signed})),
        source_type=cut(source, 80),
        source_words=SOURCE_TYPES.get(source, "a type that is not known here") if source else "",
        camera=cut(camera, 120),
        software=tuple(dict.fromkeys(cut(name, 120) for name in software if name)),
        dates=tuple(listed),
        exif=exif_tags.entries(tags),
        xmp=tuple(Entry(name, cut(value)) for name, value in xmp.items()),
        texts=tuple(Entry(cut(name, 80), cut(value)) for name, value in [*texts.items()][:ENTRIES]),
        notes=tuple(notes),
        **more,
    )


def _exif(content: bytes, image: Image.Image, notes: list[str]) -> Image.Exif:
    found = Image.Exif()
    try:
        if image.format != "PNG":  # whose own way there decodes the whole picture
            return image.getexif()
        for kind, start, end in png.chunks(content):
            if kind == b"eXIf":
                image.info["exif"] = b"Exif\0\0" + content[start + 8 : end - 4]
                found.load(image.info["exif"])
    except Exception as error:  # PIL raises whatever it stumbles over in a damaged block
        notes.append(f"EXIF cannot be read ({cut(error, 120)}).")
    return found


def _texts(content: bytes, image: Image.Image, notes: list[str]) -> dict[str, str]:
    """Comments and text chunks by name."""
    if image.format == "PNG":
        return _png_texts(content, notes)
    comment = image.info.get("comment")
    return {"comment": _as_text(comment)[:_MOST_UNPACKED]} if comment else {}


def _png_texts(content: bytes, notes: list[str]) -> dict[str, str]:
    """W3C PNG, sec. 11.3.3."""
    found: dict[str, str] = {}
    left = _MOST_IN_ALL
    for kind, start, end in png.chunks(content):
        if kind not in png.TEXT or len(found) == _MOST_TEXTS:
            continue
        name, _, rest = content[start + 8 : end - 4].partition(b"\0")
        packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
        if kind == b"iTXt":
            rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        elif packed:
            rest = rest[1:]
        key = cut(name.decode("latin-1"), 80)
        most = min(_MOST_UNPACKED, left)
        try:
            text = zlib.decompressobj().decompress(rest, most + 1) if packed else rest[: most + 1]
        except zlib.error:
            notes.append(f"The text '{key}' cannot be unpacked.")
            continue
        if len(text) > most:
            notes.append(f"The text '{key}' is longer than {most:,} bytes: only its start was read.")
            text = text[:most]
        left -= len(text)
        found.setdefault(key, _as_text(text))
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return value if isinstance(value, str) else json.dumps(value)


def _packet(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _xmp(packet: str, notes: list[str]) -> dict[str, str]:
    try:
        return {each.name: each.value for each in read_xmp(packet)} if packet.strip("\0 \n") else {}
    except ValueError as error:
        notes.append(f"XMP cannot be read ({cut(error, 120)}).")
        return {}


def _jpeg(image: Image.Image) -> Jpeg | None:
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    quality, distance = jpeg_quality(tables[min(tables)])
    sampling = JpegImagePlugin.get_sampling(image) if image.mode == "RGB" else -1
    return Jpeg(
        quality,
        distance == 0,
        _SAMPLING[sampling] if sampling >= 0 else "",
        bool(image.info.get("progressive")),
        tuple(tuple(map(int, tables[number])) for number in sorted(tables)[:4]),
    )


def _icc(profile: bytes | None, notes: list[str]) -> str:
    if not profile:
        return ""
    try:
        if len(profile) > _MOST_PROFILE:
            raise ValueError(f"it has {len(profile):,} bytes")
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return cut(ImageCms.getProfileDescription(opened), 120) or "without a description"
    except Exception as error:  # LittleCMS says no more than that it failed
        notes.append(f"The colour profile cannot be read ({cut(error, 80)}).")
        return ""
