"""The end of a search: training with the default and with the best settings, and how they compare on validation."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation import metrics
from crossfake.detect.training.data import TrainingData, Validation
from crossfake.detect.training.loop import train
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.reopening import sampler_of
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed
from crossfake.detect.tuning.trials import Plan, as_text
from crossfake.progress import tqdm
from crossfake.runs import Run

OPTIMISTIC = "optimistic: these settings were chosen on the same validation images"
_CHUNK = 2_000_000  # weights held at a time: 16 MB an array


def finish(
    plan: Plan, final: TrainSettings, trial: dict[str, Any], data: TrainingData, resamples: int
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
            as_text(kept.get(name)) == as_text(now[name]) for name in now if name not in ("out", "resume")
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
    number = np.unique(groups, return_inverse=True)[1]
    counts = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[dict[str, Any]]] = {"default": [], "tuned": []}
    most = max(1, _CHUNK // len(labels))
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size)[:, number] * counts
        for name, scores in (("default", default), ("tuned", tuned)):
            drawn[name].append(metrics.weighted(labels, scores, weights))
    result: dict[str, Any] = {"default": {}, "tuned": {}, "difference": {}, "note": OPTIMISTIC}
    for figure in ("ap", "auc"):
        exact = {
            name: metrics.summary(labels, scores, sample_weight=counts)[figure]
            for name, scores in (("default", default), ("tuned", tuned))
        }
        again = {name: np.concatenate([part[figure] for part in drawn[name]]) for name in drawn}
        exact["difference"] = exact["tuned"] - exact["default"]
        again["difference"] = again["tuned"] - again["default"]
        for name, values in again.items():
            low, high = np.nanquantile(values, [0.025, 0.975])
            result[name][figure] = {"value": float(exact[name]), "low": float(low), "high": float(high)}
    return result
