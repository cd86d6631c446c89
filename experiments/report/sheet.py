"""Scores of a study of strangers as a small table that others can compute its figures from, and those figures.

A sheet is a folder of three files: ``scores.csv``, a line for each test picture and a column for each cell, holding
logits of the scores with four decimals; ``study.json``, what the cells and tests are; and ``results.md``, which is made
from these two and nothing else. Pictures are known by a digest of their name only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from crossfake.errors import UserError
from crossfake.experiments.design.protocols import REAL
from crossfake.experiments.report.results import Results
from crossfake.files import write_json, write_text
from crossfake.stats.bootstrap import Counts, Measured, average, cluster_resamples, together
from crossfake.stats.ranking import weighted_auc

SCORES, FACTS, TABLE = "scores.csv", "study.json", "results.md"
PICTURES = "pictures.csv"  # in an experiment's folder
RATE = 0.05  # of false alarms among other reals, at which hits are counted
_DIGITS = 4  # after the point
_LIMIT = 30.0  # of logits: a score of 1 has none
_COLUMNS = ("set", "id", "label", "source", "group")

Floats = npt.NDArray[np.float64]
Place = tuple[str, str, int]  # detector, condition, seed


@dataclass(frozen=True)
class Sheet:
    """Scores of all cells on all sets of pictures.

    Attributes:
        facts: of the study: conditions, tests, cells with their thresholds, audits.
        lines: set, digest, label, source and group of every picture.
        logits: float64 ``[C, N]``, of cell and picture.
    """

    facts: dict[str, Any]
    lines: tuple[tuple[str, ...], ...]
    logits: Floats

    @classmethod
    def of(cls, results: Results) -> Sheet:
        """From an experiment's folder.

        Raises:
            UserError: the experiment was run before pictures were listed.
        """
        experiment = results.experiment
        try:
            with open(results.folder / PICTURES, newline="") as file:
                listed = [tuple(row[name] for name in _COLUMNS[:4]) for row in csv.DictReader(file)]
        except (OSError, KeyError) as error:
            raise UserError(f"{results.folder} lists no pictures", hint="run the experiment again") from error
        chosen = _chosen(results)
        groups = sorted({group for test, _ in chosen.values() for group in results.truths[test].groups})
        numbers = {group: f"g{number:0{len(str(len(groups)))}}" for number, group in enumerate(groups)}
        lines: list[tuple[str, ...]] = []
        columns: list[Floats] = []
        for name, (test, label) in chosen.items():
            truth = results.truths[test]
            rows = np.flatnonzero(truth.labels == label)
            mine = [line for line in listed if line[0] == name and line[2] == str(label)]
            if len(mine) != len(rows):
                raise UserError(
                    f"{results.folder} lists {len(mine)} pictures of {name}, and scores {len(rows)}",
                    hint="run the experiment again",
                )
            lines += [(*line, numbers[truth.groups[row]]) for line, row in zip(mine, rows, strict=True)]
            columns.append(np.stack([cell.scores[test][rows] for cell in results.cells]))
        facts = {
            "name": experiment["name"],
            "resamples": results.resamples,
            "reencode": experiment["config"].get("reencode") or {},
            "photos": [photos["name"] for photos in experiment["config"].get("photos") or []] or [REAL],
            "conditions": [
                {key: c.get(key) for key in ("name", "about", "fakes", "synthetic", "without")}
                for c in results.conditions.values()
            ],
            "tests": [
                {key: results.tests[name][key] for key in ("name", "fake", "real")} for name in results.plain
            ],
            "seen": experiment["seen"],
            "contrasts": experiment["contrasts"],
            "detector_contrasts": experiment["config"].get("detector_contrasts") or [],
            "audits": experiment.get("pair_audits") or {},
            "cells": [
                {
                    "detector": c.detector,
                    "condition": c.condition,
                    "seed": c.seed,
                    "key": c.key,
                    "threshold": round(float(_logits(np.array(c.threshold))), _DIGITS),
                    "model_hash": c.card["model_hash"],
                    "train_hash": c.card["train_hash"],
                }
                for c in results.cells
            ],
        }
        return cls(facts, tuple(lines), _logits(np.concatenate(columns, axis=1)).round(_DIGITS))

    @classmethod
    def load(cls, folder: Path) -> Sheet:
        """What :meth:`save` wrote.

        Raises:
            UserError: there is none, or it is damaged.
        """
        try:
            facts = json.loads((folder / FACTS).read_text())
            with open(folder / SCORES, newline="") as file:
                header, *rows = csv.reader(file)
            names = [_head(cell) for cell in facts["cells"]]
            if header != [*_COLUMNS, *names]:
                raise ValueError(f"the columns of {SCORES} are not the cells of {FACTS}")
            logits = np.array([[float(v) for v in row[len(_COLUMNS) :]] for row in rows]).T
            if logits.shape != (len(names), len(rows)) or not np.isfinite(logits).all():
                raise ValueError("a score is not a number")
            return cls(facts, tuple(tuple(row[: len(_COLUMNS)]) for row in rows), logits)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} holds no sheet of scores ({error})",
                hint="make one with 'crossfake experiment report RUN --scores FOLDER'",
            ) from error

    def save(self, folder: Path) -> None:
        """Write the three files."""
        from crossfake.experiments.report.sheet_tables import markdown

        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SCORES, self._csv())
        write_json(folder / FACTS, self.facts)
        write_text(folder / TABLE, markdown(Sheet.load(folder)))

    def _csv(self) -> str:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*_COLUMNS, *map(_head, self.facts["cells"])])
        for line, values in zip(self.lines, self.logits.T.tolist(), strict=True):
            table.writerow([*line, *(f"{value:g}" for value in values)])
        return text.getvalue()

    # what there is

    @cached_property
    def sets(self) -> dict[str, npt.NDArray[np.int64]]:
        """Pictures of each set, ``[N]``; ``real`` is all photos together where these are told apart."""
        names = np.array([line[0] for line in self.lines])
        found = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}
        if REAL not in found:
            found[REAL] = np.concatenate([found[name] for name in self.facts["photos"]])
        return found

    @cached_property
    def cells(self) -> dict[Place, int]:
        """Column of each detector, condition and seed."""
        return {(c["detector"], c["condition"], c["seed"]): k for k, c in enumerate(self.facts["cells"])}

    def seeds(self, detector: str, *conditions: str) -> list[int]:
        """That finished in all of these conditions."""
        found = [{s for d, c, s in self.cells if (d, c) == (detector, name)} for name in conditions]
        return sorted(set.intersection(*found))

    @cached_property
    def rows(self) -> list[tuple[str, str]]:
        """Detectors and conditions, in order."""
        order = [condition["name"] for condition in self.facts["conditions"]]
        detectors = dict.fromkeys(detector for detector, *_ in self.cells)
        return [(d, c) for d in detectors for c in order if self.seeds(d, c)]

    def is_seen(self, condition: str, test: str) -> bool:
        """Whether a condition trains on the generator of a test."""
        return [condition, test] in self.facts["seen"]

    # figures

    @cached_property
    def draws(self) -> Counts:
        """Resamples ``[R, N]``: of each set its groups, drawn once for all cells and tests."""
        groups = np.array([line[4] for line in self.lines])
        found = np.zeros((self.facts["resamples"], len(self.lines)), np.uint16)
        for number, (name, rows) in enumerate(self.sets.items()):
            if name != REAL or REAL in {line[0] for line in self.lines}:
                found[:, rows] = cluster_resamples(groups[rows], len(found), number)
        return found

    def auc(self, place: Place, test: dict[str, Any]) -> Measured:
        """Of one cell on one test."""
        real, fake = self.sets[test["real"]], self.sets[test["fake"]]
        rows = np.concatenate([real, fake])
        labels = np.repeat([0, 1], [len(real), len(fake)])
        scores = self.logits[self.cells[place], rows]
        return self._measured(lambda weights: weighted_auc(labels, scores, weights[:, rows]))

    def alarms(self, place: Place, name: str) -> Measured:
        """Share of a set that is called fake at the threshold from validation."""
        number, rows = self.cells[place], self.sets[name]
        called = self.logits[number, rows] >= self.facts["cells"][number]["threshold"]
        return self._measured(lambda weights: _share(weights[:, rows], called))

    def hits(self, place: Place, test: dict[str, Any]) -> tuple[Measured, Measured]:
        """Shares of the fakes and of the reals of a test that are called fake at the threshold with 5% false alarms of
        all other photos."""
        others = [name for name in self.facts["photos"] if name != test["real"]]
        scores = self.logits[self.cells[place]]
        rows = np.concatenate([self.sets[name] for name in others])
        rows = rows[np.argsort(-scores[rows], kind="stable")]

        def above(weights: npt.NDArray[Any], name: str) -> Floats:
            passed = np.cumsum(weights[:, rows], axis=1, dtype=np.float64)
            last = (passed <= RATE * passed[:, -1:]).sum(axis=1)  # the first that would be one alarm too many
            limits = scores[rows[np.minimum(last, len(rows) - 1)]]
            mine = self.sets[name]
            return _share(weights[:, mine], scores[mine] > limits[:, None])

        return (
            self._measured(lambda weights: above(weights, test["fake"])),
            self._measured(lambda weights: above(weights, test["real"])),
        )

    def over_seeds(self, detector: str, condition: str, what: Any, *given: Any) -> list[Any]:
        """What a method measures of one cell, of all seeds."""
        return [what((detector, condition, seed), *given) for seed in self.seeds(detector, condition)]

    def mean_auc(
        self, detector: str, condition: str, tests: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> Measured:
        """AUC averaged over tests, of these seeds."""
        return average(
            [together([self.auc((detector, condition, seed), test) for seed in seeds]) for test in tests]
        )

    def _measured(self, figure: Any) -> Measured:
        whole = np.ones((1, len(self.lines)), np.uint16)
        return Measured(figure(whole), figure(self.draws)[None])


def verify_sheet(folder: Path) -> list[str]:
    """Compute ``results.md`` anew from the scores beside it, and say what differs; nothing when nothing does.

    Raises:
        UserError: the sheet is damaged.
    """
    from crossfake.experiments.report.sheet_tables import markdown

    fresh = markdown(Sheet.load(folder)).splitlines()
    try:
        here = (folder / TABLE).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return [f"{TABLE} is not there"]
    said = [
        f"{TABLE}, line {number}: {a!r}, the scores give {b!r}"
        for number, (a, b) in enumerate(zip(here, fresh, strict=False), 1)
        if a != b
    ]
    if len(here) != len(fresh):
        said.append(f"{TABLE} has {len(here)} lines, the scores give {len(fresh)}")
    return said


def _chosen(results: Results) -> dict[str, tuple[str, int]]:
    """For each set of pictures a test that it is in, and its label; not all reals where sources are told apart."""
    found: dict[str, tuple[str, int]] = {}
    apart = bool(results.experiment["config"].get("photos"))
    for name in results.plain:
        test = results.tests[name]
        for label, part in ((0, test["real"]), (1, test["fake"])):
            if not (apart and part == REAL and label == 0):
                found.setdefault(part, (name, label))
    return found


def _head(cell: dict[str, Any]) -> str:
    return f"{cell['detector']}|{cell['condition']}|{cell['seed']}"


def _logits(scores: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.clip(logit(scores), -_LIMIT, _LIMIT)


def _share(weights: npt.NDArray[Any], called: npt.NDArray[np.bool_]) -> Floats:
    """Weighted share of what is called, ``[B]``; ``called`` is ``[N]`` or ``[B, N]``."""
    total = weights.sum(axis=1, dtype=np.float64)
    return np.asarray((weights * called).sum(axis=1, dtype=np.float64) / total)
