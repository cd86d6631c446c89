"""How well scores rank fakes above reals: the ROC and the precision-recall curve, and what is read off them.

Figures come from one weighted sweep over the sorted scores. A resample is a row of weights, and many rows are swept at
once, which scikit-learn cannot: a thousand resamples of ten thousand images take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
RATES = {"tpr_at_1%_fpr": 0.01, "tpr_at_0.1%_fpr": 0.001}  # false alarm rates that hits are counted at
PARTIAL = 0.1  # the highest false alarm rate of the partial AUC
RANKING = ("ap", "auc", "partial_auc", "eer", *RATES, "oracle_accuracy")


@dataclass(frozen=True)
class Ranked:
    """Scores from most to least fake: sorted once, swept under any number of weights.

    Attributes:
        order: ``[N]``, place to image.
        fake: ``[N]`` by place, 1 for fakes.
        scores: ``[N]`` by place.
        ends: ``[K]``, the last place of each distinct score.
        thresholds: ``[K + 1]``, infinity and the distinct scores, falling.
    """

    order: Indices
    fake: Array
    scores: Array
    ends: Indices
    thresholds: Array

    @classmethod
    def of(cls, labels: npt.ArrayLike, scores: npt.ArrayLike) -> Ranked:
        """Of labels ``[N]``, 0 real and 1 fake, and scores ``[N]``, higher is more likely fake.

        Raises:
            ValueError: lengths differ or are 0, a label is another number, or a score is nan.
        """
        y, s = checked(labels, scores)
        order = np.argsort(-s, kind="stable")
        ranked = s[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(s) - 1)
        return cls(order, y[order].astype(np.float64), ranked, ends, np.concatenate([[np.inf], ranked[ends]]))

    def sweep(self, weights: Array) -> tuple[Array, Array]:
        """Weight of fakes and of reals at or above each threshold, two ``[B, K + 1]``, of ``weights`` by place."""
        swept = []
        for kind in (self.fake, 1 - self.fake):
            above = np.cumsum(weights * kind, axis=1)
            swept.append(np.zeros((len(weights), len(self.ends) + 1)))
            swept[-1][:, 1:] = above if len(self.ends) == len(self.order) else above[:, self.ends]
        return swept[0], swept[1]

    def reaching(self, threshold: float) -> int:
        """How many distinct scores reach a threshold."""
        return int(np.searchsorted(-self.thresholds[1:], -threshold, side="right"))


def weighted(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike) -> dict[str, Array]:
    """Every figure of a ranking under each row of weights, for example how often a resample drew each image.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, higher is more likely fake.
        weights: ``[B, N]``, from 0.

    Returns:
        float64 ``[B]`` each, nan where a class has no weight: ``ap``; ``auc``; ``partial_auc`` up to 10% false alarms,
        standardised so that chance is 0.5 (McClish 1989, eq. 2); ``eer``; ``tpr_at_1%_fpr`` and ``tpr_at_0.1%_fpr``,
        the most hits of a threshold with no more false alarms than that; ``oracle_accuracy``, at the threshold that is
        best on these very images. All are in [0, 1].

    Raises:
        ValueError: as :meth:`Ranked.of`.
    """
    ranked = Ranked.of(labels, scores)
    return of_sweep(*ranked.sweep(np.asarray(weights)[:, ranked.order].astype(np.float64)))


def of_sweep(true: Array, false: Array) -> dict[str, Array]:
    """:func:`weighted` of what :meth:`Ranked.sweep` gives."""
    rows, last = np.arange(len(true)), true.shape[1] - 1
    fakes, reals = true[:, -1], false[:, -1]

    def beyond(rate: float) -> Indices:
        return _first(lambda k: false[rows, k] / reals > rate, len(rows), last)

    with np.errstate(invalid="ignore", divide="ignore"):
        rise, step = np.diff(true), np.diff(false)
        step *= true[:, 1:] - rise / 2
        area = np.cumsum(step, axis=1, out=step)  # in images times images
        share = true[:, 1:] + false[:, 1:]
        # where nothing was drawn yet, precision counts as 0
        np.maximum(share, np.finfo(float).tiny, out=share)
        np.divide(true[:, 1:], share, out=share)
        after = beyond(PARTIAL)
        figures = {
            "ap": np.einsum("bk,bk->b", rise, share) / fakes,
            "auc": area[:, -1] / (fakes * reals),
            "partial_auc": _standardised(_area_until(area, true, false, after) / (fakes * reals)),
            "eer": _eer(true, false, rows, last),
        }
        figures |= {name: true[rows, beyond(rate) - 1] / fakes for name, rate in RATES.items()}
        figures["oracle_accuracy"] = ((true - false).max(axis=1) + reals) / (fakes + reals)
    one_class = (fakes == 0) | (reals == 0)
    return {name: np.where(one_class, np.nan, values) for name, values in figures.items()}


def weighted_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike) -> Array:
    """The ``auc`` of :func:`weighted` by itself, several times as fast.

    A fake beats the reals below it and half of those with its own score (Mann and Whitney 1947).

    Returns:
        float64 ``[B]``, nan where a class has no weight. Whole numbers as weights are added up in float32, which is
        exact to 1e-6.

    Example:
        >>> weighted_auc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], [[1, 1, 1, 1], [1, 1, 2, 0]]).tolist()
        [0.75, 0.5]
    """
    y, s = checked(labels, scores)
    weights = np.asarray(weights)
    kind = np.float32 if weights.dtype.kind in "iu" else np.float64
    real, fake = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    real = real[np.argsort(s[real], kind="stable")]
    below = np.zeros((len(weights), len(real) + 1), kind)  # weight of the first k reals
    np.cumsum(weights[:, real], axis=1, dtype=kind, out=below[:, 1:])
    first, last = (np.searchsorted(s[real], s[fake], side=side) for side in ("left", "right"))
    beaten: npt.NDArray[Any] = below[:, first]
    if (first != last).any():
        beaten = (beaten + below[:, last]) / 2
    times: npt.NDArray[Any] = weights[:, fake].astype(kind)
    wins: Array = np.einsum("bk,bk->b", beaten, times).astype(np.float64)
    with np.errstate(invalid="ignore"):
        wins /= below[:, -1].astype(np.float64) * times.sum(axis=1, dtype=np.float64)
    return wins


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a fake is scored above a real, ties counted half.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, higher is more likely fake.
        sample_weight: ``[N]``, how much each image counts, from 0; all alike when None.

    Returns:
        In [0, 1]; nan of one class.

    Example:
        >>> auc([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0])
        0.875
    """
    return float(weighted_auc(labels, scores, _row(scores, sample_weight))[0])


