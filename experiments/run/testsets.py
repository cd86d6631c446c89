"""Which pictures a test is made of, for each kind of data that detectors see.

Detectors may see the same photos in several ways, say native and aligned to 64 pixels: shard folders of their own for
each. Compared are then only pictures that all of them see, in one order, so that their scores are paired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, PhotosConfig
from crossfake.experiments.design.perturbations import given
from crossfake.experiments.design.protocols import BENIGN, REAL, Condition, Design, Test
from crossfake.experiments.run.cells import TestRows
from crossfake.experiments.run.stages import Stages
from crossfake.progress import tqdm
from crossfake.provenance import hash_json

Rows = list[tuple[ShardSet, npt.NDArray[np.int64]]]


@dataclass
class Side:
    """One kind of data.

    Attributes:
        config: with its paths.
        stages: its pools.
        rows: pictures of every test, reals first.
    """

    config: Config
    stages: Stages
    rows: dict[str, Rows] = field(default_factory=dict)

    def reals(self, condition: Condition) -> tuple[Path, ...]:
        """Shard folders of the reals that a condition trains on.

        Raises:
            UserError: none are left, or a source that is left out has no folders of its own.
        """
        left = self._left_out(condition)
        kept = tuple(folder for folder in self.stages.reals if folder not in left)
        if not kept:
            raise UserError(f"condition {condition.name} leaves no reals", hint="leave fewer sources out")
        return kept

    def fakes(self, condition: Condition) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Shard folders of the fakes and of the synthetic fakes that a condition trains on.

        Raises:
            UserError: a folder holds fakes of a source of photos that is left out, and others.
        """
        fakes, own = (
            tuple(folder for name in names for folder in self.stages[name].train)
            for names in (condition.fakes, condition.synthetic)
        )
        if not condition.without:
            return fakes, own
        gone = {name for folder in self._left_out(condition) for name in ShardSet(folder).ids().tolist()}
        dropped = {folder for folder in (*fakes, *own) if _made_of(folder, gone)}
        return tuple(f for f in fakes if f not in dropped), tuple(f for f in own if f not in dropped)

    def _left_out(self, condition: Condition) -> set[Path]:
        sets = {photos.name: photos for photos in self.config.photos}
        if shared := [name for name in condition.without if sets[name].source or not sets[name].dir]:
            raise UserError(
                f"condition {condition.name} leaves out {shared[0]}, which shares its folder with others",
                hint="prepare each source of photos into a folder of its own, and give it as dir:",
            )
        return {folder for name in condition.without for folder in sets[name].dir}


def _made_of(folder: Path, photos: set[str]) -> bool:
    """Whether the fakes of a folder were made of these photos; of some of them only is an error."""
    parents = ShardSet(folder).columns["parent"].tolist()
    among = {parent in photos for parent in parents if parent}
    if len(among) > 1:
        raise UserError(
            f"{folder} holds fakes of photos that are left out, and of others",
            hint="generate them from each source of photos into a folder of its own",
        )
    return among == {True}


class TestSets:
    """The tests of a design, as each kind of data has them.

    Attributes:
        sides: by kind of data.
        tests: that have pictures.
        notes: on tests that have none.

    Raises:
        UserError: a test lacks a class.
    """

    __test__ = False  # pytest takes classes of such a name for tests

    def __init__(self, sides: dict[str, Side], planned: Design) -> None:
        self.sides, self.notes = sides, []
        every = list(sides.values())
        self.tests: list[Test] = []
        for test in planned.tests:
            found = [rows_of(side, test, planned) for side in every]
            if not all(found):
                continue  # a folder to train on need not have test pictures
            if len(found) > 1:
                found = in_common(found)
            labels = {label for shards, rows in found[0] for label in shards.columns["label"][rows].tolist()}
            if labels != {0, 1}:
                self.notes.append(
                    f"{test.name} is left out: {' and '.join(sides)} have no pictures of it in common"
                )
                continue
            self.tests.append(test)
            for side, rows in zip(every, found, strict=True):
                side.rows[test.name] = rows

    def of(self, data: str) -> tuple[TestRows, ...]:
        """As a cell is given them."""
        return tuple(self._test_rows(test, self.sides[data]) for test in self.tests)

    def pictures(self) -> list[tuple[str, str, int, str]]:
        """Set, digest, label and source of every picture that is tested on, in the order that scores have; each set
        of reals or fakes once."""
        first = next(iter(self.sides.values()))
        found: dict[tuple[str, int], list[tuple[str, str, int, str]]] = {}
        for test in self.tests:
            rows = first.rows[test.name]
            facts = zip(digests(rows), _column(rows, "label"), _column(rows, "source"), strict=True)
            parts: dict[tuple[str, int], list[tuple[str, str, int, str]]] = {}
            for digest, label, source in facts:
                name = test.fake if int(label) else test.real
                parts.setdefault((name, int(label)), []).append((name, digest, int(label), source))
            found |= parts
        return [line for lines in found.values() for line in lines]

    def audits(self) -> dict[str, Any]:
        """What gives the classes of a test away besides forgery, by name of the test: of strangers against each source
        of photos, as the first kind of data shows them."""
        first = next(iter(self.sides.values()))
        apart = {photos.name for photos in first.config.photos}
        found = {}
        for test in self.tests:
            if test.real not in apart or test.perturbation:
                continue
            parts: dict[int, dict[Path, None]] = {0: {}, 1: {}}
            for shards, rows in first.rows[test.name]:
                parts[int(shards.columns["label"][rows[0]])][shards.path] = None
            held = all(
                (ShardSet(f).columns["split"] == "test").any() for part in parts.values() for f in part
            )
            split = ("test",) if held else ()
            found[test.name] = audit_training(tuple(parts[0]), tuple(parts[1]), split)
            tqdm.write(f"{test.name}: {found[test.name]['summary']}")
        return found

    def _test_rows(self, test: Test, side: Side) -> TestRows:
        every = [
            [[s.hash, which.tolist()] for s, which in each.rows[test.name]] for each in self.sides.values()
        ]
        config = side.config
        coded, edited = given(config.reencode), test.real == BENIGN
        facts: list[Any] = [every[0] if len(every) == 1 else every, test.perturbation]
        facts += [coded, edited] if coded or edited else []
        parts = tuple((shards.path, shards.hash, which) for shards, which in side.rows[test.name])
        groups = () if len(every) == 1 else _column(next(iter(self.sides.values())).rows[test.name], "group")
        return TestRows(test.name, hash_json(facts), parts, test.perturbation, coded, edited, groups)


