"""From an experiment's folder to its numbers: cells read, scores measured on resampled tests, means with intervals.

The folder is all that is needed: ``experiment.json`` (what was trained on what and tested on what), and per finished
cell ``cell.json`` and ``scores/<test's hash>.csv`` (one line per test picture).

The resamples of a test are the same for all detectors, conditions and seeds, for its perturbed versions, and, as to
its reals, for all tests against the same reals: so differences are paired, and a mean over tests does not count the
same reals as fresh evidence again and again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.detect.evaluation import metrics
from crossfake.errors import UserError
from crossfake.experiments.design.protocols import ELSEWHERE
from crossfake.stats.bootstrap import Counts, Measured, average, cluster_resamples, measure, together
from crossfake.stats.intervals import Estimate, estimate
from crossfake.stats.ranking import weighted_auc

PRIMARY = "auc"  # named before any result: the verdicts are about this figure
SECONDARY_RESAMPLES = 200  # enough for the ± of figures that no verdict is about

NOT_KNOWN = "what it learned from is known by name only, so it may have seen what it is tested on"
_ELSEWHERE: dict[str, Any] = {
    "name": ELSEWHERE,
    "about": f"was not trained here: {NOT_KNOWN}",
    "fakes": [],
    "synthetic": [],
    "n_synthetic": None,
    "x": None,
    "quality": {},
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One column of the tables: its heading, which way is better, and what knowing nothing gives."""

    title: str
    higher_is_better: bool = True
    by_chance: Callable[[float], float] = lambda share: 0.5  # of the share of fakes
    why: str = ""


FIGURES = {
    "auc": Figure("AUC"),
    "ap": Figure("AP", by_chance=lambda share: share, why="the share of fakes"),
    "eer": Figure("EER", False),
    "accuracy": Figure(
        "Accuracy", by_chance=lambda share: max(share, 1 - share), why="the larger class's share"
    ),
}


@dataclass(frozen=True)
class Cell:
    """One trained detector as this experiment calls it: its card, its folder, and per test the score of every picture.

    Attributes:
        scores: float64 ``[N]`` by name of the test, reals first.
    """

    detector: str
    condition: str
    seed: int
    key: str
    folder: Path
    card: dict[str, Any]
    scores: dict[str, Floats]

    @property
    def threshold(self) -> float:
        """Score from which a picture is called fake, fixed on validation."""
        return float(self.card["threshold"])

    def scores_file(self, test: dict[str, Any]) -> Path:
        """The file of its scores of a test."""
        return self.folder / scores_name(test)


@dataclass(frozen=True)
class Truth:
    """What the pictures of a test are: label and group of each, reals first."""

    labels: npt.NDArray[np.int64]
    groups: tuple[str, ...]


def scores_name(test: dict[str, Any]) -> str:
    """Of the file that holds a cell's scores on a test."""
    return f"scores/{test['hash'][:16]}.csv"


