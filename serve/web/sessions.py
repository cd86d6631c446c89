"""Who is on the page: one private folder a visitor, gone with the visit, and links that nobody else can guess."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from crossfake.serve.web.uploads import Uploads, not_sent

_TABS = 8  # open pages of one visitor; the one that was used longest ago is closed
_IDLE = 3600.0  # seconds after which a visit counts as over, for browsers that never say so


class Case:
    """One thing that a visitor works on: its files, its downloads, and whether it is to be stopped.

    Attributes:
        folder: private; gone when the next case of its kind begins.
        token: of its links, 256 random bits.
        stop: set when the visitor cancels, leaves, or begins anew.
        downloads: what its links give, by name: a function that makes the file, called when it is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_urlsafe(32)
        self.stop = threading.Event()
        self.downloads: dict[str, Callable[[], Path]] = {}
        folder.mkdir()

    def take(self, path: str | Path) -> Path:
        """Move an upload here, under a number: its own name says nothing, and must not be able to."""
        target = self.folder / f"{len(list(self.folder.iterdir()))}.upload"
        shutil.move(path, target)
        return target

    def link(self, name: str) -> str:
        """The address of a download, relative to the page's."""
        return f"page/{self.token}/{name}"

    def close(self) -> None:
        self.stop.set()
        self.downloads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """One page that a visitor has open: a case of each kind at most, so that nobody can fill the disk.

    Args:
        visitor: whose.
        folder: private; made, and deleted when the page is closed.
    """

    def __init__(self, visitor: str, folder: Path) -> None:
        self.visitor, self.folder = visitor, folder
        folder.mkdir(mode=0o700, parents=True)
        self.cases: dict[str, Case] = {}
        self.seen = time.monotonic()
        self._count = 0

    def begin(self, kind: str) -> Case:
        """A new case; the former of that kind is stopped and its files are deleted."""
        if kind in self.cases:
            self.cases.pop(kind).close()
        self._count += 1
        self.cases[kind] = Case(self.folder / str(self._count))
        return self.cases[kind]

    def cancel(self, kind: str) -> None:
        if kind in self.cases:
            self.cases[kind].stop.set()

    def close(self) -> None:
        for case in self.cases.values():
            case.close()
        self.cases.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All open pages, by the hash that Gradio gives each browser tab, and the files of their visitors."""

    def __init__(self, uploads: Uploads | None = None) -> None:
        self.uploads = uploads or Uploads()
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, name: str, visitor: str | None = None) -> Session:
        """The session of a page, opened at the first call.

        Raises:
            Refused: it is another visitor's than ``visitor``.
        """
        self.check(name, visitor)
        with self._lock:
            session = self._open.get(name)
            if session is None:
                whose = visitor or ""
                own = [other for other, each in self._open.items() if each.visitor == whose]
                for other in sorted(own, key=lambda each: self._open[each].seen)[: len(own) + 1 - _TABS]:
                    self._open.pop(other).close()
                folder = self.uploads.folder(whose) / f"tab-{secrets.token_hex(8)}"
                session = self._open[name] = Session(whose, folder)
            session.seen = time.monotonic()
            return session

    def check(self, name: str, visitor: str | None) -> None:
        """Refuse a name that belongs to another visitor."""
        with self._lock:
            session = self._open.get(name)
            if session is not None and visitor is not None and session.visitor != visitor:
                raise not_sent()

    def sweep(self, now: float | None = None) -> None:
        """Close what was idle for an hour, and delete what nobody took over."""
        now = time.monotonic() if now is None else now
        with self._lock:
            for name, session in list(self._open.items()):
                if now - session.seen > _IDLE:
                    self._open.pop(name).close()
        self.uploads.sweep(now)

    def current(self, name: str, kind: str, case: Case) -> bool:
        """Whether that is still what the visitor works on."""
        with self._lock:
            return name in self._open and self._open[name].cases.get(kind) is case

    def find(self, token: str) -> Case | None:
        """The case whose links bear that token."""
        with self._lock:
            for session in self._open.values():
                for case in list(session.cases.values()):  # a tab may begin one meanwhile
                    if secrets.compare_digest(case.token.encode(), token.encode()):
                        session.seen = time.monotonic()
                        return case
        return None

    def close(self, name: str) -> None:
        """The visit is over: stop its work and delete its files."""
        with self._lock:
            if name in self._open:
                self._open.pop(name).close()

    def close_all(self) -> None:
        for name in list(self._open):
            self.close(name)
        self.uploads.close()
