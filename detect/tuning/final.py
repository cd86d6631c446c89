"""The end of a search: training with the default and with the best settings, and how they compare on validation."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.detect.bundle import bundle
from crossfake.detect.training.data import TrainingData, Validation
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.reopening import sampler_of
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.detect.training.weighing import Weighed
from crossfake.detect.tuning.trials import TrialPlan, as_text
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stats import ranking
from crossfake.stats.bootstrap import bootstrap
from crossfake.stats.intervals import percentile_interval

OPTIMISTIC = "optimistic: these settings were chosen on the same validation images"
FIGURES = ("ap", "auc")


def finish(
    plan: TrialPlan, final: TrainSettings, trial: dict[str, Any], data: TrainingData, resamples: int
) -> dict[str, Any] | None:
    """Train with the default and the best settings, on another seed than the trials; None when stopped."""
    anew = dataclasses.replace(final, seed=final.seed + 1)
    best = dataclasses.replace(anew, **plan.space.values(trial["params"]), out=plan.base.out / "best")
    default = dataclasses.replace(anew, out=plan.base.out / "default")
    same = plan.space.params(final) == trial["params"]
    runs = (
        {"best": best} if same else {"default": default, "best": best}
    )  # the newest finished run is the best
    for name, wanted in runs.items():
        tqdm.write(f"training with the {name} settings, seed {wanted.seed}")
        if not _trained(wanted, final):
            return None
    held, weighed = held_out(final, data)
    scores = {}
    for name, wanted in runs.items():
        detector = bundle.load(wanted.out, final.device)
        scores["tuned" if name == "best" else name] = detector.score(held.images)
    scores.setdefault("default", scores["tuned"])
    return compare(
        held.labels, held.groups, scores["default"], scores["tuned"], resamples, anew.seed, weighed.weights
    )


def _trained(settings: TrainSettings, weigh_as: TrainSettings) -> bool:
    """Train, go on with, or keep what was trained with just these settings; returns whether it is finished.

    The checkpoint is chosen by the figure that the trials were chosen by.
    """
    run = Run(settings.out)
    if run.config_file.is_file():
        kept, now = run.config, asdict(settings)
        same = all(
            as_text(kept.get(name)) == as_text(now[name])
            for name in now
            if name not in ("out", "resume", "threads")
        )
        if same and run.finished:
            return True
        if same and any(run.checkpoints.iterdir()):
            return Run(train(dataclasses.replace(settings, resume=True), weigh_as=weigh_as)).finished
        shutil.rmtree(run.path)
    return Run(train(settings, weigh_as=weigh_as)).finished


def held_out(settings: TrainSettings, data: TrainingData) -> tuple[Validation, Weighed]:
    """The images that a training validates on, each counting as much as in its batches."""
    kind = RECIPES.get(settings.recipe)
    recipe = kind(settings.augment, data.size, data.crop) if kind.reals_only else None
    held = data.validation(recipe=recipe)
    return held, Weighed.as_batches(held.kinds, sampler_of(data, settings))


def compare(
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[Any],
    default: npt.NDArray[np.float64],
    tuned: npt.NDArray[np.float64],
    resamples: int = 1000,
    seed: int = 0,
    sample_weight: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """AP and AUC of both detectors and their difference, with 95% percentile intervals over the same resamples.

    Args:
        labels, groups: ``[N]``; groups are resampled, not images.
        default, tuned: scores ``[N]``, higher is more likely fake.
        sample_weight: ``[N]``, how much each image counts; all alike when None.

    Returns:
        ``default``, ``tuned`` and ``difference``, each ``{figure: {"value", "low", "high"}}``, and ``note``.
    """
    counts = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    sides = {"default": default, "tuned": tuned}

    def both(weights: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
        of = {name: ranking.weighted(labels, scores, weights) for name, scores in sides.items()}
        return {f"{name} {figure}": found[figure] for name, found in of.items() for figure in FIGURES}

    draws = bootstrap(lambda times: both(times * counts), groups, resamples, seed)
    whole = both(counts[None])
    result: dict[str, Any] = {"default": {}, "tuned": {}, "difference": {}, "note": OPTIMISTIC}
    for figure in FIGURES:
        exact, again = (
            {name: found[f"{name} {figure}"] for name in sides}
            | {"difference": found[f"tuned {figure}"] - found[f"default {figure}"]}
            for found in (whole, draws)
        )
        for name, values in again.items():
            low, high = percentile_interval(values)
            result[name][figure] = {"value": float(exact[name][0]), "low": float(low), "high": float(high)}
    return result
