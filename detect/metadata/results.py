"""What a file says of itself: plain data, all of which anyone can write or remove unless a signature covers it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from crossfake.datasets.types import Pixels

PROMPT = 2_000  # letters of a prompt that are kept
VALUE = 300  # of any other value
ENTRIES = 150  # of one kind


@dataclass(frozen=True)
class Entry:
    """A name and what stands under it, both as the file has them, cut to a length."""

    name: str
    value: str


@dataclass(frozen=True)
class Claim:
    """A mark by which a file says that a generator made it, or a part of it.

    Attributes:
        tool: the generator as the mark names it, or that of the mark's kind; empty when it names none.
        where: the place in the file that says so.
        part: a part of the picture alone is said to be generated.
        signed: name in the certificate that signs the mark, where that is trusted and the signature holds; else empty.
        model: the generator's weights, where the mark names them.
        prompt: what it was asked for.
        negative: what it was asked to leave out.
        settings: other values, as the mark has them.
    """

    tool: str
    where: str
    part: bool = False
    signed: str = ""
    model: str = ""
    prompt: str = ""
    negative: str = ""
    settings: tuple[Entry, ...] = ()

    @property
    def sentence(self) -> str:
        """
        Example:
            >>> Claim("ComfyUI", "PNG text 'prompt'", model="sdxl").sentence
            'This file says that it was made with ComfyUI, model sdxl.'
        """
        what = "a part of it was made" if self.part else "it was made"
        tool = self.tool or "a generator"
        return f"This file says that {what} with {tool}{f', model {self.model}' if self.model else ''}."


@dataclass(frozen=True)
class Thumbnail:
    """The small picture that cameras and editors put into EXIF.

    Attributes:
        width: in pixels.
        height: likewise.
        likeness: correlation of its grey values with those of the picture, -1 to 1; None when either is of one colour.
        matches: whether it shows the picture.
        words: what that means.
        picture: uint8 ``[h, w, 3]``, as it is stored, not turned.
    """

    width: int
    height: int
    likeness: float | None
    matches: bool
    words: str
    picture: Pixels | None = None


@dataclass(frozen=True)
class Jpeg:
    """How a JPEG file was compressed when it was last saved.

    Attributes:
        quality: of libjpeg's scale, 1 to 100, whose luminance table is nearest.
        standard: whether the luminance table is exactly libjpeg's of that quality.
        sampling: of colour, ``4:4:4``, ``4:2:2`` or ``4:2:0``; empty for grey and for any other.
        progressive: whether it is stored in several passes.
        tables: the quantisation tables, 64 steps each in raster order, that of luminance first.
    """

    quality: int
    standard: bool
    sampling: str
    progressive: bool
    tables: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Credentials:
    """A C2PA manifest ("Content Credentials").

    Attributes:
        state: ``absent``; ``valid``: the signature holds, and its signer is on the list of trusted certificates;
            ``untrusted``: it holds, but nobody here vouches for the signer; ``invalid``: the file or the manifest was
            changed since, or the signature does not hold; ``unchecked``: there is one, but it could not be looked at.
        words: the state in words.
        signer: name in the signing certificate, which is the signer's word alone unless the state is ``valid``.
        issuer: its organisation.
        generator: program that wrote the manifest.
        title: of the file, as the manifest has it.
        when: time of the signature; empty when it states none.
        actions: what is said to have been done, the oldest manifest first.
        problems: codes of what does not hold (C2PA specification, validation status codes).
    """

    state: str
    words: str
    signer: str = ""
    issuer: str = ""
    generator: str = ""
    title: str = ""
    when: str = ""
    actions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself beside its pixels. All of it but a valid signature can be written by anyone.

    Attributes:
        format: of the file, by its content.
        claims: marks of generators; one outranks what a detector says, as far as such a mark is believed.
        credentials: the C2PA manifest, or that there is none.
        source_type: IPTC's digital source type, such as ``trainedAlgorithmicMedia``; empty when it states none.
        source_words: the same in words.
        camera: maker and model.
        software: programs that name themselves.
        dates: when it was taken, changed or saved, as written.
        place: latitude and longitude in degrees; empty when unknown.
        thumbnail: null when there is none.
        jpeg: null for other formats.
        icc: description of the colour profile; empty without one.
        exif: all tags.
        xmp: all properties.
        texts: comments and text chunks.
        notes: what could not be read, and why, a sentence each.
    """

    format: str
    claims: tuple[Claim, ...] = ()
    credentials: Credentials = Credentials("absent", "No C2PA manifest.")
    source_type: str = ""
    source_words: str = ""
    camera: str = ""
    software: tuple[str, ...] = ()
    dates: tuple[Entry, ...] = ()
    place: str = ""
    thumbnail: Thumbnail | None = None
    jpeg: Jpeg | None = None
    icc: str = ""
    exif: tuple[Entry, ...] = ()
    xmp: tuple[Entry, ...] = ()
    texts: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the thumbnail's pixels."""
        bare = self.thumbnail and dataclasses.replace(self.thumbnail, picture=None)
        found = dataclasses.asdict(dataclasses.replace(self, thumbnail=bare))
        if found["thumbnail"]:
            del found["thumbnail"]["picture"]
        return found


def cut(value: object, most: int = VALUE) -> str:
    """Text of a stranger to show: no control characters but line feeds, and no longer than ``most``.

    Example:
        >>> cut("a\\x1b[2Jb\\u202e", 300), cut("abcdef", 3)
        ('a[2Jb', 'abc…')
    """
    text = str(value)[: 4 * most].replace("\r\n", "\n")
    text = "".join(c for c in text if c.isprintable() or c == "\n").strip()
    return text if len(text) <= most else f"{text[:most]}…"
