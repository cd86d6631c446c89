"""Who is on the page: one private folder a visitor, gone with the visit, and links that nobody else can guess."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from crossfake.detect.app.intake import session_folder

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
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()
        return target

    def link(self, name: str) -> str:
        """The address of a download, relative to the page's."""
        return f"page/{self.token}/{name}"

    def close(self) -> None:
        self.stop.set()
        self.downloads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """One visitor: a case of each kind at most, so that nobody can fill the disk."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(session_folder())
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
        self._stack.close()


class Sessions:
    """All visitors, by the hash that Gradio gives each browser tab."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Session:
        """The visitor's session, opened at the first call. Those idle for an hour are closed by the way."""
        with self._lock:
            now = time.monotonic()
            for other, session in list(self._open.items()):
                if now - session.seen > _IDLE and other != name:
                    self._open.pop(other).close()
            session = self._open.get(name) or Session()
            session.seen = now
            self._open[name] = session
            return session

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
