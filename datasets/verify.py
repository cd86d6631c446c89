"""Is every shard and row as it was written? If not: which, and how."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from crossfake.datasets.locking import being_written
from crossfake.datasets.shards import COLUMNS, LATER, MANIFEST, SPLITS, ShardSet, read_manifest, stored
from crossfake.datasets.splits import NAMES
from crossfake.errors import UserError
from crossfake.provenance import hash_file


def verify(folder: str | Path) -> list[str]:
    """What is wrong with a shard folder, one line each; nothing when all is well.

    Found are: a missing or truncated shard, a wrong count, bytes that changed (and the row they are in), shards
    that the manifest does not list, leftovers of a killed writer, and a damaged manifest.

    Raises:
        UserError: the folder has no manifest.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is not a shard folder", hint="make one with 'crossfake data prepare'")
    return list(_problems(folder))


def _problems(folder: Path) -> Iterator[str]:
    manifest = read_manifest(folder)
    if busy := being_written(folder):
        yield f"{folder}: another process writes to it: verify it when that has ended"
    yield from _wrong_lines(folder / MANIFEST)
    listed = {str(line["name"]) for line in manifest}
    for path in sorted(folder.glob("*.h5*")):
        if path.suffix == ".tmp" and not busy:
            yield f"{path}: left by a writer that was stopped; running it again goes on from there"
        elif path.suffix != ".tmp" and path.name not in listed:
            yield f"{path}: not listed in the manifest"
    for number, line in enumerate(manifest):
        path = folder / str(line["name"])
        if path.name != f"{number:05d}.h5" and f"{number:05d}.h5" not in listed:
            yield f"{folder / f'{number:05d}.h5'}: neither there nor listed, though later shards are"
        if not path.exists():
            yield f"{path}: missing"
            continue
        try:
            yield from list(_wrong_shard(path, str(line["sha256"]), int(line["count"])))
        except BlockingIOError:
            yield f"{path}: another process has it open for writing: verify it when that has ended"
        except OSError as error:
            yield f"{path}: cannot be read ({error.strerror or str(error).partition(chr(10))[0][:100]})"
    yield from _wrong_splits(folder)


def _wrong_lines(file: Path) -> Iterator[str]:
    """Lines that say nothing, and shards of which two lines say different things; twice the same is no fault."""
    unreadable, known = 0, dict[str, tuple[Any, Any]]()
    for text in filter(str.strip, file.read_text().splitlines()):
        try:
            line = json.loads(text)
            name, said = str(line["name"]), (int(line["count"]), line["sha256"])
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        if known.setdefault(name, said) != said:
            yield f"{file}: lists {name} twice and not alike: keep the line whose sha256 is the file's"
            known[name] = said
    if unreadable:
        yield f"{file}: {unreadable} line{'s' if unreadable > 1 else ''} unreadable"


def _wrong_shard(path: Path, sha256: str, count: int) -> Iterator[str]:
    if hash_file(path) != sha256:
        yield f"{path}: its bytes differ from the manifest's sha256"
        yield from _damaged_rows(path, count)
    elif (rows := _count(path)) != count:
        yield f"{path}: holds {rows} rows, the manifest says {count}"


def _wrong_splits(folder: Path) -> Iterator[str]:
    """Whether ``splits.csv`` names the rows that are there, in their order."""
    if (folder / SPLITS).exists():
        try:
            unknown = set(ShardSet(folder).columns["split"].tolist()) - {*NAMES, "", "aside"}
            if unknown:
                yield f"{folder / SPLITS}: {sorted(unknown)[0]!r} is no split"
        except UserError as error:
            yield f"{error.message}: {error.hint}"
        except (OSError, KeyError, ValueError, RuntimeError):
            pass  # a damaged shard, which is on the list already


def _count(path: Path) -> int:
    with h5py.File(path, "r") as file:
        return len(file["crc32"])


def _damaged_rows(path: Path, expected: int) -> Iterator[str]:
    """Where in a changed file the damage lies, as far as it can still be opened."""
    try:
        with h5py.File(path, "r") as file:
            codec, rows = str(file.attrs["codec"]), len(file["crc32"])
            if rows != expected:
                yield f"{path}: holds {rows} rows, the manifest says {expected}"
            for row in range(rows):
                try:
                    whole = zlib.crc32(stored(file, codec, row)) == int(file["crc32"][row])
                except (OSError, RuntimeError, ValueError):
                    whole = False
                if not whole:
                    yield f"{path}: row {row} is damaged"
            for name in {*COLUMNS, *file} - ({*LATER} - {*file}) - {"image", "blob"}:
                file[name][:]
    except BlockingIOError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        yield f"{path}: cannot be read to its end, truncated or damaged ({str(error).partition(chr(10))[0][:100]})"
