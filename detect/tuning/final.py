"""The end of a search: training with the default and with the best settings, and how they compare on validation."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import Pixels
from crossfake.detect import bundle, metrics
from crossfake.detect.training import TrainSettings, train
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.recipes import RECIPES
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
        if not _trained(wanted):
            return None
    images, labels, groups, _ = held_out(final, data)
    scores = {}
    for name, wanted in runs.items():
        detector = bundle.load(wanted.out, final.device)
        scores["tuned" if name == "best" else name] = detector.score(images)
    scores.setdefault("default", scores["tuned"])
    return compare(labels, groups, scores["default"], scores["tuned"], resamples, anew.seed)


def _trained(settings: TrainSettings) -> bool:
    """Train, go on with, or keep what was trained with just these settings; returns whether it is finished."""
    run = Run(settings.out)
    if run.config_file.is_file():
        kept, now = run.config, asdict(settings)
        same = all(
            as_text(kept.get(name)) == as_text(now[name]) for name in now if name not in ("out", "resume")
        )
        if same and run.finished:
            return True
        if same and any(run.checkpoints.iterdir()):
            return Run(train(dataclasses.replace(settings, resume=True))).finished
        shutil.rmtree(run.path)
    return Run(train(settings)).finished


def held_out(
    settings: TrainSettings, data: TrainingData
) -> tuple[Pixels, npt.NDArray[np.int64], npt.NDArray[Any], str]:
    """The images that a training validates on, with their labels and groups, and their hash."""
    kind = RECIPES.get(settings.recipe)
    recipe = kind(settings.augment, data.size, data.crop) if kind.reals_only else None
    images, labels, digest = data.validation(recipe=recipe)
    groups: list[npt.NDArray[Any]] = []
    for pool, _, rows in data.validation_rows(made=recipe is not None):
        group, origin = (pool.shards.columns[name][rows] for name in ("group", "origin"))
        groups.append(np.where(group == "", origin, group))
    names = np.concatenate(groups)
    if len(names) < len(labels):  # fakes made of the reals, one of each
        names = np.concatenate([names, names])
    return images, labels, names, digest


def compare(
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[Any],
    default: npt.NDArray[np.float64],
    tuned: npt.NDArray[np.float64],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """AP and AUC of both detectors and their difference, with 95% percentile intervals over the same resamples.

    Args:
        labels, groups: ``[N]``; groups are resampled, not images.
        default, tuned: scores ``[N]``, higher is more likely fake.

    Returns:
        ``default``, ``tuned`` and ``difference``, each ``{figure: {"value", "low", "high"}}``, and ``note``.
    """
    number = np.unique(groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[dict[str, Any]]] = {"default": [], "tuned": []}
    most = max(1, _CHUNK // len(labels))
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size)[:, number]
        for name, scores in (("default", default), ("tuned", tuned)):
            drawn[name].append(metrics.weighted(labels, scores, weights))
    result: dict[str, Any] = {"default": {}, "tuned": {}, "difference": {}, "note": OPTIMISTIC}
    for figure in ("ap", "auc"):
        exact = {n: metrics.summary(labels, s)[figure] for n, s in (("default", default), ("tuned", tuned))}
        again = {name: np.concatenate([part[figure] for part in drawn[name]]) for name in drawn}
        exact["difference"] = exact["tuned"] - exact["default"]
        again["difference"] = again["tuned"] - again["default"]
        for name, values in again.items():
            low, high = np.nanquantile(values, [0.025, 0.975])
            result[name][figure] = {"value": float(exact[name]), "low": float(low), "high": float(high)}
    return result
