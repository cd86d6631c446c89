"""What the charts of an experiment show; the page and the figures draw the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossfake.charts import Panel, Series, nice_ticks
from crossfake.experiments.report.comparing import Difference, Finding
from crossfake.experiments.report.results import FIGURES, PRIMARY, Results
from crossfake.stats import ranking
from crossfake.stats.intervals import Estimate

LINES = 8  # in one chart, as many as colours can be told apart
_GRID = np.concatenate(
    [[0, 0], np.linspace(0, 1, 101)[1:]]
)  # 0 twice: an ROC curve may leave the axis straight up


@dataclass(frozen=True)
class Heat:
    """Conditions down, tests across: the figure of each pair, which were trained on, and means without those."""

    detector: str
    key: str
    conditions: tuple[str, ...]
    tests: tuple[str, ...]
    values: tuple[tuple[Estimate | None, ...], ...]
    seen: tuple[tuple[bool, ...], ...]
    means: tuple[Estimate | None, ...]
    best: tuple[frozenset[int], ...] = field(default=())

    @property
    def title(self) -> str:
        """Name of the figure."""
        return FIGURES[self.key].title


def color_of(results: Results, condition: str) -> int:
    """Number of a condition's colour, the same in every chart."""
    return list(results.conditions).index(condition) % LINES


def heat(results: Results, detector: str, key: str = PRIMARY) -> Heat:
    """The matrix of one detector on pictures as they are; ``best`` holds, per column, the rows that are best as printed
    among those that had not seen it."""
    conditions, tests = tuple(results.conditions_of(detector)), tuple(results.plain)
    values = tuple(tuple(results.value(detector, c, t, key) for t in tests) for c in conditions)
    seen = tuple(tuple(results.is_seen(c, t) for t in tests) for c in conditions)
    means = tuple(results.mean(detector, c, key=key) for c in conditions)
    columns = [[None if s[k] else v[k] for v, s in zip(values, seen, strict=True)] for k in range(len(tests))]
    # means over different tests are no race
    same = len({tuple(results.asked_unseen(c)) for c in conditions}) == 1
    columns.append(list(means) if same else [None] * len(conditions))
    return Heat(
        detector, key, conditions, tests, values, seen, means, tuple(best(column, key) for column in columns)
    )


def best(column: Sequence[Estimate | None], key: str) -> frozenset[int]:
    """Rows whose value is best as printed, to three digits; none where all are alike.

    Example:
        >>> best([Estimate(0.9001, 0, 1, 3), None, Estimate(0.8, 0, 1, 3)], "auc")
        frozenset({0})
    """
    printed = {k: round(value.mean, 3) for k, value in enumerate(column) if value}
    if len(set(printed.values())) < 2:
        return frozenset()
    top = (max if FIGURES[key].higher_is_better else min)(printed.values())
    return frozenset(k for k, value in printed.items() if value == top)


def forest_rows(found: Sequence[Finding], most: int) -> list[tuple[str, Difference]]:
    """Labels and differences: single rows and means; where those are too many means by detector, or means alone."""
    alone = len(found) == 1
    levels = (
        [
            [*a.rows, *(a.by_detector if len(a.by_detector) > 1 and len(a.tests) > 1 else ()), a.overall]
            for a in found
        ],
        [[*(a.by_detector if len(a.by_detector) > 1 else ()), a.overall] for a in found],
        [[a.overall] for a in found],
    )
    chosen = next((level for level in levels if sum(map(len, level)) <= most), levels[-1])
    return [(_label(each, alone), each) for rows in chosen for each in rows][:most]


def _label(each: Difference, alone: bool) -> str:
    if not each.detector:
        return "mean" if alone else each.contrast
    return f"{each.detector}, {each.test or 'mean'}"


OVER_AXIS = (PRIMARY, "ap")  # the figures that are drawn over the conditions' axis


def axis_panels(results: Results, key: str = PRIMARY) -> list[Panel]:
    """Dose-response, or whatever the conditions' axis is: a figure's mean over unseen tests, and each test thin."""
    axis = results.experiment["axis"]
    placed = sorted((c["x"], name) for name, c in results.conditions.items() if c["x"] is not None)
    if not axis or len(placed) < 2:
        return []
    xs = [x for x, _ in placed]
    # doses from 0 to many thousands would crowd at the left: then the steps are drawn evenly, and named
    even = len(xs) > 2 and min(xs) >= 0 and max(np.diff(xs)) > 3 * min(np.diff(xs))
    at = {x: float(k) if even else x for k, x in enumerate(xs)}
    shared = results.unseen(*(name for _, name in placed))
    panels = []
    for detector in results.detectors:
        kept = [(at[x], name) for x, name in placed if results.seeds(detector, name)]
        means = [(x, results.mean(detector, name, shared or None, key)) for x, name in kept]
        lines = [_band("mean", [(x, value) for x, value in means if value], color=1)]
        if 1 < len(shared) < LINES:
            for k, test in enumerate(shared):
                points = [(x, v) for x, name in kept if (v := results.value(detector, name, test, key))]
                lines.append(Series(test, *_xy(points), color=(2, 3, 4, 5, 6, 7, 0)[k]))
        if not lines[0].x:
            continue
        what = f"mean over {len(shared)} unseen tests" if shared else "each on the tests that it has not seen"
        panels.append(
            Panel(
                f"{axis['name'][:1].upper()}{axis['name'][1:]}",
                detector,
                ", ".join(part for part in (axis["name"], axis["unit"]) if part),
                f"{FIGURES[key].title}, unseen generators",
                tuple(lines),
                tuple((at[x], f"{x:,.0f}" if axis["unit"] == "images" else f"{x:.4g}") for x in xs)
                if len(xs) < 9
                else nice_ticks(min(at.values()), max(at.values())),
                ((min(at.values()), max(at.values())), _y_limits(lines)),
                f"Band: 95% interval of the {what}." + (" Steps are drawn evenly." if even else ""),
            )
        )
    return panels


