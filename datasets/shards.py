"""Image shards: a folder of HDF5 files and a manifest that says which of them are whole.

Layout of one file ``00000.h5``: ``image`` uint8 ``[N, H, W, 3]`` (codec ``raw``) or ``blob`` uint8 with
``end`` uint64 (codecs ``webp`` and ``original``), and one column per field of :class:`Row` plus ``crc32``. A set whose
source marks what was manipulated also has ``mask`` uint8 ``[N, H, W]``, 255 where it was.
A native set, whose rows have sizes of their own, has ``blob`` and ``end`` with either codec, pixels one after the other
with ``raw``, and ``shape`` uint32 ``[N, 2]``, height and width; its attribute ``size`` is 0.
A shard is written as ``*.tmp``, flushed every 64 rows, closed, synced and renamed; its line in
``manifest.jsonl`` (name, count, sha256) comes last, so a file without a line is not part of the set.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import decode
from crossfake.datasets.shard_part import Part
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.provenance import hash_file

FORMAT = 1
MANIFEST = "manifest.jsonl"
SPLITS = "splits.csv"  # groups and splits as 'crossfake data split' decided them; the shards stay as they are

_OPEN = 200  # shards at a time, in one process: each takes 5 MB, and Linux may allow 256 files

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """What is known about one image besides its pixels.

    Attributes:
        label: 0 real, 1 fake.
        source: data set it came from, ``synth`` for fakes made here.
        generator: what made a fake, ``family:hash`` for those made here; empty for reals.
        split: ``train``, ``val``, ``test`` or empty.
        group: identity, source photo or video: what must never straddle a split.
        seed: the latent's seed for a fake made here, else -1.
        origin: name of the source file.
        own_split: the split is the data set's own: ``crossfake data split`` leaves it.
        parent: of a fake made from a photo, what :meth:`ShardSet.ids` calls that photo's row.
        score: how face-like a fake is, of a set whose least face-like ones were dropped; else 0.
    """

    label: int
    source: str
    generator: str = ""
    split: str = ""
    group: str = ""
    seed: int = -1
    origin: str = ""
    own_split: bool = False
    parent: str = ""
    score: float = 0.0


# Fixed-width strings: variable-length ones cost a heap look-up per row and cannot be checksummed.
COLUMNS: dict[str, Any] = {
    "crc32": np.uint32,
    "label": np.uint8,
    "seed": np.int64,
    "source": "S64",
    "generator": "S64",
    "split": "S8",
    "group": "S128",
    "origin": "S256",
    "own_split": np.uint8,
    "parent": "S320",
    "score": np.float32,
}
LATER = (
    "own_split",
    "parent",
    "score",
)  # columns that older shards, and those that other programs wrote, may lack


def fit(text: str, width: int) -> bytes:
    """UTF-8 within ``width`` bytes; what is too long keeps its start and gains a hash, so it stays unique."""
    raw = text.encode("utf-8", "surrogateescape")  # file names need not be UTF-8
    if len(raw) <= width:
        return raw
    return (
        raw[: width - 17].decode("utf-8", "ignore").encode()
        + b"~"
        + hashlib.sha256(raw).hexdigest()[:16].encode()
    )


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The manifest's lines sorted by shard name; a last line cut short by a crash is left out."""
    file = folder / MANIFEST
    if not file.exists():
        return []
    lines: dict[str, dict[str, Any]] = {}
    for text in file.read_text().splitlines():
        try:
            line = json.loads(text)
            lines[line["name"]] = {**line, "name": str(line["name"]), "count": int(line["count"])}
            _ = line["sha256"]
        except (ValueError, KeyError, TypeError):
            continue
    return [lines[name] for name in sorted(lines)]


def valid_rows(path: Path) -> Iterator[tuple[Pixels | bytes, Row, Pixels | None]]:
    """The leading rows of a shard left by a killed process, up to the first whose CRC is wrong."""
    try:
        with h5py.File(path, "r") as file:
            codec = str(file.attrs["codec"])
            parts = {*COLUMNS, "image" if "image" in file else "end"} - {
                name for name in LATER if name not in file
            }
            parts |= {"mask", "shape"} & {*file}
            count = min(len(file[name]) for name in parts)
            for index in range(count):
                blob = stored(file, codec, index)
                if zlib.crc32(blob) != int(file["crc32"][index]):
                    return
                names = (field.name for field in dataclasses.fields(Row) if field.name in parts)
                values = {name: file[name][index] for name in names}
                facts: dict[str, Any] = {
                    k: text_of(v) if isinstance(v, bytes) else v.item() for k, v in values.items()
                }
                image = decode(blob, codec) if codec == "webp" else blob
                yield image, Row(**facts), file["mask"][index] if "mask" in file else None
    except (OSError, KeyError, RuntimeError, ValueError):
        return  # what cannot be read is written again


