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
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import Pixels, check_codec, decode, encode
from crossfake.errors import UserError
from crossfake.provenance import hash_file

FORMAT = 1
MANIFEST = "manifest.jsonl"
SPLITS = "splits.csv"  # groups and splits as 'crossfake data split' decided them; the shards stay as they are
_FLUSH = 64  # rows per write and per column chunk: every chunk is written exactly once
_BLOB_CHUNK = 1 << 16

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
    """

    label: int
    source: str
    generator: str = ""
    split: str = ""
    group: str = ""
    seed: int = -1
    origin: str = ""


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
            lines[line["name"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return [lines[name] for name in sorted(lines)]


class ShardFile:
    """One shard being written. Opening it again after a crash keeps the rows whose CRC is right.

    Args:
        folder: the shard folder.
        index: number of the shard, which is its name.
        size: height and width in pixels; ignored by codec ``original``.
        codec: ``raw``, ``webp`` or ``original``.
        attributes: JSON-able facts stored with the shard (crop policy, generator hash, config).
        masks: keep a mask with every image.
    """

    def __init__(
        self,
        folder: Path,
        index: int,
        size: int | None,
        codec: str,
        attributes: dict[str, Any],
        masks: bool = False,
    ) -> None:
        self.path = folder / f"{index:05d}.h5"
        self.temporary = self.path.with_suffix(".h5.tmp")
        self.size, self.codec, self.masks = size, codec, masks
        self._pending: list[tuple[Pixels | bytes, Row, Pixels | None]] = []
        rescued = self.temporary.with_suffix(".rescued")
        if self.temporary.exists():
            self.temporary.replace(rescued)
        self._file = h5py.File(self.temporary, "w")
        self._file.attrs.update(
            {
                "format": FORMAT,
                "codec": codec,
                "size": size or 0,
                "attributes": json.dumps(attributes, sort_keys=True),
            }
        )
        if codec == "raw":
            self._create("image", (size, size, 3), np.uint8, chunk=1, fletcher32=True)
        else:
            self._create("blob", (), np.uint8, chunk=_BLOB_CHUNK, fletcher32=True)
            self._create("end", (), np.uint64)
        if masks:
            self._create("mask", (size, size), np.uint8, chunk=1, fletcher32=True, compression="gzip")
        for name, dtype in COLUMNS.items():
            self._create(name, (), dtype, compression="gzip", shuffle=True)
        self.rows = 0
        self.last_row: Row | None = None
        if rescued.exists():
            self._rescue(rescued)
            rescued.unlink()

    def _create(
        self, name: str, shape: tuple[Any, ...], dtype: Any, chunk: int = _FLUSH, **filters: Any
    ) -> None:
        self._file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(chunk, *shape), **filters
        )

    def _rescue(self, broken: Path) -> None:
        for image, row, mask in valid_rows(broken):
            self.append(image, row, mask)
        self.flush()

    def append(self, image: Pixels | bytes, row: Row, mask: Pixels | None = None) -> None:
        self._pending.append((image, row, mask))
        self.last_row = row
        self.rows += 1
        if len(self._pending) == _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Hand the pending rows to the file; a crash after this loses none of them."""
        if not self._pending:
            return
        images = [image for image, _, _ in self._pending]
        if self.codec == "raw":
            blobs: Sequence[Any] = [np.ascontiguousarray(image) for image in images]
            self._extend("image", np.stack(blobs))
        else:
            blobs = [encode(image, self.codec) for image in images]
            start = len(self._file["blob"])
            self._extend("blob", np.frombuffer(b"".join(blobs), np.uint8))
            self._extend("end", start + np.cumsum([len(blob) for blob in blobs], dtype=np.uint64))
        for name, dtype in COLUMNS.items():
            if name == "crc32":
                values: list[Any] = [zlib.crc32(blob) for blob in blobs]
            elif isinstance(dtype, str):
                values = [fit(getattr(row, name), int(dtype[1:])) for _, row, _ in self._pending]
            else:
                values = [getattr(row, name) for _, row, _ in self._pending]
            self._extend(name, np.array(values, dtype))
        if self.masks:
            blank = np.zeros((self.size or 0, self.size or 0), np.uint8)
            self._extend("mask", np.stack([blank if mask is None else mask for _, _, mask in self._pending]))
        self._file.flush()
        self._pending.clear()

    def _extend(self, name: str, values: Array) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values

    def close(self) -> None:
        """Make the shard part of the set: flush, close, sync, rename, manifest line."""
        self.flush()
        self._file.close()
        with open(self.temporary, "rb+") as file:
            os.fsync(file.fileno())
        self.temporary.replace(self.path)
        self.list_in_manifest(self.path, self.rows)

    def abandon(self) -> None:
        """Stop without listing the shard; its flushed rows are found again by the next writer."""
        self.flush()
        self._file.close()

    @staticmethod
    def list_in_manifest(path: Path, rows: int) -> None:
        line = json.dumps({"name": path.name, "count": rows, "sha256": hash_file(path)}) + "\n"
        manifest = path.parent / MANIFEST
        # One write in append mode: several processes may list their shards at the same time. A crash may
        # have left a line without its end.
        torn = manifest.exists() and not manifest.read_bytes().endswith(b"\n")
        with open(manifest, "a") as file:
            file.write(("\n" if torn else "") + line)
            file.flush()
            os.fsync(file.fileno())


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
                values = {field.name: file[field.name][index] for field in dataclasses.fields(Row)}
                facts: dict[str, Any] = {
                    k: _text(v) if isinstance(v, bytes) else int(v) for k, v in values.items()
                }
                image = decode(blob, codec) if codec == "webp" else blob
                yield image, Row(**facts), file["mask"][index] if "mask" in file else None
    except (OSError, KeyError, RuntimeError):
        return  # what cannot be read is written again


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def stored(file: h5py.File, codec: str, index: int) -> Any:
    """What the CRC of a row is taken over: the pixels of ``raw``, the bytes of the others."""
    if codec == "raw":
        return file["image"][index]
    start = int(file["end"][index - 1]) if index else 0
    return file["blob"][start : int(file["end"][index])].tobytes()


