"""Progress of long work: a bar on a terminal, a line per tenth everywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

import tqdm as _library

_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_APART = 2.0  # seconds, at least, between the lines of one bar
_MINUTE = 60.0  # between them where nobody knows how much there will be


class tqdm(_library.tqdm):  # type: ignore[type-arg]
    """tqdm's bar, with rate and time left, where somebody watches: on a terminal.

    In a file or a pipe, where a bar would leave thousands of carriage returns, it is a line at every tenth of the
    work, and at the end unless ``leave`` is false. Where the total is unknown, it is a line a minute. Lines of one bar
    are at least two seconds apart, so that short work is not told in ten lines.

    Example:
        >>> import io
        >>> told = io.StringIO()
        >>> for _ in tqdm(range(20), desc="count", file=told):
        ...     pass
        >>> told.getvalue().count("\\n"), told.getvalue().startswith("count: 100% 20/20 [")
        (1, True)
    """

    _lines = False
    _told: tuple[float, float] | None = None  # how many there were at the last line, and when
    _began = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        file = kwargs.get("file") or sys.stderr
        self._lines = not getattr(file, "isatty", lambda: False)()
        super().__init__(*args, **kwargs)
        if self._lines and not self.disable:
            self._began = time.monotonic()
            self._told = self.n, self._began

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if not self._lines:
            super().display(msg, pos)
        elif self._told is not None:  # the constructor calls this, too
            n, when = self._told
            another = not self.total or 10 * self.n // self.total > 10 * n // self.total
            if another and time.monotonic() - when >= (_APART if self.total else _MINUTE):
                self._tell()

    def clear(self, nolock: bool = False) -> None:
        if not self._lines:
            super().clear(nolock=nolock)

    def close(self) -> None:
        if self._lines and not self.disable:
            late = time.monotonic() - self._began >= (self.delay or 0)
            if late and self.leave is not False and self._told is not None and self.n > self._told[0]:
                self._tell()
            self.delay = float("inf")  # nothing was drawn that would have to be wiped out
        super().close()

    def _tell(self) -> None:
        self._told = self.n, time.monotonic()
        self.bar_format = _LINE if self.total else None
        self.fp.write(f"{self}\n")
        self.fp.flush()