def average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Average precision: the step-wise area under the precision-recall curve, as in scikit-learn; nan of one class."""
    return float(weighted(labels, scores, _row(scores, sample_weight))["ap"][0])


def eer(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Equal error rate: where false alarms and misses are equally frequent, between the two nearest thresholds."""
    return float(weighted(labels, scores, _row(scores, None))["eer"][0])


def roc_curve(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """False and true positive rates, and the thresholds they belong to, from (0, 0) to (1, 1).

    Images of weight 0 are left out, as in scikit-learn.
    """
    y, s = checked(labels, scores)
    (w,) = _row(s, sample_weight)
    y, s, w = y[w > 0], s[w > 0], w[w > 0]
    ranked = Ranked.of(y, s)
    true, false = ranked.sweep(w[None, ranked.order])
    with np.errstate(invalid="ignore"):
        return false[0] / false[0, -1], true[0] / true[0, -1], ranked.thresholds


def precision_recall_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Precision and recall at each distinct score as the threshold, from the highest on."""
    true, false = Ranked.of(labels, scores).sweep(_row(scores, None))
    with np.errstate(invalid="ignore"):
        return true[0, 1:] / (true[0, 1:] + false[0, 1:]), true[0, 1:] / true[0, -1]


def checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Array]:
    """Labels as int64 and scores as float64, two ``[N]``.

    Raises:
        ValueError: lengths differ or are 0, a label is neither 0 nor 1, or a score is nan.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1 or not len(y):
        raise ValueError(f"labels {y.shape} and scores {s.shape} must be two lists of one length, not empty")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    if np.isnan(s).any():
        raise ValueError("a score is not a number")
    return y.astype(np.int64), s


def _row(scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None) -> Array:
    """Weights ``[1, N]``."""
    return (
        np.ones((1, np.size(scores)))
        if sample_weight is None
        else np.asarray(sample_weight, np.float64)[None]
    )


def _area_until(area: Array, true: Array, false: Array, after: Indices) -> Array:
    """Area under the ROC curve up to ``PARTIAL``, which the piece that ends at ``after`` crosses."""
    rows = np.arange(len(true))
    before = after - 1
    whole = np.where(before > 0, area[rows, before - 1], 0)
    width = PARTIAL * false[:, -1] - false[rows, before]
    slope = (true[rows, after] - true[rows, before]) / (false[rows, after] - false[rows, before])
    return np.asarray(whole + width * (true[rows, before] + slope * width / 2))


def _standardised(area: Array) -> Array:
    chance = PARTIAL**2 / 2
    return (1 + (area - chance) / (PARTIAL - chance)) / 2


def _eer(true: Array, false: Array, rows: Indices, last: int) -> Array:
    """Where the rising false alarms meet the falling misses, on the straight line between two thresholds."""
    fakes, reals = true[:, -1], false[:, -1]

    def gap(k: Indices) -> Array:
        return false[rows, k] / reals - (1 - true[rows, k] / fakes)

    after = _first(lambda k: gap(k) >= 0, len(rows), last)
    g0, g1 = gap(after - 1), gap(after)
    f0, f1 = false[rows, after - 1] / reals, false[rows, after] / reals
    crossing: Array = f0 - g0 / (g1 - g0) * (f1 - f0)
    return crossing


def _first(holds: Callable[[Indices], npt.NDArray[np.bool_]], rows: int, last: int) -> Indices:
    """Per row the first place where a condition holds that stays true; 1 to ``last``, which must hold."""
    low, high = np.ones(rows, np.intp), np.full(rows, last, np.intp)
    while (low < high).any():
        middle = (low + high) // 2
        found = holds(middle)
        low, high = np.where(found, low, np.minimum(middle + 1, high)), np.where(found, middle, high)
    return high
