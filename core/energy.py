"""What work costs: wall time, and the energy that this machine used where its processor tells."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

_RAPL = Path("/sys/class/powercap")


class Meter:
    """Wall time, and joules of all processor packages from Linux's RAPL counters, since entering or until leaving.

    ``joules`` is None where there are none, as on most virtual machines, or where they may not be read. The whole
    machine is counted, other work included; graphics cards are not. Counters start over, after hours under load.

    Example:
        >>> with Meter() as meter:
        ...     so_far = meter.seconds
        >>> 0 <= so_far <= meter.seconds and (meter.joules is None or meter.joules >= 0)
        True
    """

    def __init__(self, root: Path = _RAPL) -> None:
        self._root = root
        self._ended: tuple[float, float | None] | None = None

    def __enter__(self) -> Meter:
        self._started, self._before = time.monotonic(), self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = self.seconds, self.joules

    @property
    def seconds(self) -> float:
        """Wall time since the start, in seconds; once the block has ended, that of the block."""
        return self._ended[0] if self._ended else time.monotonic() - self._started

    @property
    def joules(self) -> float | None:
        """Energy of all processors since the start, in joules; None where the machine does not count it."""
        if self._ended:
            return self._ended[1]
        now = self._read()
        if not self._before or self._before.keys() != now.keys():
            return None
        spent = (
            (after - before) % (limit + 1)  # counters start over
            for (before, _), (after, limit) in zip(self._before.values(), now.values(), strict=True)
        )
        return sum(spent) / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Microjoules and the counter's range, by package."""
        try:
            return {
                zone.name: (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
                for zone in sorted(self._root.glob("intel-rapl:[0-9]"))
            }
        except (OSError, ValueError):
            return {}