def text_of(raw: bytes) -> str:
    """Text as columns hold it; bytes that are no UTF-8 stay as they are."""
    return raw.decode("utf-8", "surrogateescape")


def stored(file: h5py.File, codec: str, index: int) -> Any:
    """What the CRC of a row is taken over: the pixels of ``raw``, the bytes of the others."""
    if "image" in file:
        return file["image"][index]
    start = int(file["end"][index - 1]) if index else 0
    blob = file["blob"][start : int(file["end"][index])]
    return blob.reshape(*file["shape"][index], 3) if codec == "raw" else blob.tobytes()


class _Columns(dict[str, Array]):
    """Columns of all shards in order, read when first asked for."""

    def __init__(self, shards: ShardSet) -> None:
        super().__init__()
        self._shards = shards

    def __missing__(self, name: str) -> Array:
        if name not in COLUMNS:
            raise KeyError(name)
        values = self.stored(name)
        if name in ("group", "split") and (self._shards.path / SPLITS).exists():
            values = self._decided(name, values)
        self[name] = values
        return values

    def stored(self, name: str) -> Array:
        """The column as it is in the shards, whatever ``splits.csv`` says."""
        return np.concatenate([*self.parts(name)])

    def parts(self, name: str) -> Iterator[Array]:
        """As :meth:`stored`, shard by shard: a column of a million names takes a gigabyte."""
        for k, count in enumerate(self._shards.counts):
            file = self._shards.file(k)
            lacks = name in LATER and name not in file
            values = np.zeros(count, COLUMNS[name]) if lacks else file[name][:]
            yield np.char.decode(values, "utf-8", "surrogateescape") if values.dtype.kind == "S" else values

    def _decided(self, name: str, own: Array) -> Array:
        """What ``splits.csv`` says, row by row; rows that were added after it keep their own."""
        file = self._shards.path / SPLITS
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as lines:
            rows = list(csv.DictReader(lines))
        origins = self["origin"][: len(rows)].tolist()
        try:
            if [row["origin"] for row in rows] != origins:
                raise KeyError("origin")
            decided = [row[name] for row in rows]
        except KeyError as error:
            raise UserError(
                f"{file} belongs to other shards", hint="delete it and run 'crossfake data split' again"
            ) from error
        return np.array([*decided, *own[len(rows) :].tolist()])


