"""ROC, precision-recall, DET, calibration and confusion as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from crossfake.detect.evaluation import metrics
from crossfake.errors import UserError
from crossfake.stats import ranking
from crossfake.stats.intervals import wilson

Parts = Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]  # name to labels and scores

# Okabe and Ito's palette: told apart with any colour vision; dashes help where colours do not
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", "-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_REAL, _FAKE = "#0072B2", "#D55E00"
_LETTER, _HANDLE = (
    4.6,
    36.0,
)  # points that a letter of a legend takes, and a line with the gap before the next
_PERCENT = (0.1, 1, 5, 10, 20, 40, 60, 80, 90, 95, 99, 99.9)  # ticks of normal deviates


def hardest(parts: Parts) -> tuple[Parts, int]:
    """The parts that fit one picture: the first, and those with the lowest AUC; and how many were left out."""
    first, *others = parts
    ranked = sorted(others, key=lambda name: ranking.auc(*parts[name]))
    shown = {first, *ranked[: len(_COLORS) - 1]}
    return {name: part for name, part in parts.items() if name in shown}, len(parts) - len(shown)


def roc_picture(parts: Parts, path: Path, intervals: Mapping[str, tuple[float, float]] | None = None) -> None:
    """One curve per part, and beside it the same over few false alarms, on a logarithmic axis.

    Args:
        parts: name to labels and scores, each with both classes; the first is drawn strongest.
        path: the PNG.
        intervals: of the first part's figures; those of :data:`ranking.RATES` are drawn as bars.
    """
    apart = ConstrainedLayoutEngine(wspace=0.06)  # the last tick of one and the first of the other
    figure = Figure(figsize=(9.6, 5.2), layout=apart)
    whole, low = figure.subplots(1, 2, sharey=True)
    parts, left_out = hardest(parts)
    reals = max(int((labels == 0).sum()) for labels, _ in parts.values())
    floor = 10.0 ** np.floor(np.log10(1 / max(10, reals)))
    chance = np.geomspace(floor, 1, 200)
    whole.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    low.plot(chance, chance, color="0.7", linewidth=1, linestyle=":")
    for number, (name, (labels, scores)) in enumerate(parts.items()):
        alarms, hits, _ = ranking.roc_curve(labels, scores)
        label = f"{_short(name)}, n = {int(labels.sum()):,}: AUC {ranking.auc(labels, scores):.3f}"
        whole.plot(alarms, hits, label=label, **_style(number))
        # a step per false alarm: between two there is no threshold, and a sloping line would promise one
        low.plot(np.maximum(alarms, floor), hits, drawstyle="steps-post", **_style(number))
    for figure_name, rate in ranking.RATES.items():
        if rate <= floor:
            continue
        low.axvline(rate, color="0.8", linewidth=1, zorder=0)
        if intervals and figure_name in intervals:
            low.plot([rate, rate], intervals[figure_name], color="black", linewidth=4, alpha=0.35)
    whole.set(xlabel="false alarm rate (reals called fake)", ylabel="hit rate (fakes called fake)")
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=f"ROC against {reals:,} reals")
    low.set(xscale="log", xlim=(floor, 1), xlabel="false alarm rate, logarithmic")
    low.set_title("the same, where false alarms are few")
    _legend(figure, whole, left_out)
    _save(figure, path)


def pr_picture(parts: Parts, path: Path) -> None:
    """Precision over recall, as steps, with what chance would give as dots."""
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    axes = figure.subplots()
    parts, left_out = hardest(parts)
    for number, (name, (labels, scores)) in enumerate(parts.items()):
        precision, recall = ranking.precision_recall_curve(labels, scores)
        label = (
            f"{_short(name)}, n = {int(labels.sum()):,}: AP {ranking.average_precision(labels, scores):.3f}"
        )
        x, y = np.concatenate([[0], recall]), np.concatenate([precision[:1], precision])
        axes.plot(x, y, label=label, drawstyle="steps-pre", **_style(number))
        axes.axhline(labels.mean(), color=_COLORS[number], linewidth=0.8, linestyle=":")
    reals = max(int((labels == 0).sum()) for labels, _ in parts.values())
    axes.set(xlabel="recall (fakes found)", ylabel="precision (fakes among those called fake)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=f"Precision and recall beside {reals:,} reals")
    _legend(figure, axes, left_out, "dotted: chance")
    _save(figure, path)


def det_picture(parts: Parts, path: Path) -> None:
    """Misses over false alarms on axes of normal deviates (Martin et al. 1997): normal scores give straight lines."""
    from scipy.stats import norm

    figure = Figure(figsize=(5.6, 6.1), layout="constrained")
    axes = figure.subplots()
    parts, left_out = hardest(parts)
    lowest = 0.5
    for number, (name, (labels, scores)) in enumerate(parts.items()):
        alarms, hits, _ = ranking.roc_curve(labels, scores)
        fakes = int(labels.sum())
        reals = len(labels) - fakes
        # rates that n images cannot tell from 0 or 1 have no place on this scale
        known = (alarms > 0) & (hits < 1) & (alarms < 1) & (hits > 0)
        label = f"{_short(name)}, n = {fakes:,}: EER {ranking.eer(labels, scores):.1%}"
        axes.plot(norm.ppf(alarms[known]), norm.ppf(1 - hits[known]), label=label, **_style(number))
        lowest = min(lowest, 0.5 / fakes, 0.5 / reals)
    low = max(lowest, 0.0005)
    ticks = [p for p in _PERCENT if low <= p / 100 <= 1 - low]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(np.array(ticks) / 100), [f"{p:g}" for p in ticks], fontsize=8)
    ends = norm.ppf([low, 1 - low])
    axes.plot(ends, ends, color="0.7", linewidth=1, linestyle=":")
    axes.plot(ends, -ends, color="0.7", linewidth=1, linestyle=":")
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="false alarms, %", ylabel="misses, %")
    axes.set_title("DET: dotted rising line, equal errors; falling, chance", fontsize=10)
    axes.grid(color="0.92", linewidth=0.8)
    _legend(figure, axes, left_out)
    _save(figure, path)


def calibration_picture(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], threshold: float, path: Path
) -> None:
    """Share of fakes over the probability that was given, with Wilson's 95% intervals, above a histogram of scores."""
    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    promised, came, count = metrics.reliability(labels, scores)
    low, high = wilson(came, count)
    figures = metrics.summary(labels, scores)
    above.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    above.errorbar(
        promised,
        came,
        yerr=[came - low, high - came],
        fmt="o-",
        color="black",
        markersize=5,
        linewidth=1.2,
        ecolor="0.55",
        elinewidth=1.2,
    )
    above.set(ylim=(-0.02, 1.02), ylabel="share of fakes")
    above.set_title(
        f"Calibration: ECE {figures['ece']:.3f}, Brier {figures['brier']:.3f}, n = {len(labels):,}",
        fontsize=11,
    )
    edges = np.linspace(0, 1, 31)
    for label, name, color in ((0, "reals", _REAL), (1, "fakes", _FAKE)):
        part = scores[labels == label]
        below.hist(part, edges, color=color, alpha=0.3, weights=np.full(len(part), 1 / max(1, len(part))))
        below.hist(
            part,
            edges,
            histtype="step",
            color=color,
            linewidth=1.5,
            linestyle="-" if label else "--",
            label=f"{name}, n = {len(part):,}",
            weights=np.full(len(part), 1 / max(1, len(part))),
        )
    above.axvline(threshold, color="0.4", linewidth=1)
    below.axvline(threshold, color="0.4", linewidth=1, label=f"threshold {threshold:.3f}")
    below.set(xlim=(-0.01, 1.01), xlabel="probability of fake", ylabel="share of class")
    _legend(figure, below)
    _save(figure, path)


