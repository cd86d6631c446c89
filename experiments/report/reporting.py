"""One HTML page per experiment: self-contained, offline, readable on a phone, light and dark; and the files beside it.

All numbers come from :mod:`~crossfake.experiments.report.results` and
:mod:`~crossfake.experiments.report.comparing`; this module arranges them. Charts are SVG written by the template, so
that they take the page's type and colours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml

from crossfake.charts import drawn
from crossfake.detect.evaluation import metrics
from crossfake.errors import MissingDependency, UserError
from crossfake.experiments.report import cards, charts, mistakes, tables, wording
from crossfake.experiments.report.charts import best, color_of
from crossfake.experiments.report.comparing import Difference, Finding, answers
from crossfake.experiments.report.methods import methods
from crossfake.experiments.report.quality_table import quality_table
from crossfake.experiments.report.results import FIGURES, Results, scores_name
from crossfake.experiments.report.sheet import TABLE, Sheet
from crossfake.experiments.report.sheet_tables import markdown
from crossfake.files import write_text
from crossfake.pages import environment, picture, signed

TEMPLATES = Path(__file__).parent / "templates"
_FEW = 3  # conditions that fit a table of every figure on every test
_FOREST = 40  # rows


def report(folder: str | Path, resamples: int | None = None) -> Path:
    """Write everything that can be told about an experiment into its folder.

    ``report.html``; the numbers as ``results.csv``, ``results.parquet`` (with pyarrow), ``contrasts.csv`` and
    ``results.tex``, of ``conditions`` also ``results.md``; ``methods.tex`` and ``references.bib`` for a paper;
    ``figures/`` as PNG, PDF and SVG; ``cards/`` with one model card per detector and condition; and
    ``croissant.json``, which describes the data to machines.

    Args:
        folder: what ``experiment run`` wrote; unfinished experiments are reported as far as they got.
        resamples: of each test, for the intervals; by default as many as the configuration says.

    Returns:
        The HTML file.

    Raises:
        UserError: the folder holds no experiment, or nothing is finished yet.

    Example:
        >>> report("runs/demo")  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    from crossfake.experiments.report.figures import write_figures  # matplotlib is slow to import

    results = Results(folder, resamples)
    found = answers(results)
    for name, text in texts(results, found).items():
        write_text(results.folder / name, text)
    try:
        tables.write_parquet(tables.cell_rows(results), results.folder / "results.parquet")
    except MissingDependency as error:
        print(f"no results.parquet: {error}")
    write_figures(results, found)
    cards.write_cards(results, found)
    return results.folder / "report.html"


def texts(results: Results, found: Sequence[Finding]) -> dict[str, str]:
    """Name and content of the files that ``experiment verify`` can make again from the scores."""
    return {
        "results.csv": tables.csv_table(tables.cell_rows(results)),
        "contrasts.csv": tables.csv_table(tables.contrast_rows(found), tables.CONTRAST_COLUMNS),
        "results.tex": tables.latex_tables(results, found),
        **methods(results, found),
        **({TABLE: markdown(Sheet.of(results))} if results.experiment["protocol"] == "conditions" else {}),
        "report.html": environment(TEMPLATES).get_template("report.html").render(**page(results, found)),
    }


def page(results: Results, found: Sequence[Finding]) -> dict[str, Any]:
    """Everything that the template shows, in the order of the page."""
    experiment, folder = results.experiment, results.folder
    asked, checks = results.asked, [test for test in results.plain if test not in results.asked]
    few = len(results.trained) <= _FEW
    sheets, no_sheets = _mistakes(results)
    return {
        "experiment": experiment,
        "finding": wording.finding(results, found),
        "answers": found,
        "forest": forest(found) if found else None,
        "heats": [charts.heat(results, d) for d in results.detectors] if len(results.trained) > 2 else [],
        "summaries": [] if few else [summary(results, detector) for detector in results.detectors],
        "curves": [
            *(
                (
                    f"{FIGURES[key].title} over {(experiment['axis'] or {}).get('name')}",
                    [drawn(p) for p in charts.axis_panels(results, key)],
                )
                for key in charts.OVER_AXIS
            ),
            ("Robustness", [drawn(p) for p in charts.robustness_panels(results)]),
        ],
        "rocs": [drawn(p) for p in charts.roc_panels(results)],
        "tables": {
            "asked": [table(results, found, test) for test in asked] if few else [],
            "checks": [table(results, found, test) for test in checks] if few else [],
        },
        "confusions": [
            confusion(results, detector, test) for test in asked for detector in results.detectors
        ],
        "few": few,
        "pools": [
            {**pool, "image": picture(folder, pool["picture"]), "sheet": picture(folder, pool["grid"])}
            for pool in experiment["pools"]
        ],
        "sheets": sheets,
        "no_sheets": no_sheets,
        "quality": quality_table(experiment["pools"]),
        "published": published(results),
        "cost": cost(results),
        "notes": wording.notes(results, found),
        "audits": experiment.get("audits", {}),
        "probes": probes(experiment.get("audits", {})),
        "figures": FIGURES,
        "sizes": tables.sizes(results),
        "chances": [f"{figure.title}: {tables.chance(results, key)}" for key, figure in FIGURES.items()],
        "palette": [color_of(results, name) for name in results.conditions],
        "conditions": list(results.conditions.values()),
        "config": yaml.safe_dump(experiment["config"], sort_keys=False, allow_unicode=True, width=100),
        "environment": environment_text(folder),
        "groups": groups(results),
        "ids": {(d, c): anchor(results, d, c) for d in results.detectors for c in results.conditions},
        "tests": list(results.tests.values()),
        "p_value": tables.p_value,
    }


