"""Splits that do not leak: what belongs together over all data sets at hand, and on which side it goes."""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from crossfake.datasets.fingerprints import RADIUS, Codes, Pairs, distance, fingerprints, near_pairs
from crossfake.datasets.shards import SPLITS, ShardSet
from crossfake.datasets.splits import NAMES, Fractions
from crossfake.errors import UserError
from crossfake.files import write_text
from crossfake.pages import plural

_LONGEST = 56  # letters of a folder's name in the table
ASIDE = "aside"  # the split of rows that would leak wherever they went
_PRIORITY = (
    "test",
    "val",
    "train",
)  # when linked rows are on several sides already, the first of these keeps its own

Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class SplitSettings:
    """Settings of :func:`split` and :func:`check`.

    Attributes:
        folders: all data sets that are used together.
        split: shares of train, val and test.
        seed: for the assignment.
        radius: most differing bits of two near-duplicates' fingerprints, of 256; 0 links equal fingerprints only.
        embedding: timm model whose features are compared too; none when empty.
        weights: its weights file; timm's own when None.
        cosine: least cosine of two near-duplicates' features.
        workers: processes for the fingerprints; one per core when 0.
    """

    folders: tuple[Path, ...]
    split: str = "0.8/0.1/0.1"
    seed: int = 0
    radius: int = RADIUS
    embedding: str = ""
    weights: Path | None = None
    cosine: float = 0.95
    workers: int = 0

    def __post_init__(self) -> None:
        Fractions.parse(self.split)
        folders = {folder.resolve(): folder for folder in self.folders}  # one that is named twice counts once
        object.__setattr__(self, "folders", tuple(folders.values()))
        if self.seed < 0 or self.workers < 0:
            raise UserError("--seed and --workers cannot be negative", mend="give 0 or more")
        if not self.folders:
            raise UserError("there is nothing to split", mend="name shard folders")
        if not 0 <= self.radius <= 64:
            raise UserError(f"--radius {self.radius} is out of range", mend="give one from 0 to 64")
        if not 0.5 <= self.cosine <= 1:
            raise UserError(f"--cosine {self.cosine} is out of range", mend="give one from 0.5 to 1")


