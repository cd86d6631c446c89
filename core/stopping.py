"""Stopping a training without losing it."""

from __future__ import annotations

import signal
from typing import Any


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step at hand; the second one interrupts."""

    asked = False

    def __enter__(self) -> Stopper:
        try:
            self._old = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever called us handles signals
            self._old = {}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