class Results:
    """All numbers of an experiment's folder.

    Args:
        folder: what ``experiment run`` wrote.
        resamples: of each test, for the intervals; by default as many as the configuration says.

    Attributes:
        experiment: ``experiment.json``.
        cells: those that are finished; of detectors that were there already one each, in the condition ``elsewhere``.
        pending: entries of ``experiment.json`` that are neither finished nor failed.
        tests: by name, in order; ``conditions`` and ``pools`` (sets of pictures) alike.
        trained: conditions that something was trained in: all but ``elsewhere``.
        detectors: with at least one finished cell, in order.
        given: those of them that were there already.

    Raises:
        UserError: the folder holds no experiment, nothing is finished, or a file is damaged.

    Example:
        >>> results = Results(Path("runs/demo"))  # doctest: +SKIP
        >>> results.mean("cnn", "with").mean  # doctest: +SKIP
        0.83
    """

    def __init__(self, folder: str | Path, resamples: int | None = None) -> None:
        self.folder = Path(folder)
        try:
            self.experiment: dict[str, Any] = json.loads((self.folder / "experiment.json").read_text())
            self.tests = {test["name"]: test for test in self.experiment["tests"]}
            self.trained = {c["name"]: c for c in self.experiment["conditions"]}
            self.pools = {pool["name"]: pool for pool in self.experiment["pools"]}
            self._seen = {(condition, test) for condition, test in self.experiment["seen"]}
            config = self.experiment["config"]
            self.resamples = resamples or int(config["resamples"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} holds no experiment", hint="make one with 'crossfake experiment run'"
            ) from error
        self.store = Path(config["cache"]) if config.get("cache") else self.folder / "cells"
        self.truths: dict[str, Truth] = {}
        self.cells: list[Cell] = []
        self.pending: list[dict[str, Any]] = []
        failed = {(f["key"], f["detector"], f["condition"], f["seed"]) for f in self.experiment["failures"]}
        places: set[tuple[str, str, int]] = set()
        for entry in self.experiment["cells"]:
            cell = self._read(entry)
            if cell:
                # which of several conditions names a detector that was there already says nothing
                if (cell.detector, cell.condition, cell.seed) not in places:
                    self.cells.append(cell)
                places.add((cell.detector, cell.condition, cell.seed))
            elif (entry["key"], entry["detector"], entry["condition"], entry["seed"]) not in failed:
                self.pending.append(entry)
        self.detectors = list(dict.fromkeys(cell.detector for cell in self.cells))
        self.given = {cell.detector for cell in self.cells if cell.condition == ELSEWHERE}
        self.conditions = {**self.trained, **({ELSEWHERE: _ELSEWHERE} if self.given else {})}
        if not self.cells:
            raise UserError(f"{folder}: no cell is finished yet", hint="run the experiment again; it goes on")
        self._by_place = {(c.detector, c.condition, c.seed): c for c in self.cells}
        self._draws: tuple[tuple[str, bytes], Counts] | None = None
        self._primary: dict[str, dict[str, Measured]] = {}
        self._secondary: dict[str, dict[str, dict[str, Measured]]] = {}
        self._values: dict[tuple[str, str, str, str], Estimate | None] = {}

    def _read(self, entry: dict[str, Any]) -> Cell | None:
        """A finished cell; None where its card or any scores are not there."""
        folder = self.store / entry["key"]
        files = {name: folder / scores_name(test) for name, test in self.tests.items()}
        if not (folder / "cell.json").is_file() or not all(file.is_file() for file in files.values()):
            return None
        file = folder / "cell.json"
        try:
            card = json.loads(file.read_text())
            float(card["threshold"])
            scores = {}
            for name, file in files.items():
                labels, groups, scores[name] = _read_scores(file)
                known = self.truths.setdefault(name, Truth(np.array(labels, np.int64), groups))
                test = self.tests[name]
                if labels != [0] * test["n_real"] + [1] * test["n_fake"] or groups != known.groups:
                    raise ValueError("its lines are not those of the test")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error})", hint="delete its folder and run again") from error
        condition = ELSEWHERE if card.get("given") else entry["condition"]
        return Cell(entry["detector"], condition, entry["seed"], entry["key"], folder, card, scores)

    # which tests and seeds there are

    def is_seen(self, condition: str, test: str) -> bool:
        """Whether a condition trained on what the test is about; a perturbed test goes by its base.

        Of detectors trained elsewhere that is not known, and they are not said to have.
        """
        return (condition, test) in self._seen or (condition, self.tests[test]["base"]) in self._seen

    @cached_property
    def plain(self) -> list[str]:
        """Names of the tests with pictures as they are."""
        return [name for name, test in self.tests.items() if not test["perturbation"]]

    def unseen(self, *conditions: str) -> list[str]:
        """Tests, unperturbed, of what none of these conditions trained on."""
        return [test for test in self.plain if not any(self.is_seen(c, test) for c in conditions)]

    def seen(self, *conditions: str) -> list[str]:
        """Tests, unperturbed, of what all of these conditions trained on."""
        return [test for test in self.plain if all(self.is_seen(c, test) for c in conditions)]

    @cached_property
    def asked(self) -> list[str]:
        """Tests that the finding is about: those of the contrasts, or all that some condition has not seen."""
        named = {test for contrast in self.experiment["contrasts"] for test in contrast["tests"]}
        wanted = named or {t for c in self.trained for t in self.unseen(c)}
        return [test for test in self.plain if test in wanted]

    def asked_unseen(self, condition: str) -> list[str]:
        """Tests that are asked about, and that the condition has not seen."""
        return [test for test in self.asked if not self.is_seen(condition, test)]

    def by_chance(self, test: str, key: str = PRIMARY) -> float:
        """What a figure is on a test for a detector that knows nothing."""
        n_real, n_fake = self.size([test])
        return FIGURES[key].by_chance(n_fake / (n_real + n_fake))

    def size(self, tests: Iterable[str]) -> tuple[int, int]:
        """Reals and fakes of tests; what several share is counted once."""
        chosen = [self.tests[name] for name in tests]
        reals = {test["real"]: test["n_real"] for test in chosen}
        fakes = {test["fake"]: test["n_fake"] for test in chosen}
        return sum(reals.values()), sum(fakes.values())

    def conditions_of(self, detector: str) -> list[str]:
        """What a table of a detector has a row for."""
        return [ELSEWHERE] if detector in self.given else list(self.trained)

    def seeds(self, detector: str, *conditions: str) -> tuple[int, ...]:
        """Seeds that finished in all of these conditions."""
        found = [{c.seed for c in self.cells_of(detector, condition)} for condition in conditions]
        return tuple(sorted(set.intersection(*found))) if found else ()

    def cells_of(self, detector: str, condition: str) -> list[Cell]:
        """By seed."""
        found = [c for c in self.cells if (c.detector, c.condition) == (detector, condition)]
        return sorted(found, key=lambda cell: cell.seed)

    # numbers

    def measured(
        self,
        detector: str,
        condition: str,
        tests: Iterable[str],
        key: str = PRIMARY,
        seeds: Sequence[int] | None = None,
    ) -> Measured | None:
        """A figure averaged over tests, by seed and resample; None where there are no seeds or no tests.

        Args:
            seeds: which trainings; by default all that finished.
        """
        seeds = self.seeds(detector, condition) if seeds is None else seeds
        tests = list(tests)
        if not seeds or not tests:
            return None
        keys = [self._by_place[detector, condition, seed].key for seed in seeds]
        parts = []
        for test in tests:
            found = self._on(test) if key == PRIMARY else self._others_on(test)[key]
            parts.append(together([found[k] for k in keys]))
        return average(parts)

    def value(self, detector: str, condition: str, test: str, key: str = PRIMARY) -> Estimate | None:
        """A figure of one detector and condition on one test."""
        place = detector, condition, test, key
        if place not in self._values:
            found = self.measured(detector, condition, [test], key)
            self._values[place] = estimate(found) if found else None
        return self._values[place]

    def mean(
        self, detector: str | None, condition: str, tests: Sequence[str] | None = None, key: str = PRIMARY
    ) -> Estimate | None:
        """A figure averaged over tests (by default those of :attr:`asked` that the condition has not seen), and over
        all detectors where ``detector`` is None."""
        tests = self.asked_unseen(condition) if tests is None else tests
        names = self.detectors if detector is None else [detector]
        parts = [m for name in names if (m := self.measured(name, condition, tests, key))]
        return estimate(*parts) if parts else None

    def _on(self, test: str) -> dict[str, Measured]:
        """Key of a cell -> its AUC on one test."""
        if test not in self._primary:
            labels, draws = self.truths[test].labels, self._resamples(test)
            self._primary[test] = {
                cell.key: measure(labels, cell.scores[test], _auc, draws)[PRIMARY] for cell in self.cells
            }
        return self._primary[test]

    def _others_on(self, test: str) -> dict[str, dict[str, Measured]]:
        """Figure -> key of a cell -> measured, from fewer resamples.

        Scores are taken as margins over their own detector's threshold, so that accuracy can be averaged over seeds.
        """
        if test not in self._secondary:
            labels, draws = self.truths[test].labels, self._resamples(test)[:SECONDARY_RESAMPLES]
            found: dict[str, dict[str, Measured]] = {}
            for cell in self.cells:
                for name, measured in measure(
                    labels, cell.scores[test] - cell.threshold, _weighted, draws
                ).items():
                    found.setdefault(name, {})[cell.key] = measured
            self._secondary[test] = found
        return self._secondary[test]

    def _resamples(self, test: str) -> Counts:
        """Resamples of a test; see the module's docstring for what they share."""
        truth = self.truths[test]
        pools = list(dict.fromkeys(each["real"] for each in self.tests.values()))
        seed = pools.index(self.tests[test]["real"])
        same = ("\n".join(truth.groups), truth.labels.tobytes() + bytes([seed]))
        if self._draws is None or self._draws[0] != same:  # perturbed versions come one after another
            self._draws = same, cluster_resamples(truth.groups, self.resamples, seed, truth.labels)
        return self._draws[1]


def _read_scores(file: Path) -> tuple[list[int], tuple[str, ...], Floats]:
    """Labels, groups and scores, by row."""
    with open(file, newline="", errors="surrogateescape") as lines:
        reader = csv.reader(lines)
        if next(reader, None) != ["row", "label", "group", "score"]:
            raise ValueError("its header is not row,label,group,score")
        rows, labels, groups, scores = zip(*reader, strict=True)
    if [int(row) for row in rows] != list(range(len(rows))):
        raise ValueError("its rows are not numbered 0, 1, 2, …")
    values = np.array([float(score) for score in scores])
    if not np.isfinite(values).all():
        raise ValueError("a score is not a number")
    return [int(label) for label in labels], groups, values


def _auc(labels: Any, scores: Any, weights: Any) -> dict[str, Floats]:
    return {PRIMARY: weighted_auc(labels, scores, weights)}


def _weighted(labels: Any, margins: Any, weights: Any) -> dict[str, Floats]:
    found = metrics.weighted(labels, margins, weights, threshold=0.0)
    return {name: found[name] for name in FIGURES}