@dataclass(frozen=True)
class SplitReport:
    """What :func:`split` decided."""

    table: Counter[tuple[str, str, str]]  # folder, label, split: images
    groups: int
    linked: int  # groups that near-duplicates joined to another
    aside: list[str]  # rows left out since they belong to two sides

    def text(self) -> str:
        names = (*NAMES, ASIDE) if self.aside else NAMES
        rows = [["", "label", *names]]
        for folder, label in sorted({(folder, label) for folder, label, _ in self.table}):
            shown = folder if len(folder) <= _LONGEST else f"…{folder[1 - _LONGEST :]}"
            rows.append([shown, label, *(f"{self.table[folder, label, name]:,}" for name in names)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join(cells))
        lines.append(
            f"\n{plural(self.groups, 'group')}; near-duplicates joined {self.linked:,} of them to others"
        )
        if self.aside:
            lines.append(
                f"set aside, since they were on two sides before: {len(self.aside):,}, such as {self.aside[0]}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Offence:
    """Two rows on different sides that belong together."""

    why: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.why}: {self.one} and {self.other}"


class _Rows:
    """The rows of all folders, one after another."""

    def __init__(self, settings: SplitSettings) -> None:
        self.sets = [ShardSet(folder) for folder in settings.folders]
        self.of = np.repeat(np.arange(len(self.sets)), [len(each) for each in self.sets])
        self.starts = np.concatenate([[0], np.cumsum([len(each) for each in self.sets])])
        self.codes: Codes = np.concatenate([fingerprints(each, settings.workers) for each in self.sets])

    def __len__(self) -> int:
        return len(self.of)

    def column(self, name: str) -> Any:
        return np.concatenate([each.columns[name] for each in self.sets])

    def groups(self) -> list[Strings]:
        """The groups that the data sets gave, and those decided before: rows are linked by either."""
        given = np.concatenate([each.columns.stored("group") for each in self.sets])
        alone = np.flatnonzero(given == "")  # such rows are known by their pixels only
        given = given.astype(f"U{max(64, given.dtype.itemsize // 4)}")
        given[alone] = [self.codes[row].tobytes().hex() for row in alone]
        decided = self.column("group")
        return [given, np.where(decided == "", given, decided)]

    def name(self, row: int) -> str:
        each = self.sets[self.of[row]]
        return f"{each.path}:{each.columns['origin'][row - self.starts[self.of[row]]]}"

    def near(self, settings: SplitSettings) -> Pairs:
        pairs = [near_pairs(self.codes, settings.radius)]
        if settings.embedding:
            from crossfake.datasets.embeddings import embed, similar_pairs

            features = np.concatenate(
                [embed(each, settings.embedding, settings.weights) for each in self.sets]
            )
            pairs.append(similar_pairs(features, settings.cosine))
        return np.concatenate(pairs)


def split(settings: SplitSettings) -> SplitReport:
    """Decide groups and splits of all folders together and write them to each one's ``splits.csv``.

    Rows belong together when they share a group (identity, video, source photo), are near-duplicates, or are linked
    through others, in whichever folders they are. What belongs together goes to one side. The rest is up to
    scikit-learn's ``StratifiedGroupKFold``, stratified by label, source and generator.

    Stable: a row that has been split before stays where it is, and so do rows whose data set came with a split of its
    own. Where new links join rows that are on different sides, those in test stay (else those in val), the others are
    set aside: they are never moved.

    Raises:
        UserError: a folder holds no shards, or cannot be written.
    """
    rows = _Rows(settings)
    groups, decided = rows.groups()
    component = _components([groups, decided], rows.near(settings))
    before = np.concatenate([_decided(each) for each in rows.sets])
    sides, aside = _settle(component, before)
    facts = [rows.column(name).astype(str) for name in ("label", "source", "generator")]
    strata = np.array(["|".join(each) for each in zip(*facts, strict=True)])
    fresh = np.flatnonzero(sides == "")
    if len(fresh):
        sides[fresh] = _assign(component[fresh], strata[fresh], groups[fresh], settings)
    named = _names(component, groups)
    for each, start, end in zip(rows.sets, rows.starts[:-1], rows.starts[1:], strict=True):
        _write(each, named[start:end], sides[start:end])
    labels = np.where(rows.column("label") == 1, "fake", "real")
    folders = np.array([str(each.path) for each in rows.sets])[rows.of]
    owned = len(np.unique(groups))
    return SplitReport(
        Counter(zip(folders.tolist(), labels.tolist(), sides.tolist(), strict=True)),
        owned,
        owned - int(component.max()) - 1,
        [rows.name(int(row)) for row in aside],
    )


def check(settings: SplitSettings) -> list[Offence]:
    """Rows that belong together but are on different sides; none when the splits are disjoint.

    The sides are the rows' splits (rows without one are trained on, so they count as train). Where no row of any
    folder has one, each folder is a side of its own.
    """
    rows = _Rows(settings)
    sides = rows.column("split")
    if not (sides != "").any():
        sides = np.array([str(each.path) for each in rows.sets])[rows.of]
    sides = np.where(sides == "", "train", sides)
    groups, decided = rows.groups()
    belongs = _components([groups, decided], np.zeros((0, 2), np.int64))
    offences = []
    order = np.lexsort((sides, belongs))
    first, second = order[:-1], order[1:]
    straddling = (belongs[first] == belongs[second]) & (sides[first] != sides[second])
    straddling &= (sides[first] != ASIDE) & (sides[second] != ASIDE)
    for one, other in zip(first[straddling], second[straddling], strict=True):
        why = f"group {str(groups[one])!r} is in {sides[one]} and {sides[other]}"
        offences.append(Offence(why, rows.name(int(one)), rows.name(int(other))))
    for one, other in rows.near(settings):
        if (
            sides[one] != sides[other]
            and ASIDE not in (sides[one], sides[other])
            and belongs[one] != belongs[other]
        ):
            bits = int(distance(rows.codes[one], rows.codes[other]))
            alike = (
                "pictures of one fingerprint" if bits == 0 else f"near-duplicates ({bits} of 256 bits differ)"
            )
            why = f"{alike} in {sides[one]} and {sides[other]}"
            offences.append(Offence(why, rows.name(int(one)), rows.name(int(other))))
    return offences


def _components(groups: Sequence[Strings], near: Pairs) -> npt.NDArray[np.int64]:
    """Number of the component of each row, from 0: rows are linked by equal groups, of any kind, and by ``near``."""
    rows = np.arange(len(groups[0]))
    ends = [near]
    size = len(rows)
    for names in groups:
        _, of = np.unique(names, return_inverse=True)
        ends.append(np.stack([rows, size + of], axis=1))  # a node for each group
        size += int(of.max()) + 1
    one, other = np.concatenate(ends).T
    links = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(size, size))
    _, labels = connected_components(links, directed=False)
    _, numbers = np.unique(labels[: len(rows)], return_inverse=True)
    return numbers.astype(np.int64)


