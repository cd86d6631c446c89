"""Shards written by tasks of a Ray cluster: each by one task, whole or not at all; the driver alone lists them.

A task writes into the folder itself, where all machines share it, or puts its file into a store, from which the driver
fetches it. What a task or the driver leaves behind when it is killed is no part of the folder, and is removed by the
next call.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

from crossfake.cluster import Tasks, import_ray
from crossfake.datasets import remote
from crossfake.datasets.shard_writer import WRITE_ERRORS, ShardFile, ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.executor import Demand, ExecutorSettings
from crossfake.provenance import hash_file

_PART = ".part-"
_GRACE = 10.0  # seconds


@dataclass(frozen=True)
class Target:
    """Where a task leaves its shard.

    Attributes:
        out: the shard folder on the driver's machine.
        store: URL of a store, under which ``parts/name`` holds the files of one call; None where all see ``out``.
        name: of the call.
    """

    out: Path
    store: str | None
    name: str


@dataclass(frozen=True)
class Delivery:
    """A shard that a task wrote: its number, where it is, its rows and its SHA-256."""

    index: int
    place: str
    rows: int
    sha256: str


def deliver(target: Target, index: int, write: Callable[[Path], int]) -> Delivery:
    """On a worker: write one shard and leave it where the driver finds it.

    Args:
        target: where.
        index: the shard's number.
        write: makes the whole file ``NNNNN.h5`` in a folder, and returns how many rows it has.

    Raises:
        UserError: the folder is not seen from here, the store does not work, or there is no room.
    """
    if target.store is None and not target.out.is_dir():
        raise UserError(
            f"{platform.node()} does not see {target.out}",
            hint="name an --out on a file system that all machines share, or give --store URL",
        )
    folder = Path(tempfile.mkdtemp(prefix=_PART, dir=None if target.store else target.out))
    file = folder / f"{index:05d}.h5"
    try:
        rows = write(folder)
        sha256 = hash_file(file)
        if target.store is None:
            return Delivery(index, str(file), rows, sha256)
        place = f"parts/{target.name}/{index:05d}-{uuid.uuid4().hex}.h5"  # a task may be done twice
        remote.put(file, target.store, place)
    except WRITE_ERRORS as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"{platform.node()} cannot write {file} ({error})", hint="free some space and run it again"
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    return Delivery(index, place, rows, sha256)


class Deliveries:
    """The driver's side: takes shards into the folder, one after the other.

    Args:
        out: the folder, which no other process writes to.
        where: the cluster.
    """

    def __init__(self, out: Path, where: ExecutorSettings) -> None:
        self.target = Target(out.absolute(), where.store, uuid.uuid4().hex)
        self._tidy()

    def take(self, delivery: Delivery) -> None:
        """Make a delivered shard part of the folder.

        Raises:
            UserError: it is not what its task wrote, or cannot be fetched.
        """
        out, store = self.target.out, self.target.store
        path = out / f"{delivery.index:05d}.h5"
        arrived = Path(delivery.place)
        if store is not None:
            arrived = Path(tempfile.mkdtemp(prefix=_PART, dir=out)) / path.name
            remote.get(store, delivery.place, arrived)
            if hash_file(arrived) != delivery.sha256:
                raise UserError(f"{store}/{delivery.place} is damaged", hint="run the same command again")
            remote.drop(store, delivery.place)
        elif not arrived.is_file():
            raise UserError(
                f"{out} is not one folder for all machines: shard {path.name} was written elsewhere",
                hint="name an --out on a file system that they share, or give --store URL",
            )
        path.with_suffix(".h5.tmp").unlink(missing_ok=True)  # a part of it, from a call without Ray
        arrived.replace(path)
        arrived.parent.rmdir()
        ShardFile.list_in_manifest(path, delivery.rows, delivery.sha256)

    def close(self) -> None:
        """Remove what was not taken."""
        self._tidy()
        if self.target.store is not None:
            with suppress(UserError):
                remote.drop(self.target.store, f"parts/{self.target.name}")

    def _tidy(self) -> None:
        for part in self.target.out.glob(f"{_PART}*"):
            shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class Held:
    """An image, and its mask, that a task made: number ``number`` of the list behind a reference of Ray's."""

    reference: Any
    number: int