def anchor(results: Results, detector: str, condition: str) -> str:
    """Id of the rows that say where the numbers of a detector and condition come from."""
    return f"cells-{results.detectors.index(detector)}-{list(results.conditions).index(condition)}"


def forest(found: Sequence[Finding]) -> dict[str, Any]:
    """Rows of the chart of differences, placed on a common axis of 0 to 100."""
    rows = charts.forest_rows(found, _FOREST)
    low = min(0.0, *(each.estimate.low for _, each in rows))
    high = max(0.0, *(each.estimate.high for _, each in rows))
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 6)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    high = high if high > low else low + step

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    ticks = [round(float(low + k * step), 6) for k in range(round((high - low) / step) + 1)]
    return {
        "ticks": [(at(tick), signed(tick, 2 if step >= 0.01 else 3)) for tick in ticks],
        "zero": at(0.0),
        "several": len(found) > 1,
        "rows": [
            {
                "each": each,
                "name": _name(each, len(found) > 1),
                "about": _about(each, found),
                "low": at(each.estimate.low),
                "mid": at(each.estimate.mean),
                "high": at(each.estimate.high),
                "overall": not each.detector,
            }
            for _, each in rows
        ],
    }


def _name(each: Difference, several: bool) -> str:
    return each.detector or (each.contrast if several else "Mean")


def _about(each: Difference, found: Sequence[Finding]) -> str:
    n = f"{each.n[1]:,} fakes, {each.n[0]:,} reals"
    if each.test:
        return f"on {each.test}: {n}"
    tests = next(answer.tests for answer in found if answer.name == each.contrast)
    return (f"mean over {len(tests)} tests: " if len(tests) > 1 else f"on {tests[0]}: ") + n


def table(results: Results, found: Sequence[Finding], test: str) -> dict[str, Any]:
    """Every figure of every detector and condition on one test, and the differences asked about."""
    groups = []
    for detector in results.detectors:
        names = [name for name in results.conditions if results.seeds(detector, name)]
        values = {key: [results.value(detector, name, test, key) for name in names] for key in FIGURES}
        seen = [results.is_seen(name, test) for name in names]
        winners = {
            key: best(
                [None if s else v for v, s in zip(values[key], seen, strict=True)]
                if not all(seen)
                else values[key],
                key,
            )
            for key in FIGURES
        }
        groups.append(
            {
                "detector": detector,
                "rows": [
                    {
                        "condition": name,
                        "color": color_of(results, name),
                        "seen": seen[k],
                        "cells": anchor(results, detector, name),
                        "values": [(values[key][k], k in winners[key]) for key in FIGURES],
                    }
                    for k, name in enumerate(names)
                ],
                "differences": [
                    row
                    for answer in found
                    for row in answer.rows
                    if (row.detector, row.test) == (detector, test)
                ],
            }
        )
    by_chance = [results.by_chance(test, key) for key in FIGURES]
    return {"test": results.tests[test], "groups": groups, "by_chance": by_chance}


def summary(results: Results, detector: str) -> dict[str, Any]:
    """Every figure of every condition, averaged over the tests that it has not seen."""
    names = [name for name in results.conditions if results.seeds(detector, name)]
    return {
        "detector": detector,
        "rows": [
            {
                "condition": name,
                "n": len(results.asked_unseen(name)),
                "cells": anchor(results, detector, name),
                "values": [results.mean(detector, name, key=key) for key in FIGURES],
            }
            for name in names
        ],
    }


