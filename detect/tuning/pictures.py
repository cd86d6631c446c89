"""A search in Optuna's pictures: how it went, which settings mattered, and which values went together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from crossfake.errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.importance import FanovaImportanceEvaluator

_AP = "validation AP"


def draw_study(
    study: Study, trials: Sequence[Mapping[str, Any]], out: Path, fanova: FanovaImportanceEvaluator | None
) -> None:
    """Write ``history.png``, ``parallel.png`` and, with an evaluator, ``importance.png``.

    Args:
        study: with at least one completed trial.
        trials: what ``study.json`` says of each; Optuna's history leaves out the pruned and the failed.
        out: an existing folder.
        fanova: tells how much each setting mattered.

    Raises:
        UserError: a file cannot be written.
    """
    from optuna.visualization import matplotlib as plots

    with warnings.catch_warnings(), plt.style.context("default"):
        warnings.simplefilter("ignore")  # its plots are experimental, and warn of a setting with one value
        axes: Any = plots.plot_parallel_coordinate(study, target_name=_AP)
        axes.figure.set_size_inches(3 + 1.7 * len(study.best_params), 4.8)
        lines = axes.collections[0]
        reached = np.asarray(lines.get_array())
        lines.set(cmap="cividis_r", linewidth=np.where(reached == reached.max(), 3.0, 1.2))
        _save(axes, out / "parallel.png")
        # From here on Optuna draws in another style, which hides lines under a grid
        axes = plots.plot_optimization_history(study, target_name=_AP)
        pruned = {
            t["number"]: t["value"] for t in trials if t["state"] == "pruned" and t["value"] is not None
        }
        failed = [t["number"] for t in trials if t["state"] == "failed"]
        if pruned:
            axes.scatter(
                list(pruned), list(pruned.values()), marker="x", color="0.4", label="pruned (last AP)"
            )
        if failed:
            axes.scatter(failed, [axes.get_ylim()[0]] * len(failed), marker="v", color="k", label="failed")
        axes.legend()
        axes.locator_params(axis="x", integer=True)
        _save(axes, out / "history.png")
        if fanova is not None:
            axes = plots.plot_param_importances(study, fanova, target_name=f"{_AP} (fANOVA)")
            _save(axes, out / "importance.png")


def _save(axes: Any, path: Path) -> None:
    try:
        axes.figure.savefig(path, dpi=150, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --out") from error
    finally:
        plt.close(axes.figure)
