"""Image shards: a folder of HDF5 files and a manifest that says which of them are whole.

Layout of one file ``00000.h5``: ``image`` uint8 ``[N, H, W, 3]`` (codec ``raw``) or ``blob`` uint8 with
``end`` uint64 (codecs ``webp`` and ``original``), and one column per field of :class:`Row` plus ``crc32``. A set whose
source marks what was manipulated also has ``mask`` uint8 ``[N, H, W]``, 255 where it was.
A shard is written as ``*.tmp``, flushed every 64 rows, closed, synced and renamed; its line in
``manifest.jsonl`` (name, count, sha256) comes last, so a file without a line is not part of the set.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import Pixels, decode
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
    """

    label: int
    source: str
    generator: str = ""
    split: str = ""
    group: str = ""
    seed: int = -1
    origin: str = ""
    own_split: bool = False


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
}


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
            parts = [*COLUMNS, "image" if codec == "raw" else "end", *(["mask"] if "mask" in file else [])]
            count = min(len(file[name]) for name in parts)
            for index in range(count):
                blob = stored(file, codec, index)
                if zlib.crc32(blob) != int(file["crc32"][index]):
                    return
                names = (field.name for field in dataclasses.fields(Row))
                values = {name: file[name][index] for name in names}
                facts: dict[str, Any] = {
                    k: text_of(v) if isinstance(v, bytes) else int(v) for k, v in values.items()
                }
                image = decode(blob, codec) if codec == "webp" else blob
                yield image, Row(**facts), file["mask"][index] if "mask" in file else None
    except (OSError, KeyError, RuntimeError):
        return  # what cannot be read is written again


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def stored(file: h5py.File, codec: str, index: int) -> Any:
    """What the CRC of a row is taken over: the pixels of ``raw``, the bytes of the others."""
    if codec == "raw":
        return file["image"][index]
    start = int(file["end"][index - 1]) if index else 0
    return file["blob"][start : int(file["end"][index])].tobytes()


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
        files = [self._shards.file(k) for k in range(len(self._shards.counts))]
        if name == "own_split" and name not in files[0]:  # shards that other programs wrote may lack it
            return np.zeros(sum(self._shards.counts), np.uint8)
        values = np.concatenate([file[name][:] for file in files])
        return np.char.decode(values, "utf-8", "surrogateescape") if values.dtype.kind == "S" else values

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
                f"{file} belongs to other shards", mend="delete it and run 'crossfake data split' again"
            ) from error
        return np.array([*decided, *own[len(rows) :].tolist()])


class _Part:
    """One open shard, ready for reading rows.

    Raw pixels are read as HDF5 stored them, one chunk an image, and checked against the row's CRC: a fifth of the time
    that HDF5's own way takes.
    """

    def __init__(self, file: h5py.File, codec: str) -> None:
        self._file = file  # HDF5 closes it with the last that knows it
        self._crc = file["crc32"][:]
        self._data = file["image" if codec == "raw" else "blob"]
        self._shape = self._data.shape[1:]
        self._end = None if codec == "raw" else file["end"][:].astype(np.int64)

    def stored(self, row: int) -> Any:
        """Pixels of codec ``raw``, else the blob's bytes; ``OSError`` when they are not what was written."""
        if self._end is not None:
            start = int(self._end[row - 1]) if row else 0
            return self._data[start : int(self._end[row])].tobytes()
        _, chunk = self._data.id.read_direct_chunk((row, 0, 0, 0))
        pixels = np.frombuffer(chunk, np.uint8, math.prod(self._shape))  # a checksum of HDF5's follows them
        if zlib.crc32(pixels.data) != self._crc[row]:
            raise OSError("the checksum differs")
        return pixels.reshape(self._shape).copy()  # of its own: bytes cannot be written to


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
            raise UserError(f"{path} is not a shard folder", mend="make one with 'crossfake data prepare'")
        for line in manifest:
            if not (self.path / line["name"]).exists():
                raise UserError(
                    f"shard {self.path / line['name']} is missing", mend="prepare or copy the folder again"
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
        self._parts: dict[int, _Part] = {}
        self._pid = os.getpid()
        attrs = self.file(0).attrs
        self.codec = str(attrs["codec"])
        self.size: int | None = int(attrs["size"]) or None
        self.attributes: dict[str, Any] = json.loads(str(attrs["attributes"]))
        self.has_masks = "mask" in self.file(0)
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
                    f"shard {path} cannot be opened", mend="see 'crossfake data verify'"
                ) from error
        return self._files[index]

    def _part(self, index: int) -> _Part:
        """A shard's data sets, looked up once per process: that alone takes longer than reading an image."""
        file = self.file(index)
        if index not in self._parts:
            self._parts[index] = _Part(file, self.codec)
        return self._parts[index]

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
        shard, row = self._place(index)
        try:
            return self._part(shard).stored(row)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"row {row} of shard {self.path / self.names[shard]} is damaged",
                mend="see 'crossfake data verify'",
            ) from error

    def read(self, index: int) -> Pixels:
        """One image, uint8 ``[H, W, 3]``."""
        stored: Any = self.stored(index)
        return stored if self.codec == "raw" else decode(stored, self.codec)

    def read_many(self, indices: Iterable[int]) -> Pixels:
        """Images of one size, uint8 ``[N, H, W, 3]``, row by row: HDF5's fancy indexing is slower."""
        return np.stack([self.read(int(index)) for index in indices])

    def read_whole(self, indices: npt.NDArray[np.int64]) -> tuple[Pixels, npt.NDArray[np.int64], list[str]]:
        """As :meth:`read_many`, without damaged images: pixels, their rows, and what is wrong with the others."""
        images: list[Pixels] = []
        whole: list[int] = []
        damaged: list[str] = []
        for index in map(int, indices):
            try:
                images.append(self.read(index))
                whole.append(index)
            except UserError as error:
                damaged.append(error.message)
        pixels = np.stack(images) if images else np.empty((0, self.size or 0, self.size or 0, 3), np.uint8)
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
