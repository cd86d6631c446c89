"""XMP packets (ISO 16684-1), flattened to names and values, and what IPTC's digital source types mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossfake.detect.metadata.results import ENTRIES, PROMPT, Entry, cut

_MOST = 1 << 20  # bytes of a packet
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_PREFIXES = {
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/mm/": "xmpMM",
    "http://ns.adobe.com/xap/1.0/rights/": "xmpRights",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/camera-raw-settings/1.0/": "crs",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "Iptc4xmpCore",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
}
SOURCE_TYPE = "Iptc4xmpExt:DigitalSourceType"

# https://cv.iptc.org/newscodes/digitalsourcetype/, names of before included
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "made by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "edited, or put together, with output of a trained model",
    "compositeSynthetic": "put together of parts, some of them synthetic",
    "algorithmicMedia": "made by an algorithm that learnt from no pictures",
    "algorithmicallyEnhanced": "changed by an algorithm without changing what it shows",
    "dataDrivenMedia": "drawn from data",
    "digitalCapture": "taken by a digital camera",
    "computationalCapture": "put together of several exposures by a digital camera",
    "negativeFilm": "scanned from negative film",
    "positiveFilm": "scanned from positive film",
    "print": "scanned from a print",
    "screenCapture": "a screenshot",
    "virtualRecording": "recorded from a virtual world",
    "composite": "put together of parts",
    "compositeCapture": "put together of captures",
    "humanEdits": "edited by a person",
    "minorHumanEdits": "edited a little by a person",
    "digitalCreation": "made by a person with a computer",
    "digitalArt": "made by a person with a computer",
    "softwareImage": "made by a program",
}
GENERATED = {"trainedAlgorithmicMedia", "algorithmicMedia"}
PARTLY_GENERATED = {"compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"}


def source_type(value: str) -> str:
    """The last part of the address that stands for a type.

    Example:
        >>> source_type("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
        'trainedAlgorithmicMedia'
    """
    return value.strip().rstrip("/").rpartition("/")[2]


def read_xmp(packet: bytes | str) -> tuple[Entry, ...]:
    """The properties of a packet.

    Raises:
        ValueError: it is too long, or no XML; entities are refused (billion laughs).
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    content = packet.encode() if isinstance(packet, str) else packet
    if len(content) > _MOST:
        raise ValueError(f"it has {len(content):,} bytes, too many")
    try:
        root = fromstring(content.strip(b"\0 \n\r\t"))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ValueError(f"no proper XML, {type(error).__name__}") from error
    found: dict[str, str] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, value in _properties(description):
            if value and len(found) < ENTRIES:
                found.setdefault(name, cut(value, PROMPT))
    return tuple(Entry(name, value) for name, value in found.items())


def _properties(description: Any) -> Iterator[tuple[str, str]]:
    yield from ((_name(key), value) for key, value in description.attrib.items() if not key.startswith(_RDF))
    for child in description:
        items = child.findall(f"*/{_RDF}li")
        texts = [_text(each) for each in items] if items else [_text(child)]
        yield _name(child.tag), "; ".join(filter(None, texts))


def _text(element: Any) -> str:
    """What an element says: its text, what it points to, or the fields of a structure in one line."""
    if element.text and element.text.strip():
        return str(element.text).strip()
    fields = {
        key: value for part in (element, *element) for key, value in part.attrib.items() if value.strip()
    }
    return ", ".join(
        value if key.startswith(_RDF) else f"{_name(key).partition(':')[2]} {value}"
        for key, value in fields.items()
        if key == f"{_RDF}resource" or not key.startswith(_RDF)
    )


def _name(tag: str) -> str:
    space, _, name = tag.removeprefix("{").rpartition("}")
    prefix = _PREFIXES.get(space, space.rstrip("/#").rpartition("/")[2])
    return cut(f"{prefix}:{name}" if prefix else name, 100)