class ShardSet:
    """A shard folder for reading. Files are opened on first use in each process, and dropped by pickling.

    Args:
        path: a folder with ``manifest.jsonl``.

    Raises:
        UserError: there is no manifest, a listed shard is missing, or a file cannot be opened.

    Example:
        >>> shards = ShardSet("faces")  # doctest: +SKIP
        >>> shards.read(0).shape, shards.columns["label"].mean()  # doctest: +SKIP
        ((64, 64, 3), 0.0)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = read_manifest(self.path)
        if not manifest:
            raise UserError(f"{path} is not a shard folder", hint="make one with 'crossfake data prepare'")
        for line in manifest:
            if not (self.path / line["name"]).exists():
                raise UserError(
                    f"shard {self.path / line['name']} is missing", hint="prepare or copy the folder again"
                )
        self.names = [str(line["name"]) for line in manifest]
        self.counts = [int(line["count"]) for line in manifest]
        listing: list[Any] = [[line["name"], line["count"], line["sha256"]] for line in manifest]
        self.content_hash = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        self.hash = self.content_hash
        if (self.path / SPLITS).exists():
            listing.append([SPLITS, hash_file(self.path / SPLITS)])
            self.hash = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._files: dict[int, h5py.File] = {}
        self._parts: dict[int, Part] = {}
        self._pid = os.getpid()
        attrs = self.file(0).attrs
        self.codec = str(attrs["codec"])
        self.size: int | None = int(attrs["size"]) or None
        self.attributes: dict[str, Any] = json.loads(str(attrs["attributes"]))
        self.has_masks = "mask" in self.file(0)
        self.native = "shape" in self.file(0)
        self.columns = _Columns(self)

    def file(self, index: int) -> h5py.File:
        """The open HDF5 file of a shard, opened anew in a forked process (HDF5 handles must not be shared)."""
        if self._pid != os.getpid():
            self._files, self._parts, self._pid = {}, {}, os.getpid()
        index %= len(self.names)
        if index not in self._files:
            if len(self._files) >= _OPEN:  # let go, not closed: another thread may be reading from it
                oldest = next(iter(self._files.copy()))
                self._files.pop(oldest, None)
                self._parts.pop(oldest, None)
            path = self.path / self.names[index]
            try:
                self._files[index] = h5py.File(path, "r")
            except OSError as error:
                raise UserError(
                    f"shard {path} cannot be opened", hint="see 'crossfake data verify'"
                ) from error
        return self._files[index]

    def _part(self, index: int) -> Part:
        """A shard's data sets, looked up once per process: that alone takes longer than reading an image."""
        file = self.file(index)
        if index not in self._parts:
            self._parts[index] = Part(file, self.codec)
        return self._parts[index]

    @cached_property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Height and width of every row, ``[N, 2]``; whole files (codec ``original``) do not say."""
        if self.size:
            return np.full((len(self), 2), self.size, np.int64)
        if not self.native:
            raise UserError(
                f"{self.path} holds whole files of any size", hint="prepare it with --pixels native"
            )
        return np.concatenate([self.file(k)["shape"][:] for k in range(len(self.names))]).astype(np.int64)

    def ids(self) -> Array:
        """``source/origin`` of every row, which the ``parent`` of a fake made from it says."""
        width = int(COLUMNS["parent"][1:])
        pairs = zip(self.columns["source"].tolist(), self.columns["origin"].tolist(), strict=True)
        return np.array([text_of(fit(f"{source}/{origin}", width)) for source, origin in pairs])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_parts": {}, "_pid": -1}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, index: int) -> tuple[int, int]:
        """Shard and row in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, int(index - self._starts[shard])

    def mask(self, index: int) -> Pixels:
        """What the source marks in one image: uint8 ``[H, W]``, 255 there; a set without masks raises ``KeyError``."""
        shard, row = self._place(index)
        mask: Pixels = self.file(shard)["mask"][row]
        return mask

    def stored(self, index: int) -> Any:
        """What a row's CRC is taken over: pixels of codec ``raw``, else the blob's bytes."""
        with self._row(index) as (part, row):
            return part.stored(row)

    @contextmanager
    def _row(self, index: int) -> Iterator[tuple[Part, int]]:
        """The shard and the row in it, for reading: what goes wrong there is damage."""
        shard, row = self._place(index)
        try:
            yield self._part(shard), row
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"row {row} of shard {self.path / self.names[shard]} is damaged",
                hint="see 'crossfake data verify'",
            ) from error

    def read(self, index: int) -> Pixels:
        """One image, uint8 ``[H, W, 3]``."""
        stored: Any = self.stored(index)
        return stored if self.codec == "raw" else decode(stored, self.codec)

    def window(self, index: int, top: int, left: int, size: int) -> Pixels:
        """A square part of one image, uint8 ``[size, size, 3]``; of native rows of codec ``raw`` no more is read.

        Raises:
            UserError: it does not lie within the image, or the row is damaged.
        """
        self._place(index)
        height, width = map(int, self.shapes[index])
        if not (0 <= top <= height - size and 0 <= left <= width - size):
            raise UserError(
                f"row {index} of {self.path} is {height}×{width}: no window of {size} at {top}, {left}",
                hint="take a smaller window",
            )
        if self.native and self.codec == "raw":
            with self._row(index) as (part, row):
                return part.window(row, top, left, size)
        return np.ascontiguousarray(self.read(index)[top : top + size, left : left + size])

    def read_each(self, indices: Iterable[int]) -> list[Pixels]:
        """Images of any size, each uint8 ``[H, W, 3]``."""
        return [self.read(int(index)) for index in indices]

    def read_many(self, indices: Iterable[int]) -> Pixels:
        """Images of one size, uint8 ``[N, H, W, 3]``, row by row: HDF5's fancy indexing is slower.

        Raises:
            UserError: the set is native.
        """
        if self.native:
            raise UserError(
                f"the images of {self.path} have sizes of their own",
                hint="prepare it without --pixels native for this",
            )
        return np.stack([self.read(int(index)) for index in indices])

    def read_whole(self, indices: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64], list[str]]:
        """As :meth:`read_many`, without damaged images: pixels, their rows, and what is wrong with the others.

        The pixels of a native set are a list, as :meth:`read_each` gives them.
        """
        images: list[Pixels] = []
        whole: list[int] = []
        damaged: list[str] = []
        for index in map(int, indices):
            try:
                images.append(self.read(index))
                whole.append(index)
            except UserError as error:
                damaged.append(error.message)
        empty = np.empty((0, self.size or 0, self.size or 0, 3), np.uint8)
        pixels = images if self.native else np.stack(images) if images else empty
        return pixels, np.array(whole, np.int64), damaged

    def select(
        self,
        split: str | Sequence[str] | None = None,
        label: int | Sequence[int] | None = None,
        source: str | Sequence[str] | None = None,
        generator: str | Sequence[str] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Indices of the rows that meet every condition given; each is a value or a list of them."""
        keep = np.ones(len(self), bool)
        for name, wanted in (
            ("split", split),
            ("label", label),
            ("source", source),
            ("generator", generator),
        ):
            if wanted is not None:
                values: Any = [wanted] if isinstance(wanted, str | int) else list(wanted)
                keep &= np.isin(self.columns[name], values)
        return np.flatnonzero(keep)
