"""Splits that do not leak: what belongs together over all data sets at hand, and on which side it goes."""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from crossfake.datasets.fingerprints import Codes, Pairs, distance, fingerprints, near_pairs
from crossfake.datasets.identities import Joins, Recogniser, draw_joins, join, recognise
from crossfake.datasets.settings import SplitSettings
from crossfake.datasets.shards import SPLITS, ShardSet
from crossfake.datasets.splits import NAMES, Fractions, learned_from
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
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
class SplitReport:
    """What :func:`split` decided.

    Attributes:
        table: images by folder, label and split.
        groups: that the data sets gave.
        linked: of them, those that near-duplicates joined to others.
        aside: rows newly left out, since they belong to two sides.
        moved: rows that left the side they had, but for fresh ones; only ``redeal`` moves any.
        invalid: models and runs that learned from these folders as they were split before.
        redealt: everything was dealt anew.
        persons: what the face recogniser joined.
        sheet: a picture of the least certain of those joins.
    """

    table: Counter[tuple[str, str, str]]
    groups: int
    linked: int
    aside: list[str]
    moved: int = 0
    invalid: list[str] = field(default_factory=list)
    redealt: bool = False
    persons: Joins | None = None
    sheet: Path | None = None

    def text(self) -> str:
        """Images by folder, label and split, and what was joined or left out, for a terminal."""
        names = (*NAMES, ASIDE) if any(name == ASIDE for *_, name in self.table) else NAMES
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
        if self.persons:
            lines.append(self.persons.text())
        if self.sheet:
            lines.append(f"the least certain joins: {self.sheet}")
        if self.moved:
            lines.append(f"dealt anew: {self.moved:,} rows are on another side than before")
        if self.aside:
            lines.append(
                "set aside, since what belongs together was on two sides: "
                f"{len(self.aside):,} row{'s, such as' if len(self.aside) > 1 else ','} {self.aside[0]}"
            )
        if self.aside and not self.redealt and not self.invalid:
            lines.append(
                "as long as nothing is trained on these folders, --redeal deals all anew and keeps them"
            )
        if self.invalid:
            lines.append(
                f"no longer valid, since they learned from these folders as they were split before: "
                f"{', '.join(self.invalid)}. Train them anew; figures measured with them do not hold any more"
            )
        elif self.redealt and self.moved:
            lines.append(
                "no run or model below the working directory learned from these folders; any other that did is no "
                "longer valid, nor are its figures"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Offence:
    """Two rows on different sides that belong together.

    Attributes:
        kind: ``group``, ``copy``, ``near-duplicate`` or ``person``: what joins them.
        why: the same in words, with the sides.
        one: a row.
        other: another one.
    """

    kind: str
    why: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.why}: {self.one} and {self.other}"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    Attributes:
        offences: rows that belong together and are on different sides.
        sides: rows of each side.
        unsplit: rows without a split, which count as train.
        persons: what the face recogniser joined, if it was asked.
        sheet: a picture of the least certain joins across sides.
    """

    offences: list[Offence]
    sides: dict[str, int]
    unsplit: int = 0
    persons: Joins | None = None
    sheet: Path | None = None

    def text(self, shown: int = 20) -> str:
        """The first offences, one a line, and a last line that begins with ``disjoint`` or the number of leaks."""
        lines = [str(offence) for offence in self.offences[:shown]]
        if len(self.offences) > shown:
            lines.append(f"({len(self.offences) - shown:,} more)")
        if self.persons:
            lines.append(self.persons.text())
        if self.sheet:
            lines.append(f"the least certain joins across sides: {self.sheet}")
        sides = ", ".join(f"{count:,} {name}" for name, count in self.sides.items())
        if self.unsplit:
            sides += f" ({self.unsplit:,} rows without a split count as train)"
        if self.offences:
            kinds = Counter(offence.kind for offence in self.offences)
            counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
            lines.append(
                f"{len(self.offences):,} leak{'s' if len(self.offences) > 1 else ''} ({counts}) between {sides}: "
                "run 'crossfake data split' on these folders together"
            )
        else:
            seen = self.persons and f"and no person that {self.persons.recogniser.name} recognises"
            faces = seen or "(persons were not compared: --identities)"
            lines.append(
                f"disjoint: {sides}: no group, no equal picture, no near-duplicate that the index finds {faces} is "
                "on two sides"
            )
        return "\n".join(lines)


class _Rows:
    """The rows of all folders, one after another."""

    def __init__(self, settings: SplitSettings, where: ExecutorSettings) -> None:
        once = {folder.resolve(): folder for folder in settings.folders}
        self.sets = [ShardSet(folder) for folder in once.values()]
        self.of = np.repeat(np.arange(len(self.sets)), [len(each) for each in self.sets])
        self.starts = np.concatenate([[0], np.cumsum([len(each) for each in self.sets])])
        self.codes: Codes = np.concatenate(
            [fingerprints(each, settings.workers, where) for each in self.sets]
        )

    def __len__(self) -> int:
        return len(self.of)

    def column(self, name: str) -> Any:
        return np.concatenate([each.columns[name] for each in self.sets])

    def groups(self, redeal: bool = False) -> list[Strings]:
        """The groups that the data sets gave, and those decided before: rows are linked by either.

        To deal anew is to forget what was decided.
        """
        given = np.concatenate([each.columns.stored("group") for each in self.sets])
        alone = np.flatnonzero(given == "")  # such rows are known by their pixels only
        given = given.astype(f"U{max(64, given.dtype.itemsize // 4)}")
        given[alone] = [self.codes[row].tobytes().hex() for row in alone]
        if redeal:
            return [given, given]
        decided = self.column("group")
        return [given, np.where(decided == "", given, decided)]

    def parts(self) -> list[slice]:
        """The rows of each folder."""
        return [slice(a, b) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

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

    def persons(self, settings: SplitSettings, given: Strings, near: Pairs) -> Joins:
        """What faces join. Decisions of before have no say in it, so that the next call finds the same."""
        recogniser = Recogniser.find(
            settings.identity_model, settings.identity_threshold, settings.face_model
        )
        features = np.concatenate([recognise(each, recogniser, settings.workers) for each in self.sets])
        if not np.isfinite(features).any():
            raise UserError(
                f"no face was found in any picture of {', '.join(str(each.path) for each in self.sets)}",
                hint="leave --identities out",
            )
        return join(features, _components([given], near), recogniser)

    def read(self, row: int) -> Any:
        return self.sets[self.of[row]].read(int(row - self.starts[self.of[row]]))


def split(settings: SplitSettings, where: ExecutorSettings = LOCAL) -> SplitReport:
    """Decide groups and splits of all folders together and write them to each one's ``splits.csv``.

    Rows belong together when they share a group (identity, video, source photo), are near-duplicates, show the same
    person to a face recogniser (``identities``), or are linked through others, in whichever folders they are. What
    belongs together goes to one side. The rest is up to scikit-learn's ``StratifiedGroupKFold``, stratified by label,
    source and generator.

    A row that has a split keeps it, whoever gave it: something may have been trained on it. Rows without one are dealt.
    Where links join rows that are on different sides, those in test stay (else those in val), the others are set aside:
    they are never moved. With ``redeal`` everything is dealt anew but what a data set came with.

    Raises:
        UserError: a folder holds no shards, or cannot be written; a package or file for ``identities`` is missing.
    """
    rows = _Rows(settings, where)
    if settings.redeal:
        _refuse_held_out(rows.sets, settings.split)
    given, decided = rows.groups(settings.redeal)
    near = rows.near(settings)
    component = _components([given, decided], near)
    linked = len(np.unique(given)) - int(component.max()) - 1
    persons = rows.persons(settings, given, near) if settings.identities else None
    if persons:
        component = _components([given, decided], np.concatenate([near, persons.pairs]))
    was = rows.column("split").astype("U8")
    before = np.concatenate([_own(each) for each in rows.sets]) if settings.redeal else was
    new = np.isin(rows.of, [k for k, each in enumerate(rows.sets) if each.path in settings.fresh])
    if new.any():
        known = np.isin(component, component[~new & (before != "")])
        before = np.where(new, np.where(known, "", _winners(component, before)[component]), before)
    sides, aside = _settle(component, before)
    facts = [rows.column(name).astype(str) for name in ("label", "source", "generator")]
    strata = np.array(["|".join(each) for each in zip(*facts, strict=True)])
    fresh = np.flatnonzero(sides == "")
    if len(fresh):
        sides[fresh] = _assign(component[fresh], strata[fresh], given[fresh], settings)
    learned = np.where(was == "", "train", was)  # what has no split is trained on
    changed = [bool((learned[part] != sides[part]).any()) for part in rows.parts()]
    # before anything is written: the hashes are those that runs and models keep
    invalid = learned_from([each for each, moves in zip(rows.sets, changed, strict=True) if moves])
    sheet = draw_joins(persons, rows.read, rows.name, settings.folders[0]) if persons else None
    named = _names(component, decided)
    for each, part in zip(rows.sets, rows.parts(), strict=True):
        if (named[part] != each.columns["group"]).any() or (sides[part] != was[part]).any():
            _write(each, named[part], sides[part])
    labels = np.where(rows.column("label") == 1, "fake", "real")
    folders = np.array([str(each.path) for each in rows.sets])[rows.of]
    return SplitReport(
        Counter(zip(folders.tolist(), labels.tolist(), sides.tolist(), strict=True)),
        len(np.unique(given)),
        linked,
        [rows.name(int(row)) for row in aside],
        int(((was != "") & ~new & (sides != was) & (sides != ASIDE)).sum()),
        invalid,
        settings.redeal,
        persons,
        sheet,
    )


def check(settings: SplitSettings, where: ExecutorSettings = LOCAL) -> CheckReport:
    """Which rows belong together but are on different sides; none when the splits are disjoint.

    The sides are the rows' splits (rows without one are trained on, so they count as train). Where no row of several
    folders has one, each folder is a side of its own.

    Raises:
        UserError: no row of a single folder has a split.
    """
    rows = _Rows(settings, where)
    sides = rows.column("split")
    unsplit = int((sides == "").sum())
    if unsplit == len(rows):
        if len(rows.sets) == 1:
            raise UserError(
                f"no row of {rows.sets[0].path} has a split",
                hint=f"run 'crossfake data split {rows.sets[0].path}' first",
            )
        sides, unsplit = np.array([str(each.path) for each in rows.sets])[rows.of], 0
    sides = np.where(sides == "", "train", sides)
    given, decided = rows.groups()
    belongs = _components([given, decided], np.zeros((0, 2), np.int64))

    def apart(one: Any, other: Any) -> Any:
        return (sides[one] != sides[other]) & (sides[one] != ASIDE) & (sides[other] != ASIDE)

    def offence(kind: str, what: str, one: int, other: int) -> Offence:
        return Offence(kind, f"{what} in {sides[one]} and {sides[other]}", rows.name(one), rows.name(other))

    order = np.lexsort((sides, belongs))
    first, second = order[:-1], order[1:]
    straddling = (belongs[first] == belongs[second]) & apart(first, second)
    offences = [
        offence("group", f"group {str(given[one])!r} is", one, other)
        for one, other in zip(first[straddling].tolist(), second[straddling].tolist(), strict=True)
    ]
    near = rows.near(settings)
    close = near[apart(*near.T) & (belongs[near[:, 0]] != belongs[near[:, 1]])]
    for one, other in close.tolist():
        bits = int(distance(rows.codes[one], rows.codes[other]))
        offences.append(
            offence("near-duplicate", f"near-duplicates ({bits} of 256 bits differ)", one, other)
            if bits
            else offence("copy", "pictures of one fingerprint", one, other)
        )
    persons = sheet = None
    if settings.identities:
        persons = rows.persons(settings, given, near)
        across = apart(*persons.pairs.T)
        sheet = draw_joins(persons.only(across), rows.read, rows.name, settings.folders[0])
        for (one, other), far in zip(
            persons.pairs[across].tolist(), persons.distances[across].tolist(), strict=True
        ):
            offences.append(offence("person", f"faces of one person (distance {far:.2f})", one, other))
    names = [name for name in (*NAMES, ASIDE) if name in sides] + sorted(set(sides) - {*NAMES, ASIDE})
    counts = Counter(sides.tolist())
    return CheckReport(offences, {str(name): counts[name] for name in names}, unsplit, persons, sheet)


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


def _refuse_held_out(sets: Sequence[ShardSet], split: str) -> None:
    """A set that was prepared for one side, such as fakes for testing only, is not dealt to all by mistake."""

    def one_sided(text: str) -> bool:
        shares = Fractions.parse(text)
        return max(shares.train, shares.val, shares.test) > 1 - 1e-6

    for each in sets:
        spec = str(each.attributes.get("split") or "")
        if spec and one_sided(spec) and not one_sided(split):
            raise UserError(
                f"{each.path} was prepared with --split {spec}, and --redeal would deal it as {split}",
                hint="leave it out, and split all folders without --redeal afterwards",
            )


def _own(shards: ShardSet) -> Strings:
    """Splits that a data set came with; empty for the rows that were dealt."""
    stored = shards.columns.stored
    return np.where(stored("own_split") == 1, stored("split"), "").astype("U8")


def _settle(component: npt.NDArray[np.int64], before: Strings) -> tuple[Strings, npt.NDArray[np.int64]]:
    """The side of every row whose component has one already, and the rows that had to be set aside."""
    sides = before.copy()
    winner = _winners(component, before)
    left_out = np.full(len(winner), False)
    left_out[component[before == ASIDE]] = True
    winner[left_out & (winner == "")] = (
        ASIDE  # what they leaked to is in a folder that is not named this time
    )
    of_row = winner[component]
    sides[before == ""] = of_row[before == ""]
    sides[(before != "") & (before != of_row)] = ASIDE
    return sides, np.flatnonzero((sides == ASIDE) & (before != ASIDE))


def _winners(component: npt.NDArray[np.int64], before: Strings) -> Strings:
    """The side that each component keeps: test before val before train; empty where it has none."""
    winner = np.full(component.max() + 1, "", "U8")
    for name in reversed(_PRIORITY):
        winner[component[before == name]] = name
    return winner


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
            f"cannot write {shards.path / SPLITS} ({error.strerror})", hint="check the folder and its space"
        ) from error
