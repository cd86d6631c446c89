"""Arrays of an HDF5 file, read by a small reader of its own: the library follows links to other files, runs filters
and was not made for hostile input.

It knows what h5py writes by default, as Keras's weights are: the first version of groups, and arrays of plain numbers
in one piece (HDF5 File Format Specification, version 3.0, secs. II to IV). Whatever else a file asks for is refused by
its name, and nothing is read beyond the bytes that are there.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError
from crossfake.inert.values import UnsafeFile, shown

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = 2**64 - 1
_MOST_OBJECTS, _MOST_MESSAGES, _DEEPEST = 20_000, 200_000, 20
_MOST_NAME = 200
_MESSAGES = {
    0x0002: "links of a newer kind (save it with h5py's default libver)",
    0x0006: "links of a newer kind (save it with h5py's default libver)",
    0x0007: "data in another file",
    0x000B: "a filter",
}
_FLOATS = {2: torch.float16, 4: torch.float32, 8: torch.float64}


def read_hdf5(path: Path) -> dict[str, Tensor]:
    """The arrays of floating-point numbers in a file, by their path in it, such as ``dense_1/dense_1/kernel:0``.

    Raises:
        UnsafeFile: it asks for links, filters, other files or more numbers than it holds.
        UserError: it is damaged.
    """
    try:
        return _Reader(path.read_bytes()).read()
    except UserError:
        raise
    except (ValueError, LookupError, OSError, struct.error, RuntimeError, OverflowError) as error:
        raise UserError(f"the file is damaged ({shown(error)})", hint="download it again") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.found: dict[str, Tensor] = {}
        self.objects, self.messages, self.numbers, self.taken = 0, 0, 0, 0

    def read(self) -> dict[str, Tensor]:
        version, offset, length = self.content[8], self.content[13], self.content[14]
        if self.content[:8] != SIGNATURE:
            raise ValueError("it is no HDF5 file")
        if version > 1:
            raise UnsafeFile("a newer HDF5 format (save it with h5py's default libver)")
        if (offset, length) != (8, 8):
            raise ValueError("addresses of another size")
        at = 24 + 4 * version
        base, _, end, _ = self._unpack("<4Q", at)
        if base or end > len(self.content):
            raise ValueError("the file ends too early")
        self._object(self._entry(at + 32)[1], "", 0)
        return self.found

    def _unpack(self, layout: str, at: int) -> tuple[Any, ...]:
        if not 0 <= at <= len(self.content) - struct.calcsize(layout):
            raise ValueError("an address beyond its end")
        return struct.unpack_from(layout, self.content, at)

    def _bytes(self, at: int, count: int) -> bytes:
        if not 0 <= at <= at + count <= len(self.content):
            raise ValueError("an address beyond its end")
        return self.content[at : at + count]

    def _entry(self, at: int) -> tuple[int, int]:
        """A symbol table entry: where its name is in the heap, and its object."""
        name, address, kind = self._unpack("<QQI", at)
        if kind == 2:
            raise UnsafeFile("a link")
        return name, address

    def _header(self, at: int) -> list[tuple[int, bytes]]:
        """The messages of an object: kind and content."""
        version, _, count, _, size = self._unpack("<BBHII", at)
        if version != 1:
            raise UnsafeFile("an object of a newer kind (save it with h5py's default libver)")
        blocks = [(at + 16, size)]
        found: list[Any] = []
        while blocks and len(found) < count:
            place, left = blocks.pop(0)
            while left >= 8 and len(found) < count:
                kind, length, flags = self._unpack("<HHB", place)
                if flags & 2:
                    raise UnsafeFile("a message that is shared with another object")
                content = self._bytes(place + 8, length)
                self.messages, self.taken = self.messages + 1, self.taken + length
                if self.messages > _MOST_MESSAGES or self.taken > len(self.content):  # blocks may overlap
                    raise UnsafeFile("more messages than any network has")
                if kind in _MESSAGES:
                    raise UnsafeFile(_MESSAGES[kind])
                if kind == 0x10:
                    blocks.append(struct.unpack_from("<QQ", content))
                found.append((kind, content))
                place, left = place + 8 + length, left - 8 - length
        return found

    def _object(self, at: int, name: str, depth: int) -> None:
        self.objects += 1
        if depth > _DEEPEST or self.objects > _MOST_OBJECTS:
            raise UnsafeFile("more groups than any network has")
        messages: dict[int, bytes] = {}
        for kind, content in self._header(at):
            messages.setdefault(kind, content)
        if 0x11 in messages:
            tree, heap = struct.unpack_from("<QQ", messages[0x11])
            self._group(tree, self._heap(heap), name, depth)
        elif {0x01, 0x03, 0x08} <= set(messages):
            value = self._array(messages[0x01], messages[0x03], messages[0x08])
            if value is not None:
                self.found[name] = value

    def _heap(self, at: int) -> int:
        if self._bytes(at, 4) != b"HEAP":
            raise ValueError("no heap of names")
        (address,) = self._unpack("<Q", at + 24)
        return int(address)

    def _group(self, at: int, names: int, prefix: str, depth: int) -> None:
        """All children in the B-tree at an address."""
        self.objects += 1
        if depth > _DEEPEST or self.objects > _MOST_OBJECTS:
            raise UnsafeFile("more groups than any network has")
        mark = self._bytes(at, 4)
        if mark == b"TREE":
            kind, _, used = self._unpack("<BBH", at + 4)
            if kind != 0:
                raise ValueError("a tree of another kind")
            for number in range(used):
                (child,) = self._unpack("<Q", at + 32 + 16 * number)
                self._group(child, names, prefix, depth + 1)
            return
        if mark != b"SNOD":
            raise ValueError("no node of names")
        (count,) = self._unpack("<H", at + 6)
        for number in range(count):
            place, address = self._entry(at + 8 + 40 * number)
            start = names + place
            end = self.content.find(b"\0", start, start + _MOST_NAME)
            if end <= start:
                raise ValueError("a part without a proper name")
            name = self.content[start:end].decode("utf-8", "replace")
            self._object(address, f"{prefix}/{name}" if prefix else name, depth + 1)

    def _array(self, space: bytes, kind: bytes, layout: bytes) -> Tensor | None:
        """None for what is no array of floating-point numbers."""
        if kind[0] & 15 != 1:
            return None
        (size,) = struct.unpack_from("<I", kind, 4)
        if kind[1] & 1 or size not in _FLOATS:
            raise UnsafeFile("numbers of an unusual kind")
        rank = space[1]
        if space[0] not in (1, 2) or rank > 8:
            raise ValueError("an array of impossible shape")
        shape = struct.unpack_from(f"<{rank}Q", space, 8 if space[0] == 1 else 4)
        count = math.prod(shape)
        self.numbers += count * size
        if self.numbers > len(self.content):  # arrays may share their bytes
            raise UnsafeFile("more numbers than it has")
        if layout[0] != 3:
            raise UnsafeFile("an unusual layout of data")
        if layout[1] == 0:
            (length,) = struct.unpack_from("<H", layout, 2)
            raw = layout[4 : 4 + length]
        elif layout[1] == 1:
            address, length = struct.unpack_from("<QQ", layout, 2)
            raw = b"" if address == _UNDEFINED else self._bytes(address, length)
        else:
            raise UnsafeFile("chunked data, as a filter needs it")
        if len(raw) != count * size:
            raise ValueError("an array of another length than it says")
        if not count:
            return torch.empty(shape)
        return torch.frombuffer(bytearray(raw), dtype=_FLOATS[size]).reshape(shape)
