"""Figures for a paper: PNG, PDF and SVG, legible at the width of a column, told apart with any colour vision."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crossfake.charts import Panel
from crossfake.experiments.report.charts import (
    OVER_AXIS,
    Heat,
    axis_panels,
    forest_rows,
    heat,
    robustness_panels,
    roc_panels,
)
from crossfake.experiments.report.comparing import Finding
from crossfake.experiments.report.results import FIGURES, PRIMARY, Results

FORMATS = ("png", "pdf", "svg")
_COLUMN, _PAGE = 3.5, 7.2  # inches: one and two columns of most journals
# Okabe and Ito's palette, in the page's order; dashes and markers help where colours do not
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_DASHES: tuple[Any, ...] = (
    "--",
    "-",
    "-.",
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    ":",
)
_MARKERS = "osD^vPX*"
_STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
    "lines.linewidth": 1.4, "lines.markersize": 3.5, "legend.frameon": False, "savefig.dpi": 300,
    "font.family": "DejaVu Sans", "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "crossfake",
}  # a table  # fmt: skip
_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # same results, same bytes
_ROWS = 40  # of a forest; more are no figure but a table
_PANELS = 12  # of one picture
_LABEL = 34  # letters below a chart that is a third of a page wide


def write_figures(results: Results, found: Sequence[Finding]) -> list[str]:
    """Draw all figures that the experiment gives into ``figures/``; returns their names without ending."""
    folder = results.folder / "figures"
    folder.mkdir(exist_ok=True)
    drawn: dict[str, Any] = {}
    with matplotlib.rc_context(_STYLE):
        for detector in results.detectors:
            if len(results.conditions_of(detector)) > 2:
                drawn[f"heatmap-{_slug(detector)}"] = heat_map(heat(results, detector))
        if found:
            drawn["forest"] = forest(found)
        curves = {
            **{"axis" if key == PRIMARY else f"axis-{key}": axis_panels(results, key) for key in OVER_AXIS},
            "robustness": robustness_panels(results),
            "roc": roc_panels(results),
        }
        for name, panels in curves.items():
            if name.startswith("axis") and panels:
                name = name.replace("axis", _slug(panels[0].title))
            for part in range(0, len(panels), _PANELS):
                number = f"-{part // _PANELS + 1}" if len(panels) > _PANELS else ""
                drawn[f"{name}{number}"] = curve_chart(panels[part : part + _PANELS])
        for name, figure in drawn.items():
            save(figure, folder / name)
    return list(drawn)


def save(figure: Any, path: Path) -> None:
    """Write a figure beside ``path`` in every format, the same bytes each time."""
    for ending in FORMATS:
        figure.savefig(f"{path}.{ending}", metadata=_UNDATED[ending])


def heat_map(found: Heat) -> Any:
    """Conditions against tests; trained-on pairs are hatched and in no mean."""
    rows, columns = len(found.conditions), len(found.tests) + 1
    means = np.array([[v.mean if v else np.nan for v in row] for row in found.values])
    mean_unseen = np.array([[v.mean if v else np.nan] for v in found.means])
    grid = np.concatenate([means, mean_unseen], axis=1)
    size = (max(_COLUMN, 1.5 + 0.52 * columns), 1.3 + 0.34 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    low = 0.5 if FIGURES[found.key].higher_is_better else 0.0
    trained_on = np.column_stack([np.array(found.seen), np.zeros(rows, bool)])
    axes.set_facecolor("0.92")
    shade: dict[str, Any] = {"cmap": "cividis", "vmin": low, "vmax": low + 0.5}
    mesh = axes.pcolormesh(np.ma.masked_where(trained_on, grid), **shade, edgecolors="white", linewidth=0.8)
    for row in range(rows):
        for column in range(columns):
            if np.isnan(grid[row, column]):
                continue
            seen = trained_on[row, column]
            bold = row in found.best[column]
            light = seen or grid[row, column] > low + 0.3
            text = f"{grid[row, column]:.2f}".removeprefix("0") if grid[row, column] < 0.995 else "1.0"
            axes.text(
                column + 0.5,
                row + 0.5,
                f"({text})" if seen else text,
                ha="center",
                va="center",
                color="black" if light else "white",
                fontweight="bold" if bold else None,
                fontsize=7,
            )
            if seen:
                axes.add_patch(
                    Rectangle(
                        (column, row), 1, 1, fill=False, hatch="////", linewidth=0, edgecolor="0.5", alpha=0.5
                    )
                )
    axes.axvline(columns - 1, color="white", linewidth=4)
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(np.arange(columns) + 0.5, [*found.tests, "mean, unseen"], **slanted)
    axes.set_yticks(np.arange(rows) + 0.5, found.conditions)
    axes.set(xlabel="tested on", ylabel="trained on", title=found.detector)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(mesh, ax=axes, label=found.title, aspect=14, shrink=0.9)
    return figure


def forest(found: Sequence[Finding]) -> Any:
    """Every contrast's mean with its interval, above it the rows that it is the mean of, where they fit."""
    rows = forest_rows(found, _ROWS)
    figure = Figure(figsize=(_COLUMN + 1.2, 0.7 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, each) in enumerate(rows):
        e, mean = each.estimate, not each.test
        color = {"better": COLORS[1], "worse": COLORS[0]}.get(each.verdict, "0.45")
        axes.plot([e.low, e.high], [place, place], color=color, linewidth=2.2 if mean else 1.2)
        axes.plot(e.mean, place, "D" if mean else "o", color=color, markersize=5 if mean else 3.5)
        axes.annotate(
            each.mark, (e.high, place), xytext=(3, -1), textcoords="offset points", va="center", color=color
        )
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    for text, (_, each) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if each.test else "bold")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("difference in AUC, 95% interval")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def curve_chart(panels: Sequence[Panel]) -> Any:
    """Charts side by side with one legend each."""
    across = min(len(panels), 2 if len(panels) < 5 else 3)
    down = -(-len(panels) // across)
    width = _COLUMN if across == 1 else _PAGE
    height = width / across * (1.0 if panels[0].square else 0.85)
    figure = Figure(figsize=(width, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        if panel.square:
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
            axes.set_aspect("equal")
        for line in panel.series:
            color = COLORS[line.color]
            style = {"color": color, "linestyle": _DASHES[line.color]}
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.16, linewidth=0)
            for curve in line.thin:
                axes.plot(line.x, curve, color=color, linewidth=0.5, alpha=0.45)
            main = not panel.series[0].low or bool(line.low)
            axes.plot(
                line.x,
                line.y,
                label=line.name,
                marker=_MARKERS[line.color] if line.dots else None,
                alpha=1 if main else 0.75,
                zorder=3 if main else 2,
                **style,
                **({} if main else {"linewidth": 0.8, "markersize": 2.2}),
            )
        axes.set_title(f"{panel.title}: {panel.about}")
        axes.set(xlabel=textwrap.fill(panel.xlabel, _LABEL), ylabel=panel.ylabel, ylim=panel.limits[1])
        axes.set_xticks([x for x, _ in panel.ticks], [label for _, label in panel.ticks])
        margin = 0.0 if panel.square else 0.03 * (panel.limits[0][1] - panel.limits[0][0])
        axes.set_xlim(panel.limits[0][0] - margin, panel.limits[0][1] + margin)
        axes.legend(loc="lower right" if panel.square else "best", handlelength=2.6)
    return figure


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")
