"""One HTML page per experiment: self-contained, offline, readable on a phone, light and dark.

All numbers come from :mod:`crossfake.experiments.results`; this module chooses words and draws. Charts are SVG
written by the template, so that they take the page's type and colours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from crossfake.detect import metrics
from crossfake.experiments.results import (
    ARMS,
    FIGURES,
    PRIMARY,
    Comparison,
    Results,
    better,
    csv_table,
    latex_table,
)
from crossfake.experiments.statistics import Estimate
from crossfake.pages import environment, number, percent, picture, signed
from crossfake.runs import write_text

TEMPLATES = Path(__file__).parent / "templates"
SIDE = 240  # of the unit square of an ROC chart, in SVG units


def report(folder: str | Path, resamples: int | None = None) -> Path:
    """Write ``report.html``, ``results.csv`` and ``results.tex`` into an experiment's folder.

    Args:
        folder: what ``experiment run`` wrote; unfinished experiments are reported as far as they got.
        resamples: of each test set, for the intervals; by default as many as the configuration says.

    Returns:
        The HTML file.

    Raises:
        UserError: the folder holds no experiment, or nothing that can be compared yet.
    """
    results = Results(Path(folder), resamples)
    html = environment(TEMPLATES).get_template("report.html").render(**page(results))
    write_text(results.folder / "results.csv", csv_table(results))
    write_text(results.folder / "results.tex", latex_table(results))
    file = results.folder / "report.html"
    write_text(file, html)
    return file


def page(results: Results) -> dict[str, Any]:
    """Everything that the template shows, in the order of the page."""
    experiment, folder = results.experiment, results.folder
    unseen = [c for c in results.comparisons if c.kind == "unseen"]
    return {
        "experiment": experiment,
        "finding": finding(results),
        "forest": forest(unseen, results.overall),
        "pools": [
            {**pool, "image": picture(folder, pool["picture"]), "sheet": picture(folder, pool["grid"])}
            for pool in experiment["pools"]
        ],
        "quality": quality_table(experiment["pools"]),
        "tables": {kind: [table(results, test) for test in results.tests if test["kind"] == kind]
                   for kind in ("unseen", "seen")},
        "rocs": [roc(results, c) for c in unseen],
        "confusions": [confusion_matrices(results, c) for c in unseen],
        "times": times(results),
        "notes": [*experiment.get("notes", []), *notes(results)],
        "audits": experiment.get("audits", {}),
        "figures": FIGURES,
        "arms": ARMS,
        "better": better,
        "side": SIDE,
        "config": yaml.safe_dump(experiment["config"], sort_keys=False, allow_unicode=True, width=100),
        "environment": environment_text(folder),
        "cells": [cell.card for cell in results.cells],
    }  # fmt: skip


def finding(results: Results) -> dict[str, Any]:
    """The headline: verdict, one sentence with the numbers, and what the figure means in plain words."""
    difference = results.overall
    before, after = (results.mean_over(arm) for arm in ARMS)
    own = join([pool["name"] for pool in results.experiment["pools"] if pool["role"] == "synthetic"])
    verdict = difference.verdict()
    change = "rose" if difference.mean >= 0 else "fell"
    interval = (
        f"{signed(difference.mean)}, 95% interval {signed(difference.low)} to {signed(difference.high)}"
    )
    title = {
        "helped": f"Training on {own} fakes helped.",
        "hurt": f"Training on {own} fakes hurt.",
        "no difference shown": f"Training on {own} fakes showed no difference.",
    }[verdict]
    sentence = (
        f"On generators that no detector had seen, the mean AUC {change} from {number(before.mean)} "
        f"to {number(after.mean)} ({interval})."
    )
    if verdict == "no difference shown":
        sentence = (
            f"On generators that no detector had seen, the mean AUC was {number(before.mean)} without and "
            f"{number(after.mean)} with them. The interval of the difference holds zero ({interval})."
        )
    plain = (
        f"Shown one real and one fake picture, a detector told which is the fake {percent(before.mean)} of the time "
        f"without them and {percent(after.mean)} with them; guessing gives 50%."
    )
    single = (
        "" if difference.seeds > 1 else " One seed: the interval leaves out how much training itself varies."
    )
    verdicts = [c.verdict for c in results.comparisons if c.kind == "unseen"]
    others = [
        f"{verdicts.count(other)} of {len(verdicts)} say “{other}”"
        for other in sorted(set(verdicts) - {verdict})
    ]
    split = f" Row by row, {join(others)}." if others else ""
    return {"verdict": verdict, "title": title, "sentence": sentence, "plain": plain + single + split}


def forest(comparisons: Sequence[Comparison], overall: Estimate) -> dict[str, Any]:
    """Rows of the chart of differences, placed on a common axis of 0 to 100."""
    rows = [(c.detector, c.test, c.differences[PRIMARY]) for c in comparisons]
    entries = [*rows, ("all", "mean of the rows", overall)]
    low = min(0.0, *(e.low for *_, e in entries))
    high = max(0.0, *(e.high for *_, e in entries))
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 6)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    high = high if high > low else low + step

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    ticks = [round(float(low + k * step), 6) for k in range(round((high - low) / step) + 1)]
    return {
        "ticks": [(at(tick), signed(tick, 2 if step >= 0.01 else 3)) for tick in ticks],
        "zero": at(0.0),
        "rows": [
            {"detector": d, "test": t, "estimate": e, "low": at(e.low), "mid": at(e.mean), "high": at(e.high),
             "verdict": e.verdict(), "overall": d == "all"}
            for d, t, e in entries
        ],
    }  # fmt: skip


def table(results: Results, test: dict[str, Any]) -> dict[str, Any]:
    return {"test": test, "comparisons": [c for c in results.comparisons if c.test == test["name"]]}


def roc(results: Results, comparison: Comparison) -> dict[str, Any]:
    """SVG paths of the ROC curves: one thin line per seed and their vertical mean, per arm."""
    grid = np.concatenate(
        [[0, 0], np.linspace(0, 1, 101)[1:]]
    )  # 0 twice: the curve leaves the axis straight up
    arms = []
    for k, arm in enumerate(ARMS):
        curves = []
        for pair in results.paired(comparison.detector):
            labels, scores = pair[k].labels[comparison.test], pair[k].scores[comparison.test]
            fpr, tpr, _ = metrics.roc_curve(labels, scores)
            at_grid = np.interp(grid, fpr, tpr)
            at_grid[0], at_grid[1] = 0, tpr[fpr == 0].max()
            curves.append(at_grid)
        found = comparison.arms[arm][PRIMARY]
        arms.append(
            {"arm": arm, "mean": path(grid, np.mean(curves, axis=0)), "seeds": [path(grid, c) for c in curves],
             "auc": found}
        )  # fmt: skip
    return {"detector": comparison.detector, "test": comparison.test, "arms": arms}


def path(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str:
    points = (f"{SIDE * a:.1f} {SIDE * (1 - b):.1f}" for a, b in zip(x, y, strict=True))
    return "M" + "L".join(points)


def confusion_matrices(results: Results, comparison: Comparison) -> dict[str, Any]:
    """Counts summed over seeds, and the share of each true class that they are: ``[truth][verdict]``."""
    arms = []
    for k, arm in enumerate(ARMS):
        count = np.zeros((2, 2), int)
        for pair in results.paired(comparison.detector):
            labels, scores = pair[k].labels[comparison.test], pair[k].scores[comparison.test]
            count += np.array(metrics.confusion(labels, scores, pair[k].card["threshold"]))
        arms.append(
            {"arm": arm, "count": count.tolist(), "share": (count / count.sum(1, keepdims=True)).tolist()}
        )
    return {"detector": comparison.detector, "test": comparison.test, "arms": arms}


QUALITY = {"fid": ("FID", 2), "swd": ("Sliced Wasserstein ×10³", 1), "spectrum": ("Power spectrum, dB", 2),
           "lpips": ("LPIPS diversity", 3)}  # fmt: skip


def quality_table(pools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that were measured, by generator; a column that nobody has is left out.

    The first row is what reals score among themselves: the best that any fakes could get.
    """
    measured = [(pool["name"], pool["quality"]) for pool in pools if pool["quality"]]
    keys = [key for key in QUALITY if any(key in quality for _, quality in measured)]
    rows = []
    for name, quality in measured:
        details = quality.get("details", {})
        rows.append(
            (name, [_with_error(key, details.get(key)) for key in keys], quality["n_real"], quality["n_fake"])
        )
    reals = [_of_reals(key, measured) for key in keys]
    if any(reals):
        rows.insert(
            0,
            (
                "reals among themselves",
                [_with_error(*each) for each in zip(keys, reals, strict=True)],
                None,
                None,
            ),
        )
    return {"headings": [_quality_heading(key, measured) for key in keys], "rows": rows}


