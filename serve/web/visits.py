"""Who is on the page: a private folder for each visitor, what lies in it, and when it is deleted."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfake.serve.intake.accepting import Received
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import DEFAULTS, Limits
from crossfake.serve.intake.receiving import receive_files

if TYPE_CHECKING:
    from starlette.requests import Request

    from crossfake.serve.web.queue import Job

COOKIE = "crossfake"
_KEPT = 3  # results of each kind that a visitor may have open; the oldest goes
_OVER, _LEFT, _UNWATCHED, _SILENT = 3600.0, 15.0, 15.0, 150.0  # seconds: see Visits.sweep
_EACH, _ALL = 2, 8  # times the largest archive: what one visitor may have here, and all of them


class Case:
    """One thing that a visitor works on: its files, what is said of them so far, and its downloads.

    Attributes:
        kind: the page that it is on.
        folder: private; gone with the case.
        token: its name in addresses, 256 random bits.
        stop: set when its work is to end.
        parts: HTML by the place that it has on the page.
        version: grows with every part.
        over: whether no more is to come.
        job: what is waited for.
        downloads: what its links give, by name: a function that makes the file, called when it is asked for.
        files: whose analysis can be opened, in order.
        watching: open pages that are told of its progress.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.token = kind, folder, secrets.token_urlsafe(32)
        self.stop = threading.Event()
        self.parts: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.version, self.over, self.status = 0, False, ""
        self.job: Job[None] | None = None
        self.downloads: dict[str, Callable[[], Path]] = {}
        self.files: list[Received] = []
        self.watching, self.seen = 0, time.monotonic()
        folder.mkdir()

    @property
    def path(self) -> str:
        """Its address."""
        return f"/case/{self.token}"

    def show(self, **parts: str) -> None:
        """Put HTML into its places."""
        for name, html in parts.items():
            self.version += 1
            self.parts[name], self.versions[name] = html, self.version

    def end(self, status: str = "") -> None:
        """No more is to come."""
        self.status, self.over = status, True

    def take(self, path: Path) -> Path:
        """A file of the visitor's under a number here: its own name says nothing, and must not be able to."""
        target = self.folder / f"{len(list(self.folder.iterdir()))}.upload"
        target.hardlink_to(path)
        return target

    def close(self) -> None:
        """Stop its work, and delete its files."""
        self.stop.set()
        self.downloads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visit:
    """A browser that sent something, known by its cookie."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases, self.coming = folder, dict[str, Case](), 0
        self.tabs: dict[str, float] = {}  # open pages, and when each gave a sign of life
        self.seen, self.left = time.monotonic(), 0.0
        folder.mkdir(mode=0o700)

    def begin(self, kind: str) -> Case:
        """A new case; of its kind the oldest ones end."""
        same = [case for case in self.cases.values() if case.kind == kind]
        for old in same[: len(same) + 1 - _KEPT]:
            self.cases.pop(old.token).close()
        case = Case(kind, self.folder / secrets.token_urlsafe(16))
        self.cases[case.token] = case
        return case

    def here(self, tab: str) -> None:
        """A page of this visitor is open."""
        self.tabs = {**dict(list(self.tabs.items())[-31:]), tab: time.monotonic()}

    def leave(self, tab: str) -> None:
        """A page of this visitor was closed."""
        self.tabs.pop(tab, None)
        self.left = time.monotonic()

    def close(self) -> None:
        """End its cases, and delete its files."""
        for case in self.cases.values():
            case.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All visitors, and their files below one private folder (mode 0700).

    No path that a client names is ever opened: a case is found by its word among those of the visitor who asks.

    Args:
        limits: of uploads, from which the quotas follow.
        each: bytes that one visitor may have here, what is being analysed included.
        total: bytes of all visitors; at most half of what the disk has left.
    """

    def __init__(self, limits: Limits = DEFAULTS, each: int | None = None, total: int | None = None) -> None:
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix="crossfake-"))
        self.each = each or _EACH * limits.bytes_archive
        self.total = total or min(_ALL * limits.bytes_archive, shutil.disk_usage(self.root).free // 2)
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def of(self, cookie: str | None) -> Visit | None:
        """Who bears a cookie; None when there is no such visit, or no longer."""
        visit = self._open.get(cookie or "")
        if visit is not None:
            visit.seen = time.monotonic()
        return visit

    def open(self) -> tuple[str, Visit]:
        """A new visitor, and the cookie."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._open[cookie] = Visit(self.root / secrets.token_urlsafe(16))
        return cookie, self._open[cookie]

    async def receive(
        self, request: Request, visit: Visit, kind: str, **options: Any
    ) -> tuple[Case, list[Received]]:
        """A new case with the files of a form.

        Raises:
            Refused: the form is malformed or too much, or the visitor's or the server's quota is used up.
        """
        from starlette.concurrency import run_in_threadpool

        own, everything = await run_in_threadpool(lambda: (_bytes(visit.folder), _bytes(self.root)))
        mine = 0

        def check(own: int, everything: int) -> None:
            if own > self.each or everything > self.total:
                raise Refused("quota", "too much was sent that is still here", "close what is done", 413)

        def charge(count: int) -> None:
            nonlocal mine
            mine += count
            visit.coming += count
            check(own + visit.coming, everything + sum(each.coming for each in [*self._open.values()]))

        case = visit.begin(kind)
        try:
            received = await receive_files(request, case.folder, charge=charge, **options)
            check(*await run_in_threadpool(lambda: (_bytes(visit.folder), _bytes(self.root))))
            return case, received
        except BaseException:  # also when the visitor leaves: the case is closed
            visit.cases.pop(case.token, None)
            case.close()
            raise
        finally:
            visit.coming -= mine

    def sweep(self, now: float | None = None) -> None:
        """Delete what is over, and stop what nobody looks at.

        A visit is over when its last page was closed, a moment later, so that a page may be loaded again; or an hour
        after the last sign of life. Work is stopped when no page is told of it, nor asks.
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            for cookie, visit in list(self._open.items()):
                visit.tabs = {tab: seen for tab, seen in visit.tabs.items() if now - seen < _SILENT}
                left = visit.left and not visit.tabs and now - visit.left > _LEFT
                if left or now - visit.seen > _OVER:
                    self._open.pop(cookie).close()
                    continue
                for case in list(visit.cases.values()):
                    if not case.over and not case.watching and now - case.seen > _UNWATCHED:
                        case.stop.set()

    def close(self) -> None:
        """End all visits, and delete their files."""
        for visit in list(self._open.values()):
            visit.close()
        shutil.rmtree(self.root, ignore_errors=True)


def _bytes(folder: Path) -> int:
    """Of all files below; one with two names counts once."""
    sizes: dict[int, int] = {}
    for parent, _, names in os.walk(folder):  # which, unlike rglob, passes over folders that go meanwhile
        for name in names:
            with suppress(OSError):  # just deleted
                found = os.lstat(os.path.join(parent, name))
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())