def confusion(results: Results, detector: str, test: str) -> dict[str, Any]:
    """Counts summed over seeds, and the share of each true class that they are: ``[truth][verdict]``."""
    rows = []
    labels = results.truths[test].labels
    for name in results.conditions:
        cells = results.cells_of(detector, name)
        if results.is_seen(name, test) or not cells:
            continue
        count = np.sum([metrics.confusion(labels, c.scores[test], c.threshold) for c in cells], axis=0)
        rows.append(
            {
                "condition": name,
                "color": color_of(results, name),
                "cells": anchor(results, detector, name),
                "count": count.tolist(),
                "share": (count / count.sum(1, keepdims=True)).tolist(),
            }
        )
    return {"detector": detector, "test": test, "rows": rows}


def probes(audits: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Each of the audit's probes, and what it found by condition; those that fail come first, then those that warn."""
    names = dict.fromkeys(name for audit in audits.values() for name in audit.get("probes", {}))
    rows = [(name, [audit.get("probes", {}).get(name) for audit in audits.values()]) for name in names]

    def rank(row: list[dict[str, Any] | None]) -> int:
        found = {each["verdict"] for each in row if each}
        return next((k for k, verdict in enumerate(("fail", "warn")) if verdict in found), 2)

    return sorted(rows, key=lambda each: rank(each[1]))


def published(results: Results) -> dict[str, Any]:
    """Published figures, and one's own of the same kind on tests of the same names, by figure."""
    rows = results.experiment.get("published") or []
    found = []
    for key in dict.fromkeys(row["figure"] for row in rows):
        chosen = [row for row in rows if row["figure"] == key]
        tests = list(dict.fromkeys(row["test"] for row in chosen))
        sources = list(dict.fromkeys(row["source"] for row in chosen))
        lines = []
        for method, source in dict.fromkeys((row["method"], row["source"]) for row in chosen):
            values = {r["test"]: r["value"] for r in chosen if (r["method"], r["source"]) == (method, source)}
            lines.append((method, sources.index(source) + 1, [values.get(test) for test in tests]))
        own = [
            {"detector": d, "condition": c, "cells": anchor(results, d, c), "values": mine}
            for d in results.detectors
            for c in results.conditions
            if key in FIGURES and results.seeds(d, c)
            if any(mine := [results.value(d, c, t, key) if t in results.plain else None for t in tests])
        ]
        title = FIGURES[key].title if key in FIGURES else key
        found.append({"title": title, "tests": tests, "rows": lines, "own": own, "sources": sources})
    return {"tables": found}


def cost(results: Results) -> dict[str, Any]:
    """Wall time of each stage, of all cells by detector and condition, longest bar 100; and energy where measured."""
    rows = [(name, float(seconds)) for name, seconds in results.experiment["seconds"].items()]
    by_key = {cell.key: cell for cell in results.cells}  # conditions with the same data share a cell
    for detector in results.detectors:
        mine = [cell for cell in by_key.values() if cell.detector == detector]
        done = "tested" if detector in results.given else "trained"
        rows.append((f"{len(mine)} × {detector} {done}", sum(c.card["seconds"] for c in mine)))
    joules = [cell.card.get("energy") for cell in by_key.values()]
    measured = [float(j) for j in joules if j is not None]
    longest = max((seconds for _, seconds in rows), default=0.0) or 1.0
    return {
        "rows": [(n, s, round(100 * s / longest, 1)) for n, s in rows],
        "total": sum(s for _, s in rows),
        "energy": f"{sum(measured) / 3600:,.1f} Wh for {len(measured)} of {len(joules)} cells (processor packages)"
        if measured
        else "",
    }


def groups(results: Results) -> list[dict[str, Any]]:
    """Where the numbers of each detector and condition come from."""
    place = quote(os.path.relpath(results.store, results.folder))
    return [
        {
            "id": anchor(results, detector, condition),
            "detector": detector,
            "condition": condition,
            "cells": [
                {
                    **cell.card,
                    "seed": cell.seed,
                    "key": cell.key,
                    "link": f"{place}/{cell.key}/cell.json",
                    "scores": [
                        (name, f"{place}/{cell.key}/{scores_name(test)}")
                        for name, test in results.tests.items()
                        if not test["perturbation"]
                    ],
                }
                for cell in cells
            ],
        }
        for detector in results.detectors
        for condition in results.conditions
        if (cells := results.cells_of(detector, condition))
    ]


def _mistakes(results: Results) -> tuple[list[mistakes.WorstMistakes], str]:
    try:
        return mistakes.sheets(results), ""
    except (UserError, OSError, IndexError) as error:
        return [], f"Not shown: {error}."


def environment_text(folder: Path) -> str:
    """YAML of the machine and packages that an experiment's folder names, without the command."""
    file = folder / "environment.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    facts.pop("command", None)
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