def _decided(shards: ShardSet) -> Strings:
    """Splits that must not change: of an earlier call, or the data set's own; empty for the others."""
    own = shards.columns.stored("own_split") == 1
    splits = np.where(own, shards.columns["split"], "").astype("U8")
    if (shards.path / SPLITS).exists():
        with open(shards.path / SPLITS, newline="", encoding="utf-8", errors="surrogateescape") as lines:
            covered = sum(1 for _ in csv.reader(lines)) - 1
        splits[:covered] = shards.columns["split"][:covered]
    return splits


def _settle(component: npt.NDArray[np.int64], before: Strings) -> tuple[Strings, npt.NDArray[np.int64]]:
    """The side of every row whose component has one already, and the rows that had to be set aside."""
    sides = before.copy()
    winner = np.full(component.max() + 1, "", "U8")
    for name in reversed(_PRIORITY):
        winner[component[before == name]] = name
    of_row = winner[component]
    beaten = (before != "") & (before != ASIDE) & (before != of_row)
    sides[before == ""] = of_row[before == ""]
    sides[beaten] = ASIDE
    return sides, np.flatnonzero(beaten)


def _assign(
    component: npt.NDArray[np.int64], strata: Strings, groups: Strings, settings: SplitSettings
) -> Strings:
    """Sides for new components."""
    fractions = Fractions.parse(settings.split, settings.seed)
    shares = (fractions.train, fractions.val, fractions.test)
    folds = next((k for k in range(2, 101) if all(abs(s * k - round(s * k)) < 1e-6 for s in shares)), 100)
    # too few groups for that many folds: each goes where the hash of its name says
    if len(np.unique(component)) < 2 * folds:
        names = _names(component, groups)
        return np.array([fractions.split_of(name) for name in names], "U8")
    sides = np.full(len(component), "train", "U8")
    counts = {name: round(share * folds) for name, share in zip(NAMES, shares, strict=True)}
    order = ["test"] * counts["test"] + ["val"] * counts["val"]
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=settings.seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of strata smaller than the folds
        for name, (_, chosen) in zip(order, dealer.split(component, strata, component), strict=False):
            sides[chosen] = name
    return sides


def _names(component: npt.NDArray[np.int64], groups: Strings) -> Strings:
    """The least group name of each row's component."""
    order = np.lexsort((groups, component))
    starts = np.concatenate([[True], np.diff(component[order]) > 0])
    least = groups[order][starts]
    numbers = np.unique(component, return_inverse=True)[1]
    named: Strings = least[numbers]
    return named


def _write(shards: ShardSet, groups: Strings, sides: Strings) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["origin", "group", "split"])
    table.writerows(zip(shards.columns["origin"].tolist(), groups.tolist(), sides.tolist(), strict=True))
    try:
        write_text(shards.path / SPLITS, text.getvalue())
    except OSError as error:
        raise UserError(
            f"cannot write {shards.path / SPLITS} ({error.strerror})", mend="check the folder and its space"
        ) from error
