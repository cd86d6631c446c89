"""ROC curves and the confusion matrix as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from crossfake.errors import UserError

# Okabe and Ito's palette: told apart with any colour vision
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def roc_picture(curves: dict[str, tuple[Any, Any, float]], path: Path) -> None:
    """One curve per entry: name to (false alarm rate, hit rate, AUC)."""
    figure, axes = plt.subplots(figsize=(4.8, 4.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1, linestyle=":")
    for number, (name, (alarms, hits, area)) in enumerate(curves.items()):
        axes.plot(
            alarms, hits, color=_COLORS[number % len(_COLORS)], linewidth=1.8, label=f"{name}: AUC {area:.3f}"
        )
    axes.set(
        xlabel="false alarm rate (reals called fake)", ylabel="hit rate (fakes called fake)", aspect="equal"
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def confusion_picture(matrix: list[list[int]], threshold: float, path: Path) -> None:
    """Counts, and shares of each true class as shade."""
    figure, axes = plt.subplots(figsize=(3.8, 3.4), layout="constrained")
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            text = f"{matrix[row][column]:,}\n{shares[row][column]:.1%}"
            shade = "white" if shares[row][column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=12)
    axes.set_xticks([0, 1], ["called real", "called fake"])
    axes.set_yticks([0, 1], ["real", "fake"])
    axes.set_title(f"threshold {threshold:.3f}", fontsize=10)
    axes.tick_params(length=0)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", mend="name another --out") from error
    finally:
        plt.close(figure)
