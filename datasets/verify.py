"""Is every shard and row as it was written? If not: which, and how."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from crossfake.datasets.shards import COLUMNS, MANIFEST, SPLITS, ShardSet, read_manifest, stored
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
        raise UserError(f"{folder} is not a shard folder", mend="make one with 'crossfake data prepare'")
    return list(_problems(folder))


def _problems(folder: Path) -> Iterator[str]:
    manifest = read_manifest(folder)
    torn = sum(bool(line.strip()) for line in (folder / MANIFEST).read_text().splitlines()) - len(manifest)
    if torn > 0:
        yield f"{folder / MANIFEST}: {torn} line{'s' if torn > 1 else ''} unreadable or given twice"
    listed = {str(line["name"]) for line in manifest}
    for path in sorted(folder.glob("*.h5*")):
        if path.suffix == ".tmp":
            yield f"{path}: left by a writer that was stopped; running it again goes on from there"
        elif path.name not in listed:
            yield f"{path}: not listed in the manifest"
    for number, line in enumerate(manifest):
        path = folder / str(line["name"])
        if path.name != f"{number:05d}.h5" and f"{number:05d}.h5" not in listed:
            yield f"{folder / f'{number:05d}.h5'}: neither there nor listed, though later shards are"
        if not path.exists():
            yield f"{path}: missing"
        elif hash_file(path) != line["sha256"]:
            yield f"{path}: its bytes differ from the manifest's sha256"
            yield from _damaged_rows(path, int(line["count"]))
        elif (rows := _count(path)) != int(line["count"]):
            yield f"{path}: holds {rows} rows, the manifest says {line['count']}"
    yield from _wrong_splits(folder)


def _wrong_splits(folder: Path) -> Iterator[str]:
    """Whether ``splits.csv`` names the rows that are there, in their order."""
    if (folder / SPLITS).exists():
        try:
            unknown = set(ShardSet(folder).columns["split"].tolist()) - {*NAMES, "", "aside"}
            if unknown:
                yield f"{folder / SPLITS}: {sorted(unknown)[0]!r} is no split"
        except UserError as error:
            yield f"{error.message}: {error.mend}"
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
            for name in {*COLUMNS, *file} - {"own_split", "image", "blob"}:
                file[name][:]
    except (OSError, RuntimeError, KeyError) as error:
        yield f"{path}: cannot be read to its end, truncated or damaged ({str(error).partition(chr(10))[0][:100]})"
