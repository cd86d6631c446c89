"""A search in pictures: how it went, which settings mattered, and which values went together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from crossfake.detect.tuning.space import Range, SearchSpace
from crossfake.errors import UserError

# Of Okabe and Ito's palette, and matplotlib's cividis: told apart with any colour vision
_BLUE, _RED = "#0072B2", "#D55E00"


def history_picture(trials: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Validation AP of each trial and the best so far; pruned trials where they ended, failed ones at the bottom."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    complete = [trial for trial in trials if trial["state"] == "complete"]
    pruned = [trial for trial in trials if trial["state"] == "pruned" and trial["value"] is not None]
    failed = [trial["number"] for trial in trials if trial["state"] == "failed"]
    numbers, values = [t["number"] for t in complete], [t["value"] for t in complete]
    axes.plot(
        numbers, np.maximum.accumulate(values), color=_BLUE, drawstyle="steps-post", label="best so far"
    )
    axes.scatter(numbers, values, s=26, color=_BLUE, alpha=0.7, label="complete")
    if pruned:
        axes.scatter([t["number"] for t in pruned], [t["value"] for t in pruned], s=26, marker="x",
                     color="0.5", label="pruned (last AP)")  # fmt: skip
    if failed:
        bottom = min([*values, *(t["value"] for t in pruned)])
        axes.scatter(failed, [bottom] * len(failed), s=36, marker="v", color=_RED, label="failed")
    axes.set(xlabel="trial", ylabel="validation AP")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=4)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def importance_picture(importance: Mapping[str, float], path: Path) -> None:
    """Share of the variation of validation AP that each setting explains."""
    figure, axes = plt.subplots(figsize=(6.0, 1.1 + 0.36 * len(importance)), layout="constrained")
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh(names, [importance[name] for name in names], color=_BLUE, height=0.65)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axes.set(xlabel="share of the variation of validation AP (fANOVA)", xlim=(0, 1.08))
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def parallel_picture(trials: Sequence[Mapping[str, Any]], space: SearchSpace, path: Path) -> None:
    """One line per completed trial through its settings to its validation AP; the best is drawn thick."""
    complete = sorted((t for t in trials if t["state"] == "complete"), key=lambda t: t["value"])
    values = np.array([trial["value"] for trial in complete])
    spread = max(float(np.ptp(values)), 1e-12)
    heights = [_heights(space, name, complete) for name in space.searched] + [(values - values[0]) / spread]
    figure, axes = plt.subplots(figsize=(1.8 + 1.5 * len(heights), 4.2), layout="constrained")
    columns = np.arange(len(heights))
    for number, line in enumerate(np.stack(heights, axis=1)):
        best = number == len(complete) - 1
        color = _RED if best else plt.get_cmap("cividis")(0.9 * line[-1])
        axes.plot(columns, line, color=color, linewidth=2.6 if best else 1.2, alpha=1 if best else 0.75)
    for column, name in enumerate(space.searched):
        axes.axvline(column, color="0.6", linewidth=0.8)
        for height, text in _ticks(space, name):
            axes.text(column + 0.03, height, text, fontsize=8, va="center", bbox=_UNDER)
    axes.axvline(columns[-1], color="0.6", linewidth=0.8)
    for height, value in ((0.0, values[0]), (1.0, values[-1])):
        axes.text(columns[-1] + 0.03, height, f"{value:.4f}", fontsize=8, va="center", bbox=_UNDER)
    axes.set_xticks(columns, [*space.searched, "validation AP"])
    axes.set(xlim=(-0.1, columns[-1] + 0.45), ylim=(-0.05, 1.05))
    axes.set_title(
        f"{len(complete)} completed trials, brighter is better; the best is drawn thick", fontsize=9
    )
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    _save(figure, path)


_UNDER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}


def _heights(space: SearchSpace, name: str, trials: Sequence[Mapping[str, Any]]) -> Any:
    part = space.searched[name]
    if isinstance(part, Range):
        scale = np.log if part.log else np.asarray
        found = scale(np.array([float(trial["params"][name]) for trial in trials]))
        low, high = float(scale(part.low)), float(scale(part.high))
        return (found - low) / (high - low)
    labels = part.grid()
    return np.array([labels.index(t["params"][name]) for t in trials]) / max(1, len(labels) - 1)


def _ticks(space: SearchSpace, name: str) -> list[tuple[float, str]]:
    part = space.searched[name]
    if isinstance(part, Range):
        return [(0.0, f"{part.low:g}"), (1.0, f"{part.high:g}")]
    labels = [str(label) for label in part.grid()]
    return [(number / max(1, len(labels) - 1), label[:24]) for number, label in enumerate(labels)]


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", mend="name another --out") from error
    finally:
        plt.close(figure)
