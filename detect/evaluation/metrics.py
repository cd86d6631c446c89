"""Figures of a binary detector: pure functions of labels (1 fake) and scores, with intervals by bootstrap.

Those of the ranking are ``crossfake.stats.ranking``'s; here are the ones at a threshold, and those of probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.stats.bootstrap import bootstrap
from crossfake.stats.intervals import percentile_interval
from crossfake.stats.ranking import RANKING, Ranked, checked, of_sweep, roc_curve

Array = npt.NDArray[np.float64]
BINS = 15  # of the calibration error
AT_THRESHOLD = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc")
OF_PROBABILITIES = ("accuracy_at_half", "ece", "brier")
NEED_BOTH = (*RANKING, "balanced_accuracy", "precision", "f1", "mcc")  # of one class alone they say nothing


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
    cases = _Cases.of(labels, scores)
    figures = cases.figures(np.asarray(weights)[:, cases.ranked.order], threshold)
    return {name: v for name, v in figures.items() if probabilities or name not in OF_PROBABILITIES}


def confusion(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> list[list[int]]:
    """``[[real as real, real as fake], [fake as real, fake as fake]]``."""
    y, s = checked(labels, scores)
    called = s >= threshold
    return [
        [int(((y == truth) & (called == verdict)).sum()) for verdict in (False, True)] for truth in (0, 1)
    ]


def reliability(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """What was promised and what came: per equal bin of [0, 1] that holds images, the mean probability of fake,
    the share of fakes, and the number of images."""
    y, p = checked(labels, probabilities)
    place = _bins(p, bins)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    promised, came = (np.bincount(place, weights=v, minlength=bins)[held] / count[held] for v in (p, y))
    return promised, came, count[held]


def intervals(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of :func:`summary`, resampling groups rather than images.

    Args:
        groups: ``[N]``, what belongs together: identity, video, source photo; None resamples images.
        resamples: number of resamples.
        level: coverage of the interval.

    Returns:
        For each figure (low, high); nan where no resample defines it.
    """
    cases = _Cases.of(labels, scores)
    order = cases.ranked.order
    member = order if groups is None else np.asarray(groups)[order]
    draws = bootstrap(lambda times: cases.figures(times, threshold), member, resamples, seed)
    ends = {name: percentile_interval(values, level) for name, values in draws.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


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


def _bins(probabilities: Array, bins: int) -> npt.NDArray[np.int64]:
    """Number of the equal bin of [0, 1]; an edge belongs to the bin below it, as in scikit-learn."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)


@dataclass(frozen=True)
class _Cases:
    """Ranked cases, and how far their probabilities are off.

    Attributes:
        ranked: the cases by place.
        deviations: ``[N, 16]`` by place: probability minus label in the column of its bin, and its square in the last;
            None when the scores are no probabilities.
    """

    ranked: Ranked
    deviations: Array | None

    @classmethod
    def of(cls, labels: npt.ArrayLike, scores: npt.ArrayLike) -> _Cases:
        ranked = Ranked.of(labels, scores)
        deviations = None
        if ranked.scores[-1] >= 0 and ranked.scores[0] <= 1:
            off = ranked.scores - ranked.fake
            deviations = np.zeros((len(off), BINS + 1))
            deviations[np.arange(len(off)), _bins(ranked.scores, BINS)] = off
            deviations[:, BINS] = off**2
        return cls(ranked, deviations)

    def figures(self, weights: npt.NDArray[Any], threshold: float) -> dict[str, Array]:
        """Every figure for each row of ``weights`` ``[B, N]`` by place."""
        weights = weights.astype(np.float64)
        true, false = self.ranked.sweep(weights)
        one_class = (true[:, -1] == 0) | (false[:, -1] == 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                **of_sweep(true, false),
                **_at(true, false, self.ranked.reaching(threshold)),
                **self._of_probabilities(true, false, weights),
            }
        return {name: np.where(one_class & (name in NEED_BOTH), np.nan, v) for name, v in found.items()}

    def _of_probabilities(self, true: Array, false: Array, weights: Array) -> dict[str, Array]:
        if self.deviations is None:
            return {name: np.full(len(weights), np.nan) for name in OF_PROBABILITIES}
        sums = weights @ self.deviations
        total = true[:, -1] + false[:, -1]
        return {
            "accuracy_at_half": _at(true, false, self.ranked.reaching(0.5))["accuracy"],
            "ece": np.abs(sums[:, :BINS]).sum(axis=1) / total,
            "brier": sums[:, BINS] / total,
        }


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