def _of_reals(key: str, measured: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """What the first generator's measurement says of the reals alone."""
    part = "real" if key == "lpips" else "baseline"
    found = (quality.get("details", {}).get(key, {}).get(part) for _, quality in measured)
    return next((each for each in found if each), None)


def _quality_heading(key: str, measured: Sequence[tuple[str, dict[str, Any]]]) -> str:
    details = next(quality["details"][key] for _, quality in measured if key in quality)
    kind = {"fid": f", {details.get('dims')} dims", "lpips": f", {details.get('net')}"}.get(key, "")
    return QUALITY[key][0] + kind


def _with_error(key: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    value, error, digits = found["value"], found.get("standard_error"), QUALITY[key][1]
    return number(value, digits) + (f" ± {number(error, digits)}" if error is not None else "")


def times(results: Results) -> dict[str, Any]:
    """Wall time of each stage, and of all cells together, longest bar 100."""
    stages = [(name, float(seconds)) for name, seconds in results.experiment["seconds"].items()]
    cells = [cell.card["seconds"] for cell in results.cells]
    stages.append((f"{len(cells)} detectors trained and tested", sum(cells)))
    longest = max(seconds for _, seconds in stages) or 1.0
    return {
        "rows": [(n, s, round(100 * s / longest, 1)) for n, s in stages],
        "total": sum(s for _, s in stages),
    }


def notes(results: Results) -> list[str]:
    """What a careful reader should know before quoting the numbers."""
    experiment = results.experiment
    seeds = {detector: len(results.paired(detector)) for detector in results.detectors}
    said = [
        "Both arms have the same reals, the same number of training steps and batches that are half real, half fake; "
        "only the pool that the fake half is drawn from differs. Early stopping, calibration and the threshold saw "
        "training and validation rows only.",
        "No person, source photo or picture of a test set is among the training or validation rows; this was checked "
        "by group and by pixels before the first detector was trained.",
        f"Intervals (95%) come from {results.resamples:,} resamples of whole groups of the test sets, the same for "
        "both arms, plus Student's t for the spread between seeds. They say nothing about other generators or other "
        "faces. Several rows are tested without a correction for that; the headline's average was fixed beforehand.",
    ]
    few = min(seeds.values())
    if few < 3:
        said.append(
            "With one seed the intervals leave out how much training itself varies." if few == 1
            else f"With {few} seeds the intervals must be wide; three or more would say much more."
        )  # fmt: skip
    ceiling = [
        c for c in results.comparisons if c.kind == "unseen" and c.arms["without"][PRIMARY].mean > 0.99
    ]
    if ceiling:
        said.append(
            f"Little room to help: without own fakes, AUC is above 0.99 already in {len(ceiling)} row(s)."
        )
    failed = len(experiment["failures"])
    if failed:
        said.append(f"{failed} cell(s) failed and are missing from all figures; they are listed below.")
    missing = len(experiment["cells"]) - len(results.cells) - failed
    if missing > 0:
        said.append(f"{missing} cell(s) have not been run yet: these results are preliminary.")
    return said


def environment_text(folder: Path) -> str:
    file = folder / "environment.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    facts.pop("command", None)
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def join(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
