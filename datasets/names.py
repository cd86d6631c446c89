"""A set of names that is on disk, so that millions of them take no memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class Names:
    """Names that were added; gone with the object.

    Example:
        >>> names = Names(["a.png"])
        >>> "a.png" in names, "b.png" in names, names.add("a.png"), names.add("b.png")
        (True, False, False, True)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._base = sqlite3.connect("", isolation_level=None)  # without a name: a temporary file
        self._base.execute("pragma synchronous = off")
        self._base.execute("create table names (name blob primary key) without rowid")
        self.update(names)

    def add(self, name: str) -> bool:
        """Add a name; whether it is new."""
        return self._base.execute("insert or ignore into names values (?)", (_key(name),)).rowcount == 1

    def update(self, names: Iterable[str]) -> None:
        """Add names; those that are there already stay."""
        self._base.execute("begin")
        self._base.executemany("insert or ignore into names values (?)", ((_key(name),) for name in names))
        self._base.execute("commit")

    def __contains__(self, name: str) -> bool:
        return self._base.execute("select 1 from names where name = ?", (_key(name),)).fetchone() is not None


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
