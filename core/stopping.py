"""Stopping long work without losing it."""

from __future__ import annotations

import signal
from typing import Any

from crossfake.errors import UserError


class StoppedByUser(UserError):
    """Ctrl-C ended long work in good order."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was stopped", hint="run the same command again and it goes on from there")


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step at hand; the second one interrupts."""

    asked = False
    signal = signal.SIGINT  # which of them it was

    def __enter__(self) -> Stopper:
        global _latest
        _latest = self
        try:
            self._old = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever called us handles signals
            self._old = {}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self.signal = True, signal.Signals(number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


_latest: Stopper | None = None


def exit_code() -> int:
    """What a shell expects of a command that was stopped, 130 after Ctrl-C; 0 where nobody asked the latest stopper."""
    return 128 + _latest.signal if _latest is not None and _latest.asked else 0


def forget() -> None:
    """No command of this process has been stopped so far."""
    global _latest
    _latest = None
