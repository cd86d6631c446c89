"""From an experiment's folder to its numbers: cells read, arms compared, CSV and LaTeX tables written.

The folder is all that is needed: ``experiment.json`` (what was made and tested), and per finished cell
``cells/<key>/cell.json`` and ``scores.csv`` (one line per test picture).
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.detect import metrics
from crossfake.errors import UserError
from crossfake.experiments.statistics import Estimate, Measured, average, cluster_resamples, estimate, measure

ARMS = ("without", "with")
PRIMARY = "auc"  # named before any result: the verdicts are about this figure


@dataclass(frozen=True)
class Figure:
    """One column of the tables: its heading and which way is better."""

    title: str
    higher_is_better: bool = True


FIGURES = {
    "auc": Figure("AUC"),
    "ap": Figure("AP"),
    "eer": Figure("EER", False),
    "accuracy": Figure("Accuracy"),
}


@dataclass(frozen=True)
class Cell:
    """One trained detector: its card, and per test set the score of every picture."""

    card: dict[str, Any]
    scores: dict[str, npt.NDArray[np.float64]]
    labels: dict[str, npt.NDArray[np.int64]]
    groups: dict[str, npt.NDArray[np.str_]]


def read_cell(folder: Path) -> Cell:
    """Read ``cell.json`` and ``scores.csv``.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        card = json.loads((folder / "cell.json").read_text())
        lines: dict[str, list[tuple[float, int, str]]] = {name: [] for name in card["tests"]}
        with open(folder / "scores.csv", newline="", errors="surrogateescape") as file:
            for line in csv.DictReader(file):
                lines[line["test"]].append((float(line["score"]), int(line["label"]), line["group"]))
        if any(len(lines[name]) != count for name, count in card["tests"].items()):
            raise ValueError("lines are missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the cell {folder} is damaged ({error})", mend="delete it and run it again"
        ) from error
    columns = {name: list(zip(*table, strict=True)) for name, table in lines.items()}
    return Cell(
        card,
        {name: np.array(table[0], np.float64) for name, table in columns.items()},
        {name: np.array(table[1], np.int64) for name, table in columns.items()},
        {name: np.array(table[2], np.str_) for name, table in columns.items()},
    )


@dataclass(frozen=True)
class Comparison:
    """One detector on one test set: every figure per arm and its difference (with minus without)."""

    detector: str
    test: str
    kind: str
    arms: dict[str, dict[str, Estimate]]
    differences: dict[str, Estimate]

    @property
    def verdict(self) -> str:
        return self.differences[PRIMARY].verdict()


