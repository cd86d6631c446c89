"""Pictures in an object store, or in any other place that fsspec reads, found by a listing that is never held."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from crossfake.datasets import remote
from crossfake.datasets.sources.base import SOURCES, Record, Rejected, Source, SourceSpec, Stored
from crossfake.datasets.sources.folder import IMAGES, VIDEOS, is_clutter, is_hidden, labelled
from crossfake.datasets.sources.naming import ByFolders
from crossfake.errors import UserError

_PAGE = 1000  # names that S3 gives at once
NO_VIDEOS = Rejected("video in an object store", "copy it to a disk")


@SOURCES.register("objects")
class Objects(Source):
    """Every picture below a URL. S3 is listed by pages of a thousand names, other stores by folders."""

    about = "a folder in an object store: s3://, gs://, …"
    takes_labels = True
    in_stores = True

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        if not spec.url:
            raise UserError(f"{spec.place} is no URL", hint=f"read it as folder:{spec.place}")
        by = ByFolders(_folders(spec.url), spec.labels)
        for name in listing(spec.url):
            ending = ending_of(name)
            if is_hidden(name) or is_clutter(name):
                continue
            if ending not in IMAGES | VIDEOS:
                spec.left_out.add_file(name, b"")
                continue
            image = Stored(f"{spec.url}/{name}")
            record = labelled(Record(image, origin=name, source=spec.path.name), by)
            yield rejected(record, NO_VIDEOS) if ending in VIDEOS else record


def rejected(record: Record, why: Rejected) -> Record:
    """The record of a file that is not opened."""
    return record if isinstance(record.image, Rejected) else replace(record, image=why)


def ending_of(name: str) -> str:
    """Ending of the last part of a name or URL, small and with the dot; empty where it has none."""
    last = name.rpartition("/")[2]
    return f".{last.rpartition('.')[2].lower()}" if "." in last else ""


def listing(url: str) -> Iterator[str]:
    """Names of the files below a URL, in the order of the store.

    Raises:
        UserError: the store does not work.
    """
    with remote.store(url) as (files, root):
        if hasattr(files, "call_s3"):
            yield from _pages(files, root)
        elif files.exists(root):
            yield from _below(files, root, "")


def _pages(files: Any, root: str) -> Iterator[str]:
    """Of S3, whose listings are sorted: a thousand names are in memory."""
    bucket, _, folder = root.partition("/")
    prefix = f"{folder}/" if folder else ""
    more: dict[str, str] = {}
    while True:
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **more)
        for each in page.get("Contents", ()):
            name = each["Key"].removeprefix(prefix)
            if name and not name.endswith("/"):  # a folder that somebody made
                yield name
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _below(files: Any, folder: str, above: str) -> Iterator[str]:
    """The names of one folder at a time are in memory."""
    found = files.ls(folder, detail=True)
    files.invalidate_cache(folder)
    kinds = {each["name"].rstrip("/").rpartition("/")[2]: each["type"] for each in found}
    for name in sorted(kinds):
        if kinds[name] == "directory":
            yield from _below(files, f"{folder}/{name}", f"{above}{name}/")
        else:
            yield above + name


@functools.lru_cache(maxsize=1)
def _folders(url: str) -> frozenset[str]:
    """Folders below a URL."""
    return frozenset(
        above for name in listing(url) if (above := name.rpartition("/")[0]) and not is_hidden(above)
    )


def read(stored: Stored) -> bytes:
    """The bytes of a file, or of the part of it that is meant.

    Raises:
        OSError: it is not there.
        UserError: the store does not work.
    """
    end = None if stored.size is None else stored.start + stored.size
    with remote.store(stored.url) as (files, path):
        try:
            content: bytes = files.cat_file(path, start=stored.start, end=end)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and "range" not in str(error):
                raise
            content = b""  # an empty object has no first byte
    if not content:
        raise OSError("not in the store, or empty")
    return content
