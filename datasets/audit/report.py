"""The whole result: one verdict, a table for the terminal, a dictionary for JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass, field
from typing import Any

from crossfake import __version__
from crossfake.datasets.audit.results import CANNOT_TELL, FAIL, NOT_RUN, PASS, WARN, Check, Probe
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.pages import TERMINAL, plural


@dataclass(frozen=True)
class Audit:
    """What :func:`~crossfake.datasets.audit.audit.audit` found.

    Attributes:
        settings: what was asked.
        probes: how well each property tells real from fake.
        checks: what was counted.
        looked_at: pictures read of each class.
        hashes: of the shard folders among the sources.
    """

    settings: AuditSettings
    probes: list[Probe]
    checks: list[Check]
    looked_at: dict[str, int]
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> list[Probe | Check]:
        """Probes, then checks."""
        return [*self.probes, *self.checks]

    @property
    def verdict(self) -> str:
        """``fail`` when a probe or check fails, ``warn`` when one warns or when no probe could tell, else ``pass``."""
        verdicts = [result.verdict for result in self.results]
        if FAIL in verdicts:
            return FAIL
        none_told = all(
            probe.verdict in (CANNOT_TELL, NOT_RUN) or probe.low == probe.high for probe in self.probes
        )
        undecided = any(probe.verdict == CANNOT_TELL for probe in self.probes)
        return WARN if WARN in verdicts or (none_told and undecided) else PASS

    def summary(self) -> str:
        """One line: the verdict, what failed, and how much else there is."""
        failed = [f"{probe.name} (AUC {probe.auc:.2f})" for probe in self.probes if probe.verdict == FAIL] + [
            check.name for check in self.checks if check.verdict == FAIL
        ]
        warned = [result.name for result in self.results if result.verdict == WARN]
        undecided = sum(probe.verdict == CANNOT_TELL for probe in self.probes)
        parts = [", ".join(failed)] if failed else []
        if warned:
            parts.append(plural(len(warned), "warning") + ("" if failed else f" ({', '.join(warned)})"))
        if undecided:
            parts.append(f"{plural(undecided, 'probe')} cannot tell from so few")
        if not parts:
            parts.append("nothing but forgery was found to tell real from fake")
        return f"audit: {self.verdict.upper()}: {'; '.join(parts)}"

    def hints(self) -> list[tuple[str, list[str]]]:
        """What to do about failures and warnings: each hint once, with the names of what it is for."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            if result.hint:
                found.setdefault(result.hint, []).append(result.name)
        return list(found.items())

    def table(self) -> str:
        """Probes, checks, verdict and hints as aligned text."""
        rows = [["probe", "AUC", "95% interval", "n", "verdict", "meaning"]]
        alike: dict[tuple[str, ...], list[str]] = {}  # rows that say the same are one
        for probe in self.probes:
            cells = (
                "-" if probe.auc is None else f"{probe.auc:.2f}",
                "-" if probe.auc is None else f"[{probe.low:.2f}, {probe.high:.2f}]",
                f"{probe.n:,}" if probe.n else "-",
                _loud(probe.verdict),
                probe.meaning,
            )
            alike.setdefault(cells, []).append(probe.name)
        for shared, names in alike.items():
            rows += [[f"{name},", "", "", "", "", ""] for name in names[:-1]]
            rows.append([names[-1], *shared])
        checks = [["check", "verdict", "meaning"]]
        checks += [[check.name, _loud(check.verdict), check.meaning] for check in self.checks]
        lines = [*_aligned(rows, right=(1, 3)), "", *_aligned(checks), "", printable(self.summary())]
        for hint, names in self.hints():
            lines.append(f"  {', '.join(names)}:")
            lines += textwrap.wrap(
                printable(hint),
                TERMINAL,
                initial_indent=" " * 4,
                subsequent_indent=" " * 4,
                break_long_words=False,
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        settings = {
            key: str(value) if key in ("out", "face_model") and value is not None else value
            for key, value in dataclasses.asdict(self.settings).items()
        }
        return {
            "verdict": self.verdict,
            "summary": self.summary(),
            "probes": [probe.as_dict() for probe in self.probes],
            "checks": [check.as_dict() for check in self.checks],
            "looked_at": self.looked_at,
            "shards": self.hashes,
            "settings": {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()},
            "crossfake": __version__,
        }


def printable(text: str) -> str:
    """Text without what a terminal or a UTF-8 file cannot hold: file names may have any bytes in them."""
    visible = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in visible)


def _loud(verdict: str) -> str:
    return verdict.upper() if verdict in (FAIL, WARN) else verdict


def _aligned(rows: list[list[str]], right: tuple[int, ...] = ()) -> list[str]:
    """Columns of equal width; the last one is wrapped under itself."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        wrapped = textwrap.wrap(printable(row[-1]), max(30, TERMINAL - indent)) or [""]
        lines.append("  ".join([*cells, wrapped[0]]).rstrip())
        lines += [" " * indent + line for line in wrapped[1:]]
    return lines
