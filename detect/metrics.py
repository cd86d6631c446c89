"""Figures of a binary detector: pure functions of labels (1 fake) and scores, with intervals by bootstrap.

All of them come from one weighted sweep over the sorted scores. A bootstrap resample is a row of weights, so a
thousand resamples of ten thousand images take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
THRESHOLD_FREE = ("ap", "auc", "eer")
AT_THRESHOLD = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
_CHUNK = 2_000_000  # weights held at a time: 16 MB an array


def summary(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """All figures of one set of scores.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, higher is more likely fake.
        threshold: fake is what scores at least this.

    Returns:
        ``ap``, ``auc``, ``eer``, ``accuracy``, ``balanced_accuracy``, ``precision``, ``recall``, ``f1``, all in
        [0, 1]; a figure that one class alone does not define is nan.

    Example:
        >>> summary([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])["auc"]
        0.75
    """
    y, s = _checked(labels, scores)
    return {
        name: float(values[0]) for name, values in _figures(y, s, np.ones((1, len(y))), threshold).items()
    }


def weighted(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike, threshold: float = 0.5
) -> dict[str, Array]:
    """:func:`summary` under each row of ``weights`` ``[B, N]``, for example how often a resample drew each image.

    Returns:
        The same figures, each ``[B]``.
    """
    y, s = _checked(labels, scores)
    return _figures(y, s, np.asarray(weights, dtype=np.float64), threshold)


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve."""
    return summary(labels, scores)["auc"]


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision: the step-wise area under the precision-recall curve, as in scikit-learn."""
    return summary(labels, scores)["ap"]


def eer(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Equal error rate: where false alarms and misses are equally frequent, between the two nearest thresholds."""
    return summary(labels, scores)["eer"]


def confusion(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> list[list[int]]:
    """``[[real as real, real as fake], [fake as real, fake as fake]]``."""
    y, s = _checked(labels, scores)
    called = s >= threshold
    return [
        [int(((y == truth) & (called == verdict)).sum()) for verdict in (False, True)] for truth in (0, 1)
    ]


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """False and true positive rates, and the thresholds they belong to, from (0, 0) to (1, 1)."""
    y, s = _checked(labels, scores)
    true, false, ends = _sweep(y, s, np.ones((1, len(y))))
    thresholds = np.concatenate([[np.inf], np.sort(s)[::-1][ends]])
    with np.errstate(invalid="ignore"):
        return false[0] / false[0, -1], true[0] / true[0, -1], thresholds


def bootstrap(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of :func:`summary` (Efron 1979), resampling groups rather than images.

    Args:
        groups: ``[N]``, what belongs together: identity, video, source photo; None resamples images.
        resamples: number of resamples.
        level: coverage of the interval.

    Returns:
        For each figure (low, high); nan where no resample defines it.
    """
    y, s = _checked(labels, scores)
    number = (
        np.unique(np.asarray(groups), return_inverse=True)[1] if groups is not None else np.arange(len(y))
    )
    count, rng = int(number.max()) + 1, np.random.default_rng(seed)
    parts: dict[str, list[Array]] = {}
    for size in _chunks(resamples, max(1, _CHUNK // len(y))):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=size)  # times each group was drawn
        for name, values in _figures(y, s, drawn[:, number].astype(np.float64), threshold).items():
            parts.setdefault(name, []).append(values)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: _interval(np.concatenate(values), tails) for name, values in parts.items()}


def best_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The threshold with the highest balanced accuracy, half-way to the next lower score so that it is not brittle.

    Raises:
        ValueError: one class only.
    """
    y, s = _checked(labels, scores)
    fpr, tpr, thresholds = roc_curve(y, s)
    if not np.isfinite(tpr - fpr).all():
        raise ValueError("a threshold needs reals and fakes")
    best = int(np.argmax(tpr - fpr))
    if best == 0:
        return float(np.nextafter(thresholds[1], np.inf))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2)


def _interval(values: Array, tails: list[float]) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"), float("nan"))
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Array]:
    y, s = np.asarray(labels).astype(np.int64), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1 or not len(y):
        raise ValueError(f"labels {y.shape} and scores {s.shape} must be two lists of one length, not empty")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    if np.isnan(s).any():
        raise ValueError("a score is not a number")
    return y, s


def _sweep(y: npt.NDArray[np.int64], s: Array, weights: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Weight of fakes and of reals at or above each distinct score, from none to all: two ``[B, K + 1]``."""
    order = np.argsort(-s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    sorted_weights = weights[:, order]
    true = np.cumsum(sorted_weights * y[order], axis=1)[:, ends]
    false = np.cumsum(sorted_weights * (1 - y[order]), axis=1)[:, ends]
    return np.pad(true, ((0, 0), (1, 0))), np.pad(false, ((0, 0), (1, 0))), ends


def _figures(y: npt.NDArray[np.int64], s: Array, weights: Array, threshold: float) -> dict[str, Array]:
    """Every figure for each row of ``weights`` ``[B, N]``."""
    true, false, _ = _sweep(y, s, weights)
    fakes, reals = true[:, -1], false[:, -1]
    called = weights * (s >= threshold)
    hits, alarms = called @ y.astype(np.float64), called @ (1.0 - y)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2).sum(axis=1) / (fakes * reals)
        precision_at = np.nan_to_num(true[:, 1:] / (true[:, 1:] + false[:, 1:]))
        figures: dict[str, Any] = {
            "ap": (np.diff(true) * precision_at).sum(axis=1) / fakes,
            "auc": area,
            "eer": _eer(false / reals[:, None], 1 - true / fakes[:, None]),
            "accuracy": (hits + reals - alarms) / (fakes + reals),
            "balanced_accuracy": (hits / fakes + 1 - alarms / reals) / 2,
            "precision": hits / (hits + alarms),
            "recall": hits / fakes,
            "f1": 2 * hits / (fakes + hits + alarms),
        }
    undefined = (fakes == 0) | (reals == 0)
    for name in (*THRESHOLD_FREE, "balanced_accuracy", "precision", "f1"):
        figures[name] = np.where(undefined, np.nan, np.nan_to_num(figures[name]))
    return figures


def _eer(false_alarms: Array, misses: Array) -> Array:
    """Where the rising false alarms meet the falling misses, on the straight line between two thresholds."""
    gap = false_alarms - misses  # rises from -1 to 1
    after = np.argmax(gap >= 0, axis=1)
    rows = np.arange(len(gap))
    before = np.maximum(after - 1, 0)
    g0, g1 = gap[rows, before], gap[rows, after]
    share = np.divide(-g0, g1 - g0, out=np.zeros_like(g0), where=g1 != g0)
    f0, f1 = false_alarms[rows, before], false_alarms[rows, after]
    crossing: Array = f0 + share * (f1 - f0)
    return crossing
