"""Figures of a binary detector: pure functions of labels (1 fake) and scores, with intervals by bootstrap.

All of them come from one weighted sweep over the sorted scores. A bootstrap resample is a row of weights, so a
thousand resamples of ten thousand images take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
RATES = {"tpr_at_1%_fpr": 0.01, "tpr_at_0.1%_fpr": 0.001}  # false alarm rates that hits are counted at
PARTIAL = 0.1  # the highest false alarm rate of the partial AUC
BINS = 15  # of the calibration error
RANKING = ("ap", "auc", "partial_auc", "eer", *RATES, "oracle_accuracy")
AT_THRESHOLD = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc")
OF_PROBABILITIES = ("accuracy_at_half", "ece", "brier")
NEED_BOTH = (*RANKING, "balanced_accuracy", "precision", "f1", "mcc")  # of one class alone they say nothing
_CHUNK = 1_000_000  # weights held at a time: 8 MB an array


def summary(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float = 0.5,
    sample_weight: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """All figures of one set of scores.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, higher is more likely fake.
        threshold: fake is what scores at least this.
        sample_weight: ``[N]``, how much each image counts, from 0; all alike when None.

    Returns:
        Of the ranking: ``ap``; ``auc``; ``partial_auc`` up to 10% false alarms, standardised so that chance is 0.5
        (McClish 1989, eq. 2); ``eer``; ``tpr_at_1%_fpr`` and ``tpr_at_0.1%_fpr``, the most hits of a threshold with no
        more false alarms than that; ``oracle_accuracy``, at the threshold that is best on these very images.
        At the threshold: ``accuracy``, ``balanced_accuracy``, ``precision``, ``recall``, ``f1``, and ``mcc``.
        Of probabilities, nan when a score is outside [0, 1]: ``accuracy_at_half``, at 0.5; ``ece``, the expected
        calibration error over 15 equal bins of the probability of fake (Guo et al. 2017, eq. 3); ``brier``.
        All are in [0, 1], ``mcc`` in [-1, 1]; a figure that one class alone does not define is nan.

    Example:
        >>> summary([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])["auc"]
        0.75
    """
    w = np.ones(np.shape(scores)) if sample_weight is None else sample_weight
    found = weighted(labels, scores, np.asarray(w)[None], threshold, probabilities=True)
    return {name: float(values[0]) for name, values in found.items()}


def weighted(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike,
    threshold: float = 0.5,
    probabilities: bool = False,
) -> dict[str, Array]:
    """:func:`summary` under each row of ``weights`` ``[B, N]``, for example how often a resample drew each image.

    Args:
        probabilities: with the figures of probabilities too; without, any scores give the same figures.

    Returns:
        The same figures, each ``[B]``.
    """
    ranked = _Ranked.of(*_checked(labels, scores))
    figures = ranked.figures(np.asarray(weights)[:, ranked.order].astype(np.float64), threshold)
    return {name: v for name, v in figures.items() if probabilities or name not in OF_PROBABILITIES}


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve."""
    return summary(labels, scores)["auc"]


def average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Average precision: the step-wise area under the precision-recall curve, as in scikit-learn."""
    return summary(labels, scores, sample_weight=sample_weight)["ap"]


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


def roc_curve(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """False and true positive rates, and the thresholds they belong to, from (0, 0) to (1, 1).

    Images of weight 0 are left out, as in scikit-learn.
    """
    y, s = _checked(labels, scores)
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    y, s, w = y[w > 0], s[w > 0], w[w > 0]
    ranked = _Ranked.of(y, s)
    true, false = ranked.sweep(w[None, ranked.order])
    with np.errstate(invalid="ignore"):
        return false[0] / false[0, -1], true[0] / true[0, -1], ranked.thresholds


def precision_recall_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Precision and recall at each distinct score as the threshold, from the highest on."""
    y, s = _checked(labels, scores)
    true, false = _Ranked.of(y, s).sweep(np.ones((1, len(y))))
    with np.errstate(invalid="ignore"):
        return true[0, 1:] / (true[0, 1:] + false[0, 1:]), true[0, 1:] / true[0, -1]


