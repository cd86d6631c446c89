"""Metadata as a reader sees it: sections of rows and sentences, for the page, the report and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crossfake.detect.metadata.results import Claim, Credentials, Entry, Jpeg, Metadata
from crossfake.pages import plural

NO_PROOF = "Anyone can write such a mark, and saving the picture anew removes it."
SIGNED = "It is signed by {}, whose certificate is trusted, and the signature holds."
_STATES = {
    "absent": "none",
    "valid": "valid",
    "untrusted": "the signature holds, the signer is not known",
    "invalid": "invalid",
    "unchecked": "not checked",
}


@dataclass(frozen=True)
class Section:
    """A part of the panel.

    Attributes:
        title: what it is about.
        rows: names and values.
        words: sentences below them.
        folded: whether it is long, and only for whoever opens it.
    """

    title: str
    rows: tuple[Entry, ...] = ()
    words: tuple[str, ...] = ()
    folded: bool = False


def claim_words(metadata: Metadata | None) -> str:
    """What goes before every verdict where a file names its generator; empty where it names none."""
    if metadata is None or not metadata.claims:
        return ""
    first = metadata.claims[0]
    return f"{first.sentence} {SIGNED.format(first.signed) if first.signed else NO_PROOF}"


def sections(metadata: Metadata) -> list[Section]:
    """The panel: what names a generator first, then what says where the file comes from, then the rest."""
    found = [_claim(each) for each in metadata.claims]
    found.append(_credentials(metadata.credentials))
    found.append(Section("Where it comes from", tuple(_origin(metadata))))
    if metadata.thumbnail:
        small = metadata.thumbnail
        alike = () if small.likeness is None else (Entry("Likeness", f"{small.likeness:.2f}"),)
        found.append(
            Section("Thumbnail", (Entry("Size", f"{small.width}×{small.height}"), *alike), (small.words,))
        )
    found.append(Section("How it was saved", tuple(_saving(metadata))))
    for title, rows in (("EXIF", metadata.exif), ("XMP", metadata.xmp), ("Texts", metadata.texts)):
        found.append(Section(title, rows, folded=True))
    found.append(Section("Not read", words=metadata.notes))
    return [each for each in found if each.rows or each.words]


def lines(metadata: Metadata, everything: bool = False) -> Iterator[str]:
    """The panel for a terminal; a stranger's line feeds are shown as such."""
    for section in sections(metadata):
        if section.folded and not everything:
            yield f"{section.title}: {plural(len(section.rows), 'entry', 'entries')} (all of them with --json)"
            continue
        yield section.title
        for row in section.rows:
            yield f"  {row.name:<16}  {_one_line(row.value)}"
        yield from (f"  {_one_line(words)}" for words in section.words)


def _one_line(text: str) -> str:
    return " ⏎ ".join(part for part in text.split("\n") if part)


def _claim(claim: Claim) -> Section:
    rows = [Entry("Says so", claim.where)]
    rows += [
        Entry(name, value)
        for name, value in (
            ("Model", claim.model),
            ("Asked for", claim.prompt),
            ("Not wanted", claim.negative),
        )
        if value
    ]
    words = SIGNED.format(claim.signed) if claim.signed else NO_PROOF
    return Section(claim.sentence, (*rows, *claim.settings), (words,))


def _credentials(found: Credentials) -> Section:
    named = (
        ("State", _STATES[found.state]),
        ("Signer", found.signer),
        ("Organisation", found.issuer),
        ("Written by", found.generator),
        ("Title", found.title),
        ("Signed", found.when),
        ("Does not hold", ", ".join(found.problems)),
    )
    rows = [Entry(name, value) for name, value in named if value]
    rows += [Entry("Action", each) for each in found.actions]
    return Section("Content Credentials (C2PA)", tuple(rows), (found.words,))


def _origin(metadata: Metadata) -> Iterator[Entry]:
    if metadata.source_type:
        yield Entry("Source type", f"{metadata.source_type}: {metadata.source_words} (IPTC)")
    if metadata.camera:
        yield Entry("Camera", metadata.camera)
    if metadata.software:
        yield Entry("Software", "; ".join(metadata.software))
    yield from metadata.dates
    if metadata.place:
        yield Entry("Place", metadata.place)


def _saving(metadata: Metadata) -> Iterator[Entry]:
    yield Entry("Format", metadata.format)
    if metadata.jpeg:
        yield Entry("JPEG quality", jpeg_words(metadata.jpeg))
    if metadata.icc:
        yield Entry("Colour profile", metadata.icc)


def jpeg_words(jpeg: Jpeg) -> str:
    """
    Example:
        >>> jpeg_words(Jpeg(90, True, "4:2:0", False, ()))
        "90 of 100 (libjpeg's own tables), colour at 4:2:0"
    """
    tables = "libjpeg's own tables" if jpeg.standard else "about; tables of another program, or of a camera"
    return (
        f"{jpeg.quality} of 100 ({tables})"
        + (f", colour at {jpeg.sampling}" if jpeg.sampling else "")
        + (", progressive" if jpeg.progressive else "")
    )
