"""Writing shards: crash-safe, row by row, and on from where a killed writer stopped."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from crossfake.datasets.codecs import (
    check_codec,
    encode,
)
from crossfake.datasets.locking import lock_folder
from crossfake.datasets.shards import (
    COLUMNS,
    FORMAT,
    MANIFEST,
    Array,
    Row,
    ShardSet,
    fit,
    read_manifest,
    text_of,
    valid_rows,
)
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.provenance import hash_file

_FLUSH = 64  # rows per write and per column chunk: every chunk is written exactly once
_BLOB_CHUNK = 1 << 16
_PENDING = 1 << 26  # bytes of pixels in memory: rows of a native set may be large
_SPARE = 1 << 20  # bytes that must be left on the disk for what HDF5 writes besides
WRITE_ERRORS = (OSError, RuntimeError)  # HDF5 reports a full disk as either


class ShardFile:
    """One shard being written. Opening it again after a crash keeps the rows whose CRC is right.

    Args:
        folder: the shard folder.
        index: number of the shard, which is its name.
        size: height and width in pixels; None where rows have sizes of their own; ignored by codec ``original``.
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
        self.native = not size and codec != "original"
        self._pending: list[tuple[Pixels | bytes, Row, Pixels | None]] = []
        self._bytes = 0
        rescued = self.temporary.with_suffix(".rescued")
        if self.temporary.exists():
            self.temporary.replace(rescued)
        self._check_space(0)
        self._file = h5py.File(self.temporary, "w")
        self._file.attrs.update(
            {
                "format": FORMAT,
                "codec": codec,
                "size": size or 0,
                "attributes": json.dumps(attributes, sort_keys=True),
            }
        )
        if codec == "raw" and not self.native:
            self._create("image", (size, size, 3), np.uint8, chunk=1, fletcher32=True)
        else:
            self._create("blob", (), np.uint8, chunk=_BLOB_CHUNK, fletcher32=True)
            self._create("end", (), np.uint64)
        if self.native:
            self._create("shape", (2,), np.uint32)
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
        """Add a row: uint8 ``[H, W, 3]``, or the bytes of a file. It is written when enough wait."""
        self._pending.append((image, row, mask))
        self.last_row = row
        self.rows += 1
        self._bytes += len(image) if isinstance(image, bytes) else image.nbytes
        if len(self._pending) == _FLUSH or self._bytes >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Hand the pending rows to the file; a crash after this loses none of them."""
        if not self._pending:
            return
        images = [image for image, _, _ in self._pending]
        raw = self.codec == "raw"
        blobs: Sequence[Any] = [np.ascontiguousarray(i) if raw else encode(i, self.codec) for i in images]
        self._check_space(sum(memoryview(blob).nbytes for blob in blobs))
        if raw and not self.native:
            self._extend("image", np.stack(blobs))
        else:
            flat = [blob.reshape(-1) if raw else np.frombuffer(blob, np.uint8) for blob in blobs]
            start = len(self._file["blob"])
            self._extend("blob", np.concatenate(flat))
            self._extend("end", start + np.cumsum([len(blob) for blob in flat], dtype=np.uint64))
        if self.native:
            self._extend("shape", np.array([np.shape(image)[:2] for image in images], np.uint32))
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
        self._bytes = 0

    def _check_space(self, count: int) -> None:
        """Raise what the system would, but sooner: HDF5 cannot even close a file that the disk has no room for."""
        if shutil.disk_usage(self.path.parent).free < count + _SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path.parent))

    def _extend(self, name: str, values: Array) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values

    def origins(self) -> list[str]:
        """The origins of all its rows."""
        self.flush()
        return [text_of(origin) for origin in self._file["origin"][:]]

    def finish(self) -> None:
        """Make the file whole: flush, close, sync, rename."""
        self.flush()
        self._file.close()
        with open(self.temporary, "rb+") as file:
            os.fsync(file.fileno())
        self.temporary.replace(self.path)

    def close(self) -> None:
        """Make the shard part of the set: finish it, and write its line in the manifest."""
        self.finish()
        self.list_in_manifest(self.path, self.rows)

    def abandon(self) -> None:
        """Stop without listing the shard; its flushed rows are found again by the next writer."""
        with suppress(*WRITE_ERRORS):  # the disk may be full: what was flushed before is there
            self.flush()
        with suppress(*WRITE_ERRORS):
            self._file.close()

    @staticmethod
    def list_in_manifest(path: Path, rows: int, sha256: str = "") -> None:
        """Add a shard's line, unless another process has added the same one."""
        facts = {"name": path.name, "count": rows, "sha256": sha256 or hash_file(path)}
        line = json.dumps(facts).encode()
        with listing(path.parent) as file:
            file.seek(0)
            before = file.read()
            if line in before.splitlines():
                return
            # a crash may have left a line without its end
            file.write((b"\n" if before and not before.endswith(b"\n") else b"") + line + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def listing(folder: Path) -> Iterator[BinaryIO]:
    """The manifest, open to read and to append, for one process at a time."""
    with open(folder / MANIFEST, "a+b") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


class ShardWriter:
    """Write a shard folder row by row, or go on where a killed writer stopped.

    Args:
        out: the folder; created when it is not there.
        size: height and width in pixels; None for codec ``original``, and for a native set, whose rows have sizes of
            their own.
        codec: ``raw``, ``webp`` or ``original``.
        shard_rows: rows per shard.
        attributes: JSON-able facts stored with every shard; a resumed folder must have the same.
        masks: keep a mask with every image; one that is not given is blank. Native sets have none.

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
        if masks and size is None:
            raise ValueError("masks need images of one size")
        self.out = Path(out)
        self.size, self.codec, self.shard_rows, self.masks = size, codec, shard_rows, masks
        self.attributes = json.loads(json.dumps(attributes or {}))
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._unlock = weakref.finalize(self, os.close, lock_folder(self.out))
            done = adopt_finished(self.out)
            self.last_origin: str | None = (
                None  # of the last row already there: where a resumed source goes on
            )
            if done:
                existing = ShardSet(self.out)
                self._check_same(existing)
                self.last_origin = text_of(existing.file(-1)["origin"][-1])
            self.rows_done = sum(line["count"] for line in done)
            self._current: Any = self._open(_next_index(done))
        except OSError as error:
            raise UserError(
                f"cannot write {out} ({error.strerror or error})", hint="name another --out"
            ) from error
        self.rows_done += self._current.rows
        if self._current.last_row is not None:
            self.last_origin = self._current.last_row.origin

    def origins(self) -> Iterator[str]:
        """Of all rows already there."""
        if self.rows_done > (self._current.rows if self._current else 0):
            for part in ShardSet(self.out).columns.parts("origin"):
                yield from part.tolist()
        if self._current is not None:
            yield from self._current.origins()

    def _open(self, index: int) -> Any:
        self._index = index
        return ShardFile(self.out, index, self.size, self.codec, self.attributes, self.masks)

    def _check_same(self, existing: ShardSet) -> None:
        ours = (self.size, self.codec, self.attributes, self.masks)
        if (existing.size, existing.codec, existing.attributes, existing.has_masks) != ours:
            raise UserError(
                f"{self.out} holds shards made with other settings", hint="name another --out or delete it"
            )

    def append(self, image: Pixels | bytes, row: Row, mask: Pixels | None = None) -> None:
        """Add one image: uint8 ``[size, size, 3]``, or a file's bytes for codec ``original``; mask ``[size, size]``.

        A native set takes uint8 ``[H, W, 3]`` of any height and width.
        """
        if self.codec != "original":
            shape, dtype = getattr(image, "shape", ()), getattr(image, "dtype", None)
            wanted = (self.size, self.size, 3) if self.size else (*shape[:2], 3)
            if len(shape) != 3 or 0 in shape or shape != wanted or dtype != np.uint8:
                sides = f"{self.size}, {self.size}" if self.size else "H, W"
                raise ValueError(f"expected uint8 [{sides}, 3], got {dtype} {shape or None}")
        self._add(image, row, mask)

    def _add(self, image: Any, row: Row, mask: Pixels | None) -> None:
        if self._current is None:
            self._current = self._open(self._index + 1)
        try:
            self._current.append(image, row, mask)
            if self._current.rows == self.shard_rows:
                self._current.close()
                self._current = None
        except WRITE_ERRORS as error:
            raise UserError(
                f"cannot write {self.out} ({error})", hint="free some space and run it again"
            ) from error

    def extend(self, images: Iterable[Pixels | bytes], rows: Iterable[Row]) -> None:
        """Append rows, one for each image; ``ValueError`` where they are not as many."""
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
        self._unlock()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._current is not None:
            self._current.abandon()
            self._unlock()


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