class Results:
    """All numbers of an experiment's folder.

    Args:
        folder: what ``experiment run`` wrote.
        resamples: of each test set, for the intervals; by default as many as the configuration says.

    Raises:
        UserError: the folder holds no experiment, or no seed of any detector finished both arms.

    Example:
        >>> Results(Path("runs/demo")).overall.verdict()  # doctest: +SKIP
        'helped'
    """

    def __init__(self, folder: Path, resamples: int | None = None) -> None:
        self.folder = folder
        try:
            self.experiment: dict[str, Any] = json.loads((folder / "experiment.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} holds no experiment", mend="make one with 'crossfake experiment run'"
            ) from error
        self.resamples = resamples or int(self.experiment["config"]["resamples"])
        done = [folder / "cells" / key for key in self.experiment["cells"]]
        self.cells = [read_cell(path) for path in done if (path / "cell.json").exists()]
        self.tests: list[dict[str, Any]] = self.experiment["tests"]
        self.detectors = list(dict.fromkeys(cell.card["detector"] for cell in self.cells))
        if not any(self.paired(detector) for detector in self.detectors):
            raise UserError(
                f"{folder}: no detector finished both arms", mend="run the experiment again; it goes on"
            )

    def paired(self, detector: str) -> list[tuple[Cell, Cell]]:
        """(without, with) of every seed that finished in both arms, by seed: only these are compared."""
        by_seed: dict[int, dict[str, Cell]] = {}
        for cell in self.cells:
            if cell.card["detector"] == detector:
                by_seed.setdefault(cell.card["seed"], {})[cell.card["arm"]] = cell
        return [(arms["without"], arms["with"]) for _, arms in sorted(by_seed.items()) if len(arms) == 2]

    @cached_property
    def _measured(self) -> dict[tuple[str, str], dict[str, dict[str, Measured]]]:
        """(detector, test) -> figure -> arm -> measured, all detectors on the same resamples of a test set."""
        found: dict[tuple[str, str], dict[str, dict[str, Measured]]] = {}
        for number, test in enumerate(self.tests):
            name = test["name"]
            first = self.cells[0]
            draws = cluster_resamples(first.labels[name], first.groups[name], self.resamples, seed=number)
            for detector in self.detectors:
                pairs = self.paired(detector)
                if not pairs:
                    continue
                margins = {
                    arm: np.stack([pair[k].scores[name] - pair[k].card["threshold"] for pair in pairs])
                    for k, arm in enumerate(ARMS)
                }
                arms = {arm: measure(first.labels[name], margins[arm], _figures, draws) for arm in ARMS}
                found[detector, name] = {key: {arm: arms[arm][key] for arm in ARMS} for key in FIGURES}
        return found

    @cached_property
    def comparisons(self) -> list[Comparison]:
        kinds = {test["name"]: test["kind"] for test in self.tests}
        return [
            Comparison(
                detector,
                test,
                kinds[test],
                {arm: {key: estimate(arms[arm]) for key, arms in figures.items()} for arm in ARMS},
                {
                    key: estimate(arms["with"] - arms["without"], bounds=(-1, 1))
                    for key, arms in figures.items()
                },
            )
            for (detector, test), figures in self._measured.items()
        ]

    def mean_over(self, arm: str | None, kind: str = "unseen") -> Estimate:
        """The primary figure averaged over detectors and test sets of a kind; ``arm`` None is the difference."""
        wanted = [test["name"] for test in self.tests if test["kind"] == kind]
        parts = []
        for detector in self.detectors:
            found = [
                self._measured[detector, test][PRIMARY]
                for test in wanted
                if (detector, test) in self._measured
            ]
            if found:
                parts.append(
                    average([arms[arm] if arm else arms["with"] - arms["without"] for arms in found])
                )
        return estimate(*parts, bounds=(0, 1) if arm else (-1, 1))

    @property
    def overall(self) -> Estimate:
        """The difference that the headline is about."""
        return self.mean_over(None)

    def rows(self) -> list[dict[str, Any]]:
        """One line per cell and test set, with the hashes it came from: the content of ``results.csv``."""
        rows = []
        for cell in self.cells:
            for test in self.tests:
                labels, scores = cell.labels[test["name"]], cell.scores[test["name"]]
                threshold = cell.card["threshold"]
                figures = metrics.summary(labels, scores, threshold)
                (tn, fp), (fn, tp) = metrics.confusion(labels, scores, threshold)
                about = {name: cell.card[name] for name in ("detector", "arm", "seed")}
                origin = {name: cell.card[name] for name in ("seconds", "key", "model_hash", "train_hash")}
                rows.append(
                    {"test": test["name"], "kind": test["kind"], **about,
                     **{name: round(value, 6) for name, value in figures.items()},
                     "tn": tn, "fp": fp, "fn": fn, "tp": tp, "n_real": test["n_real"], "n_fake": test["n_fake"],
                     "threshold": threshold, **origin, "test_hash": test["hash"]}
                )  # fmt: skip
        return rows


def _figures(labels: Any, margins: Any, weights: Any) -> dict[str, npt.NDArray[np.float64]]:
    """Scores come here as margins over their own detector's threshold, so that accuracy can be averaged over seeds."""
    return metrics.weighted(labels, margins, weights, threshold=0.0)


def csv_table(results: Results) -> str:
    rows = results.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def latex_table(results: Results) -> str:
    """Detector and arm down, unseen generators across, half of the 95% interval behind ±, the better arm bold."""
    tests = [test for test in results.tests if test["kind"] == "unseen"]
    keys = list(FIGURES)
    arrow = {
        key: r"\uparrow" if figure.higher_is_better else r"\downarrow" for key, figure in FIGURES.items()
    }
    head = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{ll" + "r" * len(keys) * len(tests) + "}",
        r"\toprule",
        " & " + "".join(rf" & \multicolumn{{{len(keys)}}}{{c}}{{{_tex(t['name'])}}}" for t in tests) + r" \\",
        "".join(
            rf"\cmidrule(lr){{{3 + len(keys) * k}-{2 + len(keys) * (k + 1)}}}" for k in range(len(tests))
        ),
        "Detector & Synthetic"
        + "".join(f" & {FIGURES[key].title} ${arrow[key]}$" for _ in tests for key in keys)
        + r" \\",
        r"\midrule",
    ]
    body = []
    by = {(c.detector, c.test): c for c in results.comparisons}
    for detector in results.detectors:
        if (detector, tests[0]["name"]) not in by:
            continue
        for arm in ARMS:
            entries = []
            for test in tests:
                comparison = by[detector, test["name"]]
                entries += [_tex_value(comparison, arm, key) for key in keys]
            body.append(
                f"{_tex(detector) if arm == 'without' else ''} & {arm} & " + " & ".join(entries) + r" \\"
            )
        body.append(r"\addlinespace")
    return "\n".join([*head, *body[:-1], r"\bottomrule", r"\end{tabular}"]) + "\n"


def better(comparison: Comparison, arm: str, key: str) -> bool:
    """Whether this arm has the better mean as printed, to three digits; neither arm of a tie has."""
    here, there = (round(comparison.arms[a][key].mean, 3) for a in (arm, ARMS[1 - ARMS.index(arm)]))
    return here > there if FIGURES[key].higher_is_better else here < there


def _tex_value(comparison: Comparison, arm: str, key: str) -> str:
    found = comparison.arms[arm][key]
    mean = f"{found.mean:.3f}"
    return (
        rf"$\mathbf{{{mean}}}" if better(comparison, arm, key) else f"${mean}"
    ) + rf" \pm {found.half_width:.3f}$"


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
