"""The chunks of a PNG file (W3C PNG, sec. 5.3), as far as PIL needs help with them."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = (b"tEXt", b"zTXt", b"iTXt")
_LONG = 1 << 15  # bytes of a text chunk that is left out; shorter ones may say how a picture is turned

# What a shorter text can unpack to (deflate shrinks to 1/1032 at most), and any profile: PIL refuses the whole file
# over a longer one, and it is generators that write them
PngImagePlugin.MAX_TEXT_CHUNK = 1032 * _LONG


def chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk, as far as the file goes."""
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], at, end
        at = end


def without_long_text(content: bytes) -> bytes:
    """The file without texts that PIL would unpack and that say nothing about its pixels."""
    long = [(start, end) for kind, start, end in chunks(content) if kind in TEXT and end - start > _LONG]
    if not long:
        return content
    edges = [0, *(edge for each in long for edge in each), len(content)]
    return b"".join(content[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def is_animated(content: bytes) -> bool:
    """Whether it says before its first pixels that it has several frames."""
    for kind, _, _ in chunks(content):
        if kind in (b"acTL", b"IDAT"):
            return kind == b"acTL"
    return False