class ShardTasks:
    """Sends shards to be written, and takes them into the folder in the order in which they were sent.

    Args:
        out: the folder, which no other process writes to.
        where: the cluster, which is connected.
        size, codec, attributes, masks: as of :class:`~crossfake.datasets.shard_writer.ShardFile`.
    """

    def __init__(
        self,
        out: Path,
        where: ExecutorSettings,
        size: int | None,
        codec: str,
        attributes: dict[str, Any],
        masks: bool = False,
    ) -> None:
        self._deliveries = Deliveries(out, where)
        target = self._deliveries.target
        write = partial(
            _write_rows, target=target, size=size, codec=codec, attributes=attributes, masks=masks
        )
        # a core that it kept while it waits for lost pixels would be the one that makes them again
        self._tasks = Tasks(write, Demand(cpus=0), "writing a shard")
        self._sent: deque[tuple[Any, Gathered]] = deque()

    def send(self, shard: Gathered) -> None:
        """Have a shard written. Some of those before it may be waited for."""
        # its references keep the pixels, and Ray makes them again if they are lost, until the shard is there
        self._sent.append((self._tasks.submit((shard.index, shard.parts)), shard))
        while len(self._sent) > 1 + self._tasks.slots:
            self._take()
        self.take_ready()

    def take_ready(self) -> None:
        """Take the shards that are written by now: what is in the folder is not lost when this process dies."""
        while self._is_ready():
            self._take()

    def _is_ready(self, timeout: float = 0) -> bool:
        return bool(self._sent) and self._tasks.is_ready(self._sent[0][0], timeout)

    def _take(self) -> None:
        """In order: a folder never has a gap."""
        self._deliveries.take(self._tasks.result(self._sent.popleft()[0]))

    def __enter__(self) -> ShardTasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all; after an error or Ctrl-C take what is written within some seconds."""
        try:
            if kind is None:
                while self._sent:
                    self._take()
                return
            until = time.monotonic() + _GRACE
            with suppress(Exception):
                while self._is_ready(max(0.0, until - time.monotonic())):
                    self._take()
        finally:
            self._deliveries.close()


class Gathered:
    """The rows of a shard to be, whose pixels are :class:`Held`.

    Args:
        index: the shard's number.
        tasks: what writes it when it is closed.
    """

    def __init__(self, index: int, tasks: ShardTasks) -> None:
        self.index, self._tasks = index, tasks
        self.rows = 0
        self.last_row: Row | None = None
        self.parts: list[tuple[Any, list[tuple[int, Row]]]] = []

    def append(self, image: Held, row: Row, mask: Pixels | None = None) -> None:
        """Note a row whose picture another machine holds."""
        if not self.parts or self.parts[-1][0] is not image.reference:
            self.parts.append((image.reference, []))
            self._tasks.take_ready()
        self.parts[-1][1].append((image.number, row))
        self.rows += 1
        self.last_row = row

    def close(self) -> None:
        """Have what was gathered written."""
        self._tasks.send(self)

    def origins(self) -> list[str]:
        """None: what is gathered is not read back."""
        return []


class ClusterWriter(ShardWriter):
    """As :class:`ShardWriter`, of images that are held in a Ray cluster: pixels never come to the driver.

    What a killed call wrote is kept by whole shards: rows of the last one are made again.

    Args:
        out: the folder.
        size, codec, shard_rows, attributes, masks: as there.
        where: the cluster, which is connected.
    """

    def __init__(
        self,
        out: Path,
        size: int | None,
        codec: str,
        where: ExecutorSettings,
        shard_rows: int,
        attributes: dict[str, Any] | None = None,
        masks: bool = False,
    ) -> None:
        self.where = where
        super().__init__(out, size, codec, shard_rows, attributes, masks)

    @cached_property
    def _shards(self) -> ShardTasks:
        return ShardTasks(self.out, self.where, self.size, self.codec, self.attributes, self.masks)

    def append(self, image: Any, row: Row, mask: Pixels | None = None) -> None:
        """Add one image that is :class:`Held`."""
        self._add(image, row, mask)

    def _open(self, index: int) -> Any:
        self._index = index
        for left in self.out.glob(f"{index:05d}.h5.*"):
            left.unlink()
        return Gathered(index, self._shards)

    def close(self) -> None:
        """Have the last shard written; one without rows is not kept."""
        current, self._current = self._current, None
        if current is not None and current.rows:
            current.close()
        self._shards.__exit__(None, None, None)
        self._unlock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        self._shards.__exit__(kind, error, trace)
        self._unlock()


def _write_rows(
    job: tuple[int, list[tuple[Any, list[tuple[int, Row]]]]],
    target: Target,
    size: int | None,
    codec: str,
    attributes: dict[str, Any],
    masks: bool,
) -> Delivery:
    """On a worker: one shard of pixels that other tasks made."""
    index, parts = job
    ray = import_ray()

    def write(folder: Path) -> int:
        shard = ShardFile(folder, index, size, codec, attributes, masks)
        for reference, rows in parts:
            held = ray.get(reference)
            for number, row in rows:
                image, mask = held[number]
                shard.append(image, row, mask)
        shard.finish()
        return shard.rows

    return deliver(target, index, write)
