"""Energy that this machine used, where its processor tells."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

_RAPL = Path("/sys/class/powercap")


class Meter:
    """Joules of all processor packages between entering and leaving, from Linux's RAPL counters.

    ``joules`` is None where there are none, as on most virtual machines, or where they may not be read. The whole
    machine is counted, other work included; graphics cards are not.

    Example:
        >>> with Meter() as meter:
        ...     pass
        >>> meter.joules is None or meter.joules >= 0
        True
    """

    def __init__(self, root: Path = _RAPL) -> None:
        self._root = root
        self.joules: float | None = None

    def __enter__(self) -> Meter:
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = self._read()
        if self._before and self._before.keys() == after.keys():
            spent = (
                (now - then) % (limit + 1)  # counters start over
                for (then, _), (now, limit) in zip(self._before.values(), after.values(), strict=True)
            )
            self.joules = sum(spent) / 1e6

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