def robustness_panels(results: Results) -> list[Panel]:
    """Per perturbation and detector: AUC over its strengths, mildest first, all conditions in one chart.

    Each point is the mean over the tests that were perturbed so, of generators that no condition has seen, or in charts
    of their own, that all have.
    """
    by_name: dict[str, dict[float, list[str]]] = {}
    for name, test in results.tests.items():
        if test["perturbation"]:
            kind, strength = test["perturbation"]["name"], float(test["perturbation"]["strength"])
            by_name.setdefault(kind, {}).setdefault(strength, []).append(name)
    return [
        panel
        for bases, who in (
            (results.unseen(*results.trained), "unseen"),
            (results.seen(*results.trained), "known"),
        )
        for kind, strengths in by_name.items()
        for panel in _perturbed(results, kind, strengths, frozenset(bases), who)
    ]


def _perturbed(
    results: Results, kind: str, strengths: dict[float, list[str]], wanted: frozenset[str], who: str
) -> Iterator[Panel]:
    groups = [[t for t in names if results.tests[t]["base"] in wanted] for names in strengths.values()]
    shared = set.intersection(*({results.tests[t]["base"] for t in group} for group in groups))
    if not shared:
        return
    clean = sorted(shared, key=results.plain.index)
    steps = [clean, *([t for t in group if results.tests[t]["base"] in shared] for group in groups)]
    labels = ["none", *(f"{strength:g}" for strength in strengths)]
    for detector in results.detectors:
        lines = []
        for condition in results.conditions_of(detector)[:LINES]:
            points = [
                (float(k), value)
                for k, tests in enumerate(steps)
                if (value := results.mean(detector, condition, tests))
            ]
            if points:
                lines.append(_band(condition, points, color_of(results, condition)))
        if lines:
            some = "" if detector in results.given else f" {who}"
            over = clean[0] if len(clean) == 1 else f"mean over {len(clean)}{some} tests"
            yield Panel(
                kind,
                detector,
                described(kind),
                "AUC" if detector in results.given else f"AUC, {who} generators",
                tuple(lines),
                tuple((float(k), label) for k, label in enumerate(labels)),
                ((0.0, float(len(steps) - 1)), _y_limits(lines)),
                f"{over}; bands: 95% intervals.",
            )


def described(perturbation: str) -> str:
    """Axis text of a perturbation; its name where this version does not know it."""
    from crossfake.errors import UserError
    from crossfake.experiments.design import perturbations

    try:
        return str(perturbations.describe(perturbation))
    except (UserError, KeyError):
        return perturbation


def roc_panels(results: Results) -> list[Panel]:
    """Per unseen generator and detector: every condition that has not seen it, mean over seeds, and each seed thin.

    Of many conditions the best and the worst are drawn.
    """
    panels = []
    for test in results.asked:
        labels = results.truths[test].labels
        for detector in results.detectors:
            able = [
                c for c in results.conditions if not results.is_seen(c, test) and results.seeds(detector, c)
            ]
            ranked = sorted(able, key=lambda c: -_mean(results, detector, c, test))
            if len(ranked) > LINES:
                ranked = [*ranked[: LINES // 2], *ranked[-LINES // 2 :]]
            lines = []
            for condition in (c for c in able if c in ranked):
                curves = []
                for cell in results.cells_of(detector, condition):
                    fpr, tpr, _ = ranking.roc_curve(labels, cell.scores[test])
                    curve = np.interp(_GRID, fpr, tpr)
                    curve[0], curve[1] = 0, tpr[fpr == 0].max()
                    curves.append(tuple(map(float, curve)))
                middle = tuple(map(float, np.mean(curves, axis=0)))
                name = f"{condition}: {_mean(results, detector, condition, test):.3f}"
                lines.append(
                    Series(
                        name,
                        tuple(map(float, _GRID)),
                        middle,
                        thin=tuple(curves) if len(ranked) < 3 else (),
                        color=color_of(results, condition),
                        dots=False,
                    )
                )
            if lines:
                rates = ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
                panels.append(
                    Panel(
                        test,
                        detector,
                        "false alarms: reals called fake",
                        "hits: fakes called fake",
                        tuple(lines),
                        rates,
                        ((0.0, 1.0), (0.0, 1.0)),
                        square=True,
                    )
                )
    return panels


def _mean(results: Results, detector: str, condition: str, test: str) -> float:
    found = results.measured(detector, condition, [test])
    return float(found.per_seed.mean()) if found else 0.0


def _band(name: str, points: Sequence[tuple[float, Estimate]], color: int) -> Series:
    lows, highs = (tuple(getattr(value, side) for _, value in points) for side in ("low", "high"))
    return Series(name, *_xy(points), lows, highs, color=color)


def _xy(points: Sequence[tuple[float, Estimate]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in points), tuple(value.mean for _, value in points)


def _y_limits(lines: Sequence[Series]) -> tuple[float, float]:
    """Round numbers below and above all that is drawn, within 0 and 1, never so near that noise looms large."""
    low = min(min((*line.y, *line.low)) for line in lines)
    high = max(max((*line.y, *line.high)) for line in lines)
    if high - low < 0.1:
        low, high = (low + high) / 2 - 0.05, (low + high) / 2 + 0.05
    return max(0.0, float(np.floor(low * 20) / 20)), min(1.0, float(np.ceil(high * 20) / 20))
