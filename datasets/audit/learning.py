"""How well a simple model tells two classes apart on pictures it has not seen, and how sure that figure is."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.stats.bootstrap import bootstrap
from crossfake.stats.intervals import percentile_interval
from crossfake.stats.ranking import auc, weighted_auc

Floats = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]

FOLDS = 5
LEAST_GROUPS = 8  # of each class: fewer say nothing, however well they are told apart
_RESAMPLES = 1000


@dataclass(frozen=True)
class Separation:
    """Area under the ROC curve of out-of-fold scores with its 95% interval.

    Attributes:
        auc: 0.5 is guessing. A little below 0.5 is what noise gives, never a finding.
        low: lower end of the interval.
        high: upper end.
        n: pictures.
        groups: of reals and of fakes.
    """

    auc: float
    low: float
    high: float
    n: int
    groups: tuple[int, int]


def folds(labels: Labels, groups: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """A fold for every row, at most five, so that no group is in two and both classes are in each where possible.

    Returns:
        int64 ``[N]``; all zero when a class has fewer than two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    parts = min(FOLDS, *(len(np.unique(groups[labels == label])) for label in (0, 1)))
    fold = np.zeros(len(labels), np.int64)
    if parts < 2:
        return fold
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # a class with few rows is said so by the verdict
        for number, (_, held_out) in enumerate(splitter.split(np.zeros((len(labels), 1)), labels, groups)):
            fold[held_out] = number
    return fold


def separation(
    values: Floats,
    labels: Labels,
    groups: npt.NDArray[Any],
    fold: npt.NDArray[np.int64],
    linear: bool,
    seed: int,
) -> Separation:
    """Train on all folds but one, score that one, in turn; then the area under the ROC curve.

    Args:
        values: float ``[N, D]``; NaN where there is nothing to measure.
        labels: 0 or 1, ``[N]``.
        groups: what belongs together, ``[N]``; the interval resamples these, not single pictures.
        fold: of :func:`folds`.
        linear: logistic regression, for many values; else boosted trees, for few.
        seed: of the trees and the bootstrap.
    """
    sizes = tuple(len(np.unique(groups[labels == label])) for label in (0, 1))
    counted = (sizes[0], sizes[1])
    telling = _telling(values)
    if not telling.any():
        return Separation(0.5, 0.5, 0.5, len(labels), counted)
    if min(counted) < 2:
        return Separation(0.5, 0.0, 1.0, len(labels), counted)
    scores = out_of_fold(values[:, telling], labels, fold, linear, seed)
    low, high = interval(scores, labels, groups, seed)
    return Separation(auc(labels, scores), low, high, len(labels), counted)


def _telling(values: Floats) -> npt.NDArray[np.bool_]:
    """Columns that are not the same for all pictures."""
    known = ~np.isnan(values)
    top = np.where(known, values, -np.inf).max(axis=0)
    bottom = np.where(known, values, np.inf).min(axis=0)
    # where some are unknown and the rest equal, being known is itself telling
    differ: npt.NDArray[np.bool_] = known.any(axis=0) & ((top > bottom) | ~known.all(axis=0))
    return differ


def out_of_fold(
    values: Floats, labels: Labels, fold: npt.NDArray[np.int64], linear: bool, seed: int
) -> Floats:
    """The score that a model trained on the other folds gives to each row: float64 ``[N]``.

    Log odds above those of the classes in training, so that 0 is undecided in every fold and folds can be pooled.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    scores = np.zeros(len(labels))
    with threadpool_limits(1), warnings.catch_warnings(action="ignore"):  # small fits: threads only wait
        for number in np.unique(fold):
            held_out = fold == number
            if len(np.unique(labels[~held_out])) < 2:
                continue
            model = _model(linear, seed).fit(values[~held_out], labels[~held_out])
            share = labels[~held_out].mean()
            scores[held_out] = model.decision_function(values[held_out]) - np.log(share / (1 - share))
    return scores


def _model(linear: bool, seed: int) -> Any:
    if linear:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, min_samples_leaf=5, random_state=seed
    )


def interval(scores: Floats, labels: Labels, groups: npt.NDArray[Any], seed: int) -> tuple[float, float]:
    """95% interval of the AUC: percentiles of 1,000 samples of whole groups, drawn anew within each kind of group.

    Every sample has both classes. The scores are held fixed, so the spread from training the models is not in it.
    """
    draws = bootstrap(
        lambda times: {"auc": weighted_auc(labels, scores, times)}, groups, _RESAMPLES, seed, labels
    )
    low, high = percentile_interval(draws["auc"])
    return float(low), float(high)
