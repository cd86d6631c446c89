"""What visitors of the page send: kept under names of the server's own, counted, and given back to its sender alone."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import DEFAULTS, Limits
from crossfake.serve.intake.receiving import Received, receive_files

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE = "crossfake"
_OLD = 600.0  # seconds after which a file that no event took over is deleted
_EACH, _ALL = 2, 8  # times the largest archive: what one visitor may have here, and all of them
_COMING = "coming-"  # folders of uploads that are not complete
_KINDS = ("image", "video", "archive")


@dataclass(frozen=True)
class _Held:
    visitor: str
    received: Received
    when: float


class Uploads:
    """The files of all visitors, below one private folder (mode 0700).

    A visitor is a browser, known by a cookie that only this server can make. A file is named by a random word; what
    that word stands for is looked up here, and no path that a client names is ever opened.

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
        self._secret = secrets.token_bytes(32)
        self._held: dict[str, _Held] = {}
        self._coming: Counter[str] = Counter()  # bytes of uploads that are not complete, by visitor
        self._lock = threading.Lock()

    def admit(self) -> str:
        """The cookie of a new visitor."""
        visitor = secrets.token_hex(16)
        return f"{visitor}.{self._sign(visitor)}"

    def visitor(self, cookie: str | None) -> str | None:
        """Who bears a cookie; None when this server did not make it."""
        visitor, _, signature = (cookie or "").partition(".")
        return visitor if hmac.compare_digest(signature.encode(), self._sign(visitor).encode()) else None

    def folder(self, visitor: str) -> Path:
        """Where all that a visitor has here lies."""
        folder = self.root / (visitor or "nobody")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def receive(
        self, request: Request, visitor: str, arrived: Callable[[str, int], None] = lambda name, count: None
    ) -> list[str]:
        """Store the files of a form, and return the word for each.

        Args:
            arrived: is told names of files, and bytes as they come.

        Raises:
            Refused: the form is malformed or too much, or the visitor's or the server's quota is used up.
        """
        from anyio import to_thread

        own, everything = await to_thread.run_sync(lambda: (self._size(visitor), self._size()))
        mine = 0

        def charge(name: str, count: int) -> None:
            nonlocal mine
            mine += count
            self._coming[visitor] += count
            self._check(own + self._coming[visitor], everything + self._coming.total())
            arrived(name, count)

        with self._lock:
            waiting = sum(each.visitor == visitor for each in self._held.values())
        if waiting >= 2 * self.limits.files:
            raise Refused("quota", "too many files were sent and not looked at", "wait until they are", 413)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=_COMING) as folder:
            try:
                received = await receive_files(
                    request, Path(folder), self.limits, field="files", kinds=_KINDS, most=self.limits.bytes_archive,
                    files=self.limits.files, strict=False, charge=charge,
                )  # fmt: skip
                return await to_thread.run_sync(self._hold, visitor, received)
            finally:
                self._coming[visitor] -= mine
                self._coming += Counter()  # forgets who has nothing on its way

    def _hold(self, visitor: str, received: list[Received]) -> list[str]:
        words = [secrets.token_urlsafe(18) for _ in received]
        with self._lock:
            size = sum(each.path.stat().st_size for each in received if each.problem is None)
            self._check(self._size(visitor) + size, self._size() + size)  # others may have landed meanwhile
            for word, each in zip(words, received, strict=True):
                kept = self.folder(visitor) / f"{word}.upload"
                if each.problem is None:
                    each.path.rename(kept)
                self._held[word] = _Held(visitor, replace(each, path=kept), time.monotonic())
        return words

    def _check(self, own: int, everything: int) -> None:
        if own > self.each or everything > self.total:
            raise Refused("quota", "too much was sent that is still here", "wait until it is done", 413)

    def path(self, visitor: str, word: object) -> Path:
        """Where the file lies that a word of this visitor stands for.

        Raises:
            Refused: there is none; the answer is the same whatever the word was.
        """
        with self._lock:
            held = self._held.get(word) if isinstance(word, str) else None
        if held is None or held.visitor != visitor:
            raise not_sent()
        return held.received.path

    def claim(self, visitor: str, path: object) -> Received:
        """Give a file, by the path of :meth:`path`, to an event that takes it over: once.

        Raises:
            Refused: as in :meth:`path`. The file system is not asked.
        """
        word = re.split(r"[/\\]", path)[-1].removesuffix(".upload") if isinstance(path, str) else ""
        with self._lock:
            held = self._held.get(word)
            if held is None or held.visitor != visitor or str(held.received.path) != path:
                raise not_sent()
            return self._held.pop(word).received

    def sweep(self, now: float | None = None) -> None:
        """Delete what nobody took over in ten minutes."""
        now = time.monotonic() if now is None else now
        with self._lock:
            old = [word for word, held in self._held.items() if now - held.when > _OLD]
            for word in old:
                self._held.pop(word).received.path.unlink(missing_ok=True)
            for folder in _below(self.root):
                if not folder.name.startswith(_COMING):
                    with contextlib.suppress(OSError):  # of a visitor who has something here still
                        folder.rmdir()

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _size(self, visitor: str | None = None) -> int:
        """Bytes on disk, of a visitor or of all; files on their way are counted elsewhere."""
        tops = [self.folder(visitor)] if visitor else _below(self.root)
        return sum(_bytes(top) for top in tops if not top.name.startswith(_COMING))

    def _sign(self, visitor: str) -> str:
        return hmac.new(self._secret, visitor.encode(), hashlib.sha256).hexdigest()


def not_sent() -> Refused:
    """The one answer to every name of a file that its asker has not sent here."""
    return Refused("no-such-file", "this is not a file that you have sent here", "choose it again")


def _below(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _bytes(folder: Path) -> int:
    def sizes() -> Iterator[int]:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # just deleted
                yield path.lstat().st_size if not path.is_dir() else 0

    return sum(sizes())