def rows_of(side: Side, test: Test, planned: Design) -> Rows:
    """Reals first. Of what any condition trains on, and of fakes made of photos, only split ``test`` counts, of all
    else everything."""
    folders = side.stages[test.fake].test
    trained = any(test.fake in condition.trained_on for condition in planned.conditions)
    held = trained or any((ShardSet(folder).columns["parent"] != "").any() for folder in folders)
    fake = select(folders, 1, "test" if held else None)
    if not fake and held:
        return []
    real = _reals(side, test.real)
    if not real or not fake:
        raise UserError(
            f"the test {test.name} lacks {'reals' if not real else 'fakes'}",
            hint="prepare with a test split, say 0.8/0.1/0.1",
        )
    return real + fake


def _reals(side: Side, name: str) -> Rows:
    config, own = side.config, side.stages.reals
    sets = {photos.name: photos for photos in config.photos}
    if name in sets:
        return _photos(sets[name], own)
    if name not in (REAL, BENIGN):
        return select(next(g.real for g in config.generators if g.name == name), 0)
    if not sets:
        return select(own, 0, "test")
    return [part for photos in sets.values() for part in _photos(photos, own)]


def _photos(photos: PhotosConfig, own: Sequence[Path]) -> Rows:
    found = [
        (shards, rows[shards.columns["source"][rows] == photos.source] if photos.source else rows)
        for folder in photos.dir or own
        for shards, rows in select([folder], 0, "test" if folder in own else None)
    ]
    return [(shards, rows) for shards, rows in found if len(rows)]


def select(folders: Sequence[Path], label: int, split: str | None = None) -> Rows:
    """Rows of a label and split, of those folders that have any."""
    found = [(shards := ShardSet(folder), shards.select(label=label, split=split)) for folder in folders]
    return [(shards, rows) for shards, rows in found if len(rows)]


def in_common(found: Sequence[Rows]) -> list[Rows]:
    """The pictures that are in all of these, by label, source and origin, in the order of the first of them."""
    names = [names_of(rows) for rows in found]
    unique = [{name for name, count in Counter(each).items() if count == 1} for each in names]
    shared = set.intersection(*unique)
    order = [name for name in names[0] if name in shared]
    placed = []
    for rows, each in zip(found, names, strict=True):
        places = [(k, int(row)) for k, (_, which) in enumerate(rows) for row in which]
        at = dict(zip(each, places, strict=True))
        runs = groupby((at[name] for name in order), key=lambda place: place[0])
        placed.append([(rows[k][0], np.array([row for _, row in run], np.int64)) for k, run in runs])
    return placed


def names_of(rows: Rows) -> list[str]:
    """What each picture is known by, whatever it was prepared to: ``label source/origin``.

    A fake made of a photo has the photo's name in place of its own, which may number it among others, and a number
    where several were made of one.
    """
    names, made = [], Counter[str]()
    columns = (_column(rows, name) for name in ("label", "source", "origin", "parent"))
    for label, source, origin, parent in zip(*columns, strict=True):
        names.append(f"{label} of {parent} {made[parent]}" if parent else f"{label} {source}/{origin}")
        made[parent] += bool(parent)
    return names


def digests(rows: Rows) -> list[str]:
    """12 hexadecimal digits for each picture: of what it is known by, without saying it."""
    return [hash_json(name)[:12] for name in names_of(rows)]


def _column(rows: Rows, name: str) -> tuple[str, ...]:
    return tuple(str(value) for shards, which in rows for value in shards.columns[name][which].tolist())