class ShardWriter:
    """Write a shard folder row by row, or go on where a killed writer stopped.

    Args:
        out: the folder; created when it is not there.
        size: height and width in pixels; None for codec ``original``.
        codec: ``raw``, ``webp`` or ``original``.
        shard_rows: rows per shard.
        attributes: JSON-able facts stored with every shard; a resumed folder must have the same.
        masks: keep a mask with every image; one that is not given is blank.

    Raises:
        UserError: the folder cannot be written, or holds shards of another size, codec or origin.

    Example:
        >>> with ShardWriter(Path("faces"), size=64) as writer:  # doctest: +SKIP
        ...     for image in images[writer.rows_done :]:
        ...         writer.append(image, Row(label=0, source="mine"))
    """

    def __init__(
        self,
        out: str | Path,
        size: int | None = None,
        codec: str = "raw",
        shard_rows: int = 10_000,
        attributes: dict[str, Any] | None = None,
        masks: bool = False,
    ) -> None:
        check_codec(codec)
        self.out = Path(out)
        self.size, self.codec, self.shard_rows, self.masks = size, codec, shard_rows, masks
        self.attributes = json.loads(json.dumps(attributes or {}))
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            done = adopt_finished(self.out)
            self.last_origin: str | None = (
                None  # of the last row already there: where a resumed source goes on
            )
            if done:
                existing = ShardSet(self.out)
                self._check_same(existing)
                self.last_origin = _text(existing.file(-1)["origin"][-1])
            self.rows_done = sum(line["count"] for line in done)
            self._current: ShardFile | None = self._open(_next_index(done))
        except OSError as error:
            raise UserError(
                f"cannot write {out} ({error.strerror or error})", mend="name another --out"
            ) from error
        self.rows_done += self._current.rows
        if self._current.last_row is not None:
            self.last_origin = self._current.last_row.origin

    def _open(self, index: int) -> ShardFile:
        self._index = index
        return ShardFile(self.out, index, self.size, self.codec, self.attributes, self.masks)

    def _check_same(self, existing: ShardSet) -> None:
        ours = (self.size, self.codec, self.attributes, self.masks)
        if (existing.size, existing.codec, existing.attributes, existing.has_masks) != ours:
            raise UserError(
                f"{self.out} holds shards made with other settings", mend="name another --out or delete it"
            )

    def append(self, image: Pixels | bytes, row: Row, mask: Pixels | None = None) -> None:
        """Add one image: uint8 ``[size, size, 3]``, or a file's bytes for codec ``original``; mask ``[size, size]``."""
        if self.codec != "original":
            shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
            if shape != (self.size, self.size, 3) or dtype != np.uint8:
                raise ValueError(f"expected uint8 [{self.size}, {self.size}, 3], got {dtype} {shape}")
        if self._current is None:
            self._current = self._open(self._index + 1)
        try:
            self._current.append(image, row, mask)
            if self._current.rows == self.shard_rows:
                self._current.close()
                self._current = None
        except OSError as error:
            raise UserError(
                f"cannot write {self.out} ({error})", mend="free some space and run it again"
            ) from error

    def extend(self, images: Iterable[Pixels | bytes], rows: Iterable[Row]) -> None:
        for image, row in zip(images, rows, strict=True):
            self.append(image, row)

    def close(self) -> None:
        """Complete the last shard; one without rows is not kept."""
        if self._current is not None and self._current.rows:
            self._current.close()
        elif self._current is not None:
            self._current.abandon()
            self._current.temporary.unlink()
        self._current = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._current is not None:
            self._current.abandon()


def adopt_finished(folder: Path) -> list[dict[str, Any]]:
    """The manifest, after listing shards that were renamed but not listed when a process was killed."""
    listed = {line["name"] for line in read_manifest(folder)}
    for path in sorted(folder.glob("[0-9]*.h5")):
        if path.name not in listed:
            with h5py.File(path, "r") as file:
                rows = len(file["crc32"])
            ShardFile.list_in_manifest(path, rows)
    return read_manifest(folder)


def _next_index(manifest: list[dict[str, Any]]) -> int:
    return int(Path(manifest[-1]["name"]).stem) + 1 if manifest else 0


class _Columns(dict[str, Array]):
    """Columns of all shards in order, read when first asked for."""

    def __init__(self, shards: ShardSet) -> None:
        super().__init__()
        self._shards = shards

    def __missing__(self, name: str) -> Array:
        if name not in COLUMNS:
            raise KeyError(name)
        parts = [self._shards.file(k)[name][:] for k in range(len(self._shards.counts))]
        values = np.concatenate(parts)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8", "surrogateescape")
        if name in ("group", "split") and (self._shards.path / SPLITS).exists():
            values = self._decided(name, values)
        self[name] = values
        return values

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
            self._files, self._pid = {}, os.getpid()
        index %= len(self.names)
        if index not in self._files:
            path = self.path / self.names[index]
            try:
                self._files[index] = h5py.File(path, "r")
            except OSError as error:
                raise UserError(
                    f"shard {path} cannot be opened", mend="see 'crossfake data verify'"
                ) from error
        return self._files[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_pid": -1}

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
            return stored(self.file(shard), self.codec, row)
        except (OSError, KeyError) as error:
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