def confusion_picture(matrix: list[list[int]], threshold: float, path: Path) -> None:
    """Counts, and shares of each true class as shade."""
    figure = Figure(figsize=(4.0, 3.6), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            text = f"{matrix[row][column]:,}\n{shares[row][column]:.1%}"
            shade = "white" if shares[row][column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=12)
    axes.set_xticks([0, 1], ["called real", "called fake"])
    axes.set_yticks([0, 1], [f"real\nn = {sum(matrix[0]):,}", f"fake\nn = {sum(matrix[1]):,}"])
    axes.set_title(f"threshold {threshold:.3f}", fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _COLORS[number],
        "linestyle": _DASHES[number],
        "linewidth": 2.2 if number == 0 else 1.5,
        "zorder": 3 if number == 0 else 2,
    }


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"


def _legend(figure: Any, axes: Any, left_out: int = 0, more: str = "") -> None:
    """Below the axes, where it hides no curve, in as many columns as the picture is wide."""
    said = [f"{left_out} easier ones not shown"] if left_out else []
    said += [more] if more else []
    handles, names = axes.get_legend_handles_labels()
    room = int(72 * figure.get_figwidth() / (_LETTER * max(map(len, names)) + _HANDLE))
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(max(1, room), len(names)),
        frameon=False,
        fontsize=8,
        title="; ".join(said) or None,
        title_fontsize=8,
    )


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(min(axes.title.get_fontsize(), 10.5))
    try:
        figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.08)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --out") from error
