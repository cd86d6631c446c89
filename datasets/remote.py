"""Shard folders on other machines: through a path that both see, or through any store that fsspec knows.

In a store a folder is named by its hash, so it is uploaded once, whatever it is called and whoever needs it::

    URL/<hash>/00000.h5 … splits.csv manifest.jsonl      the manifest comes last: what lacks it is not whole
"""

from __future__ import annotations

import fcntl
import functools
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfake.datasets.shards import MANIFEST, SPLITS, ShardSet, read_manifest
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.provenance import hash_file


def cache() -> Path:
    """Where fetched folders are kept, by their hash: they may be deleted whenever nothing runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfake" / "shards"


def push(folder: str | Path, url: str) -> None:
    """Upload a shard folder, unless the store has it.

    Args:
        folder: of shards.
        url: of the store, for example ``s3://bucket/shards``, ``gs://…`` or ``file:///mnt/shards``.

    Raises:
        UserError: it is no shard folder, or the store cannot be reached or written.

    Example:
        >>> push("data/faces", "s3://bucket/shards")  # doctest: +SKIP
        >>> pull(ShardSet("data/faces").hash, "s3://bucket/shards")  # doctest: +SKIP
        PosixPath('/home/me/.cache/crossfake/shards/3f0c…')
    """
    shards = ShardSet(folder)
    manifest = (shards.path / MANIFEST).read_bytes()
    with store(url) as (files, root):
        there = f"{root}/{shards.hash}"
        if files.exists(f"{there}/{MANIFEST}") and files.cat_file(f"{there}/{MANIFEST}") == manifest:
            return
        files.makedirs(there, exist_ok=True)
        splits = [SPLITS] if (shards.path / SPLITS).exists() else []
        for name in (*shards.names, *splits, MANIFEST):
            files.put_file(str(shards.path / name), f"{there}/{name}")


def pull(hash: str, url: str) -> Path:
    """Fetch a shard folder by its hash, unless it was fetched before; every file is held against its checksum.

    Processes that want the same folder at the same time wait for the one that fetches it.

    Returns:
        The folder ``$XDG_CACHE_HOME/crossfake/shards/<hash>``.

    Raises:
        UserError: the store cannot be reached, has no such folder, or what came is damaged.
    """
    folder = cache() / hash
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{hash}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however that ends
        if hash_of(folder) == hash:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
            whole = Path(temporary) / "shards"
            with store(url) as (files, root):
                _fetch(files, f"{root}/{hash}", whole, f"{url}/{hash}")
            if hash_of(whole) != hash or not _intact(whole):
                raise UserError(
                    f"{url}/{hash} is damaged", hint="delete it there and run again: it is uploaded anew"
                )
            whole.rename(folder)
    return folder


def find(folder: Path, hash: str, url: str | None) -> Path:
    """The shards of that hash on this machine: the folder itself where it is there, else fetched from the store.

    Raises:
        UserError: neither has them.
    """
    if hash_of(folder) == hash:
        return folder
    if url is None:
        raise UserError(
            f"{platform.node()} does not have the shards {folder}, or has others there",
            hint="put them where all machines find them, or give --store URL",
        )
    return pull(hash, url)


@dataclass(frozen=True)
class Shared:
    """A shard folder as tasks on other machines know it."""

    folder: Path
    hash: str
    store: str | None

    @classmethod
    def of(cls, shards: ShardSet, where: ExecutorSettings) -> Shared:
        """Of a folder of this machine; it is put into the store first, where there is one.

        Raises:
            UserError: the store does not work.
        """
        if where.store:
            push(shards.path, where.store)
        return cls(shards.path.absolute(), shards.hash, where.store)

    def open(self) -> ShardSet:
        """The folder where this process runs, looked for once.

        Raises:
            UserError: neither this machine nor the store has it.
        """
        return _opened(self)


@functools.lru_cache(maxsize=8)
def _opened(shared: Shared) -> ShardSet:
    return ShardSet(find(shared.folder, shared.hash, shared.store))


def put(file: Path, url: str, name: str) -> None:
    """Upload one file as ``URL/name``.

    Raises:
        UserError: the store does not work.
    """
    with store(url) as (files, root):
        there = f"{root}/{name}"
        files.makedirs(there.rpartition("/")[0], exist_ok=True)
        files.put_file(str(file), there)


def get(url: str, name: str, file: Path) -> None:
    """Fetch ``URL/name``.

    Raises:
        UserError: the store does not work, or lacks it.
    """
    with store(url) as (files, root):
        files.get_file(f"{root}/{name}", str(file))


def drop(url: str, name: str) -> None:
    """Delete ``URL/name`` and all below it, if it is there."""
    with store(url) as (files, root):
        if files.exists(f"{root}/{name}"):
            files.rm(f"{root}/{name}", recursive=True)


def hash_of(folder: Path) -> str | None:
    """The hash of a shard folder; None where there is none, or not all of it."""
    try:
        return ShardSet(folder).hash
    except (UserError, OSError):
        return None


def _fetch(files: Any, there: str, folder: Path, name: str) -> None:
    if not files.exists(f"{there}/{MANIFEST}"):
        raise UserError(f"there are no shards {name}", hint="upload them with crossfake.datasets.remote.push")
    folder.mkdir()
    files.get_file(f"{there}/{MANIFEST}", str(folder / MANIFEST))
    for line in read_manifest(folder):
        if Path(line["name"]).name != line["name"]:
            raise UserError(f"{name} names a file outside its folder, {line['name']}", hint="do not trust it")
        files.get_file(f"{there}/{line['name']}", str(folder / line["name"]))
    if files.exists(f"{there}/{SPLITS}"):
        files.get_file(f"{there}/{SPLITS}", str(folder / SPLITS))


def _intact(folder: Path) -> bool:
    return all(hash_file(folder / line["name"]) == line["sha256"] for line in read_manifest(folder))


@contextmanager
def store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system behind a URL, and the path in it; whatever goes wrong with it is one line."""
    import fsspec  # type: ignore[import-untyped]
    from fsspec.registry import known_implementations  # type: ignore[import-untyped]

    try:
        files, root = fsspec.url_to_fs(url)
        yield files, root.rstrip("/")
    except UserError:
        raise
    except ImportError as error:
        package = known_implementations[url.partition("://")[0]]["class"].partition(".")[0]
        hint = f"pip install {package}" if package != "fsspec" else str(error)
        raise UserError(f"{url} needs a package that is not installed", hint=hint) from error
    except Exception as error:  # every store has errors of its own
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise UserError(
            f"the store {url} does not work ({reason})", hint="check its address, the network and your rights"
        ) from error