def reliability(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """What was promised and what came: per equal bin of [0, 1] that holds images, the mean probability of fake,
    the share of fakes, and the number of images."""
    y, p = _checked(labels, probabilities)
    place = _bins(p, bins)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    promised, came = (np.bincount(place, weights=v, minlength=bins)[held] / count[held] for v in (p, y))
    return promised, came, count[held]


def wilson(share: Array, count: npt.NDArray[Any]) -> tuple[Array, Array]:
    """Ends of the 95% interval of shares ``[N]`` of ``count`` independent cases each (Wilson 1927)."""
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


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
    ranked = _Ranked.of(y, s)
    member = number[ranked.order]
    count, rng = int(number.max()) + 1, np.random.default_rng(seed)
    parts: dict[str, list[Array]] = {}
    for size in _chunks(resamples, max(1, _CHUNK // len(y))):
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        for name, values in ranked.figures(times[:, member].astype(np.float64), threshold).items():
            parts.setdefault(name, []).append(values)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: _interval(np.concatenate(values), tails) for name, values in parts.items()}


def best_threshold(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> float:
    """The threshold with the highest balanced accuracy, half-way to the next lower score so that it is not brittle.

    Args:
        labels, scores, sample_weight: as for :func:`summary`.

    Raises:
        ValueError: one class only.
    """
    fpr, tpr, thresholds = roc_curve(labels, scores, sample_weight)
    return _between(thresholds, tpr - fpr)


def oracle_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """As :func:`best_threshold`, with the highest plain accuracy: of a test set it is known only afterwards.

    Raises:
        ValueError: one class only.
    """
    fpr, tpr, thresholds = roc_curve(labels, scores)
    fakes = float(np.mean(np.asarray(labels) == 1))
    return _between(thresholds, tpr * fakes - fpr * (1 - fakes))


def _between(thresholds: Array, gain: Array) -> float:
    """Half-way between the threshold that gains most and the next; just above all scores if calling none fake does."""
    if not np.isfinite(gain).all():
        raise ValueError("a threshold needs reals and fakes")
    best = int(np.argmax(gain))
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


def _bins(probabilities: Array, bins: int) -> npt.NDArray[np.int64]:
    """Number of the equal bin of [0, 1]; an edge belongs to the bin below it, as in scikit-learn."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)


@dataclass(frozen=True)
class _Ranked:
    """Scores from most to least fake: sorted once, swept under any number of weights.

    Attributes:
        order: ``[N]``, place to image.
        fake: ``[N]`` by place, 1 for fakes.
        ends: ``[K]``, the last place of each distinct score.
        thresholds: ``[K + 1]``, infinity and the distinct scores, falling.
        deviations: ``[N, 16]`` by place: probability minus label in the column of its bin, and its square in the last;
            None when the scores are no probabilities.
    """

    order: Indices
    fake: Array
    ends: Indices
    thresholds: Array
    deviations: Array | None

    @classmethod
    def of(cls, y: npt.NDArray[np.int64], s: Array) -> _Ranked:
        order = np.argsort(-s, kind="stable")
        ranked, fake = s[order], y[order].astype(np.float64)
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(s) - 1)
        deviations = None
        if ranked[-1] >= 0 and ranked[0] <= 1:
            deviations = np.zeros((len(s), BINS + 1))
            deviations[np.arange(len(s)), _bins(ranked, BINS)] = ranked - fake
            deviations[:, BINS] = (ranked - fake) ** 2
        return cls(order, fake, ends, np.concatenate([[np.inf], ranked[ends]]), deviations)

    def sweep(self, weights: Array) -> tuple[Array, Array]:
        """Weight of fakes and of reals at or above each threshold, two ``[B, K + 1]``, of ``weights`` by place."""
        swept = []
        for kind in (self.fake, 1 - self.fake):
            above = np.cumsum(weights * kind, axis=1)
            swept.append(np.zeros((len(weights), len(self.ends) + 1)))
            swept[-1][:, 1:] = above if len(self.ends) == len(self.order) else above[:, self.ends]
        return swept[0], swept[1]

    def figures(self, weights: Array, threshold: float) -> dict[str, Array]:
        """Every figure for each row of ``weights`` ``[B, N]`` by place."""
        true, false = self.sweep(weights)
        fakes, reals = true[:, -1].copy(), false[:, -1].copy()
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = {
                **_of_ranking(true, false),
                **_at(true, false, self._place(threshold)),
                **self._of_probabilities(true, false, weights),
            }
        for name in NEED_BOTH:
            figures[name] = np.where((fakes == 0) | (reals == 0), np.nan, figures[name])
        return figures

    def _place(self, threshold: float) -> int:
        """How many distinct scores reach a threshold."""
        return int(np.searchsorted(-self.thresholds[1:], -threshold, side="right"))

    def _of_probabilities(self, true: Array, false: Array, weights: Array) -> dict[str, Array]:
        if self.deviations is None:
            return {name: np.full(len(weights), np.nan) for name in OF_PROBABILITIES}
        sums = weights @ self.deviations
        total = true[:, -1] + false[:, -1]
        return {
            "accuracy_at_half": _at(true, false, self._place(0.5))["accuracy"],
            "ece": np.abs(sums[:, :BINS]).sum(axis=1) / total,
            "brier": sums[:, BINS] / total,
        }


def _of_ranking(true: Array, false: Array) -> dict[str, Array]:
    rows, last = np.arange(len(true)), true.shape[1] - 1
    fakes, reals = true[:, -1], false[:, -1]

    def beyond(rate: float) -> Indices:
        return _first(lambda k: false[rows, k] / reals > rate, len(rows), last)

    rise, step = np.diff(true), np.diff(false)
    step *= true[:, 1:] - rise / 2
    area = np.cumsum(step, axis=1, out=step)  # in images times images
    share = true[:, 1:] + false[:, 1:]
    np.maximum(share, np.finfo(float).tiny, out=share)  # where nothing was drawn yet, precision counts as 0
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
    return figures


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


def _at(true: Array, false: Array, place: int) -> dict[str, Array]:
    """Figures when all that is above a place is called fake."""
    fakes, reals, hits, alarms = true[:, -1], false[:, -1], true[:, place], false[:, place]
    misses, passed = fakes - hits, reals - alarms
    spread = np.sqrt((hits + alarms) * fakes * reals * (passed + misses))
    return {
        "accuracy": (hits + passed) / (fakes + reals),
        "balanced_accuracy": (hits / fakes + passed / reals) / 2,
        "precision": np.nan_to_num(hits / (hits + alarms)),
        "recall": hits / fakes,
        "f1": np.nan_to_num(2 * hits / (fakes + hits + alarms)),
        "mcc": np.nan_to_num((hits * passed - alarms * misses) / spread),
    }
