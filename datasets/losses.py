"""What a preparation left out: listed in ``skipped.csv``, and compared between the classes.

Pictures that are left out are a selection. Where one class loses many and the other none, what is left of the first
differs from the second by more than forgery, and a detector learns that.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import ON_REQUEST

SKIPPED = "skipped.csv"
COLUMNS = ("file", "reason", "detail", "label", "margin")
CLASSES = ("real", "fake")
NO_RECORD = "not opened"  # the detail of files that are no pictures: listed anew by every call, and no loss
MANY = 0.1  # of a source or class: more than this is said
UNEVEN = 0.05  # by which the shares of the classes may differ
_CHANCE = 0.01  # a difference that comes about by chance more often than this is none
_KEPT = 0.95  # of those too close: the margin that is named keeps so many
_STEP, _LEAST = 0.05, 0.25  # of margins that are named
_BEFORE = 3  # columns of lists written before classes were noted
# what is added to a record's origin where it gives several rows
FACE, FRAME = re.compile(r"#face=\d+$"), re.compile(r"#frame=\d+$")


@dataclass(frozen=True)
class Loss:
    """What was left out of one class, or of what had none.

    Attributes:
        records: pictures and videos; each counts once, whatever number of rows it gives.
        lost: how many were left out; of a video the share of its frames.
        reasons: lines of ``skipped.csv`` by reason.
        margins: of each picture that ends too close to the face, the widest margin that would keep it; 0 where none.
    """

    records: float = 0.0
    lost: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    margins: tuple[float, ...] = ()

    def __add__(self, other: Loss) -> Loss:
        return Loss(
            self.records + other.records,
            self.lost + other.lost,
            self.reasons + other.reasons,
            self.margins + other.margins,
        )

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.lost / self.records if self.records else 0.0

    def why(self) -> str:
        """The commonest reason, to complete a sentence; empty where nothing was lost."""
        return "".join(f', mostly for "{reason}"' for reason, _ in self.reasons.most_common(1))


def read_skipped(folder: Path) -> list[list[str]]:
    """Lines of a folder's ``skipped.csv`` by ``COLUMNS``, without its head; one cut short by a crash is left out."""
    path = folder / SKIPPED
    if not path.exists():
        return []
    with open(path, newline="", errors="surrogateescape") as file:
        lines = csv.reader(file)
        width = len(next(lines, []))
        return [
            [*line, *[""] * (len(COLUMNS) - width)]
            for line in lines
            if len(line) == width and width in (len(COLUMNS), _BEFORE)
        ]


def margins_of(cells: Iterable[str]) -> list[float]:
    """The numbers among the last column's cells: pictures that end too close to the face have one."""
    return [float(cell) for cell in cells if re.fullmatch(r"\d+(\.\d+)?", cell)]


def losses_of(shards: ShardSet) -> dict[str, Loss] | None:
    """What was left out of ``real``, of ``fake``, and of what has no label (``""``); None where nobody kept count.

    Lines of before classes were noted count where all rows are of one class. What shards lost that others were
    prepared from counts, too.
    """
    if not (shards.path / SKIPPED).exists():
        return None
    classes = np.unique(shards.columns["label"])
    only = CLASSES[int(classes[0])] if len(classes) == 1 else ""
    lost: Counter[tuple[str, str]] = Counter()
    reasons: dict[str, Counter[str]] = {}
    margins: dict[str, list[float]] = {}
    for origin, reason, detail, label, margin in read_skipped(shards.path):
        if detail in (NO_RECORD, ON_REQUEST.detail):
            continue
        label = label or only
        lost[label, _record(origin)] += 1
        reasons.setdefault(label, Counter())[reason] += 1
        margins.setdefault(label, []).extend(margins_of([margin]))
    whole_records, kept = _kept(shards, lost)
    found = {}
    before = shards.attributes.get("lost") or {}
    for label in (*CLASSES, ""):
        records = whole_records[label] + sum(of == label for of, _ in lost)
        gone = sum(count / (count + kept[of, record]) for (of, record), count in lost.items() if of == label)
        whole = records / (1 - min(float(before.get(label, 0.0)), 0.999))
        found[label] = Loss(
            whole,
            whole - records + gone,
            reasons.get(label, Counter()),
            tuple(margins.get(label, ())),
        )
    return found


def _kept(shards: ShardSet, lost: Counter[tuple[str, str]]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How many records of each class lost nothing, and how many rows are left of each that did."""
    several: set[tuple[str, str]] = set()  # videos, and pictures of several faces
    records: Counter[str] = Counter()
    kept: Counter[tuple[str, str]] = Counter()
    for labels, origins in zip(shards.columns.parts("label"), shards.columns.parts("origin"), strict=True):
        for label, origin in zip(labels.tolist(), origins.tolist(), strict=True):
            of = CLASSES[label]
            record = of, _record(origin)
            if record in lost:
                kept[record] += 1
            elif record[1] != origin:
                several.add(record)
            else:
                records[of] += 1
    for of, _ in several:
        records[of] += 1
    return records, kept


def _record(origin: str) -> str:
    return FRAME.sub("", FACE.sub("", origin)) if "#" in origin else origin


def differ(one: Loss, other: Loss) -> bool:
    """Whether two classes lost different shares: by more than a twentieth, and not by chance (Fisher's exact test)."""
    if not one.records or not other.records or abs(one.share - other.share) <= UNEVEN:
        return False
    from scipy.stats import fisher_exact

    table = np.array([[round(loss.lost), round(loss.records - loss.lost)] for loss in (one, other)])
    return bool(fisher_exact(table).pvalue < _CHANCE)


def keeping_margin(margins: Sequence[float]) -> float | None:
    """The widest margin, in steps of 0.05, at which 95% of those left out would be kept; None where there is none.

    Example:
        >>> keeping_margin([0.93] * 99 + [0.4])
        0.9
    """
    if not margins:
        return None
    widest = float(np.quantile(margins, 1 - _KEPT, method="lower"))
    margin = round(math.floor(widest / _STEP + 1e-9) * _STEP, 2)
    return margin if margin >= _LEAST else None


def way_out(margins: Sequence[float]) -> str:
    """What keeps pictures that end too close to the face; empty where there are none."""
    if not margins:
        return ""
    margin = keeping_margin(margins)
    named = f"--margin {margin:g} would keep 95% of these {len(margins):,}, " if margin else ""
    return f"{named}--edge reflect keeps them with mirrored edges (a mark, too): one choice for both classes"


def warnings_of(losses: dict[str, Loss]) -> list[str]:
    """Lines to show of a source that lost much, or more of one class than of the other; none for others."""
    whole = sum(losses.values(), Loss())
    real, fake = (losses.get(label, Loss()) for label in CLASSES)
    if differ(real, fake):
        said = f"{real.share:.0%} of the reals and {fake.share:.0%} of the fakes were left out"
    elif whole.share > MANY:
        said = f"{whole.share:.0%} of the source was left out"
    else:
        return []
    lines = [
        f"warning: {said}{whole.why()}",
        "a detector may learn this selection in place of the forgery",
        way_out(whole.margins),
    ]
    return [f"{'':9}{line}" if number else line for number, line in enumerate(lines) if line]


def shares(losses: dict[str, Loss] | None) -> dict[str, float]:
    """What shards made from these inherit: the share lost of each class that lost any."""
    return {label: round(loss.share, 6) for label, loss in (losses or {}).items() if loss.lost}
