"""What probes and checks found, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PASS, WARN, FAIL, CANNOT_TELL, NOT_RUN, NOTE = "pass", "warn", "fail", "cannot tell", "not run", "note"


@dataclass(frozen=True)
class Probe:
    """One attempt to tell real from fake by something that has nothing to do with forgery.

    Attributes:
        key: short name, for programs.
        name: for people.
        looks_at: what it sees.
        auc: area under the ROC curve of out-of-fold scores, 0.5 is guessing; None when it was not run.
        low: lower end of its 95% interval.
        high: upper end.
        n: pictures.
        verdict: ``pass``, ``warn``, ``fail``, ``cannot tell`` or ``not run``.
        meaning: one sentence.
        hint: what to do; empty when there is nothing to do.
        telling: the measure that differs most between the classes; empty when none does.
        launder: whether passing both classes through the same crop, size and compression is the cure. What it does not
            cure lies in what the pictures show, where a poor generator may be to blame as well as the data.
    """

    key: str
    name: str
    looks_at: str
    auc: float | None
    low: float
    high: float
    n: int
    verdict: str
    meaning: str
    hint: str = ""
    telling: str = ""
    launder: bool = True

    def as_dict(self) -> dict[str, Any]:
        """What ``audit.json`` holds of it."""
        return {
            "key": self.key,
            "name": self.name,
            "looks_at": self.looks_at,
            "auc": self.auc,
            "interval": None if self.auc is None else [self.low, self.high],
            "n": self.n,
            "verdict": self.verdict,
            "meaning": self.meaning,
            "hint": self.hint,
            "telling": self.telling,
            "launder": self.launder,
        }


@dataclass(frozen=True)
class Pair:
    """Two pictures to be shown side by side, by their place among those looked at."""

    one: int
    other: int
    caption: str


@dataclass(frozen=True)
class Check:
    """One property of the data set that is counted rather than learned.

    Attributes:
        key: short name, for programs.
        name: for people.
        verdict: ``pass``, ``warn``, ``fail``, ``cannot tell``, or ``note`` for what is only worth knowing.
        meaning: one sentence.
        hint: what to do; empty when there is nothing to do.
        figures: the counts behind it, JSON-able.
        pairs: pictures that show it.
    """

    key: str
    name: str
    verdict: str
    meaning: str
    hint: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What ``audit.json`` holds of it."""
        return {
            "key": self.key,
            "name": self.name,
            "verdict": self.verdict,
            "meaning": self.meaning,
            "hint": self.hint,
            "figures": self.figures,
        }
