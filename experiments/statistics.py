"""With against without: paired differences, their intervals, and a verdict in words. Pure functions.

Two things are random in such an experiment: *which pictures* were in the test set and *how the training
went*. An interval that knows only one of them is too narrow, so both are in:

- Pictures: a cluster bootstrap. Whole groups (a person, a source photo) are drawn with replacement, reals and
  fakes apart, and the same draw serves both arms and all seeds, which keeps the comparison paired.
- Training: the seeds' own spread, as Student's t on the mean over seeds. Resampling three seeds would
  understate it: the plug-in variance of n values is short by (n-1)/n, and its percentiles lack t's wide
  tails (Hesterberg 2015, "What teachers should know about the bootstrap", section 3).

The difference between seeds contains a little of the pictures' noise too, so intervals err on the wide side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]
Figures = Callable[[Any, Any, Any], Mapping[str, Floats]]
Verdict = Literal["helped", "hurt", "no difference shown"]
_AT_A_TIME = 1_000_000  # weights in a chunk of resamples: 8 MB an array


@dataclass(frozen=True)
class Measured:
    """One quantity on one test set: its value per seed, and its mean over seeds on every resampled test set.

    Attributes:
        per_seed: float64 ``[S]``.
        draws: float64 ``[R]``; entry r belongs to resample r, so quantities on the same test set stay paired.
    """

    per_seed: Floats
    draws: Floats

    def __sub__(self, other: Measured) -> Measured:
        """The paired difference, seed by seed and resample by resample."""
        return Measured(self.per_seed - other.per_seed, self.draws - other.draws)


@dataclass(frozen=True)
class Estimate:
    """A mean over ``seeds`` seeds (the fewest, where several things were averaged) with its interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def verdict(self, higher_is_better: bool = True) -> Verdict:
        """What a difference (with minus without) shows: only an interval that excludes zero says anything.

        Example:
            >>> Estimate(0.10, 0.04, 0.16, seeds=3).verdict()
            'helped'
        """
        low, high = (self.low, self.high) if higher_is_better else (-self.high, -self.low)
        return "helped" if low > 0 else "hurt" if high < 0 else "no difference shown"


def cluster_resamples(labels: npt.ArrayLike, groups: npt.ArrayLike, n: int, seed: int = 0) -> Counts:
    """``n`` resampled test sets, as how often each drew every row: whole groups, drawn with replacement.

    Groups are drawn within their stratum (only real rows, only fake ones, or both), so a class never vanishes.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        groups: ``[N]``, any dtype that ``np.unique`` takes; rows of one group always come together.
        n: how many resamples.
        seed: same seed, same resamples.

    Returns:
        uint16 ``[n, N]``.

    Example:
        >>> cluster_resamples([0, 1, 1], ["a", "b", "b"], n=2)
        array([[1, 1, 1],
               [1, 1, 1]], dtype=uint16)
    """
    labels = np.asarray(labels)
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes, fakes = np.bincount(member), np.bincount(member, weights=labels)
    stratum = np.where(fakes == 0, 0, np.where(fakes == sizes, 1, 2))
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n, len(sizes)), np.uint16)
    for kind in np.unique(stratum):
        inside = np.flatnonzero(stratum == kind)
        drawn[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=n)
    return drawn[:, member]


def measure(
    labels: npt.ArrayLike, scores: npt.ArrayLike, figures: Figures, resamples: Counts
) -> dict[str, Measured]:
    """Figures on one test set, for every seed and, averaged over seeds, on every resample.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[S, N]``, one row per training seed, on the same pictures in the same order.
        figures: ``figures(labels, scores, weights [B, N]) -> {name: [B]}``, for example
            ``crossfake.detect.metrics.weighted``.
        resamples: from :func:`cluster_resamples`; give both arms the same.
    """
    labels, scores = np.asarray(labels), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    chunk = max(1, _AT_A_TIME // len(labels))
    whole = np.ones((1, len(labels)), np.uint16)
    found: dict[str, list[list[Floats]]] = {}
    for row in scores:
        parts = [figures(labels, row, whole)]
        parts += [
            figures(labels, row, resamples[first : first + chunk])
            for first in range(0, len(resamples), chunk)
        ]
        for name in parts[0]:
            found.setdefault(name, []).append([part[name] for part in parts])
    return {
        name: Measured(
            per_seed=np.array([float(parts[0][0]) for parts in seeds]),
            draws=np.mean([np.concatenate(parts[1:]) for parts in seeds], axis=0),
        )
        for name, seeds in found.items()
    }


def average(parts: Sequence[Measured]) -> Measured:
    """The mean of one quantity of the same trainings over test sets, seed by seed and resample by resample."""
    return Measured(
        np.mean([part.per_seed for part in parts], axis=0), np.mean([part.draws for part in parts], axis=0)
    )


def estimate(*parts: Measured, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """The mean with an interval for both sources of chance (see the module's docstring).

    Several parts are averaged as trainings that have nothing to do with each other, such as those of two
    detectors: their variances add up, with the degrees of freedom of Welch (1947) and Satterthwaite (1946). With a
    single seed only the pictures' chance is in the interval: say so wherever it is shown.

    Args:
        parts: what was measured; a difference of two is fine. Draws must come from the same resamples.
        level: of the interval.
        bounds: that the quantity cannot leave; ``(-1, 1)`` for differences of rates.

    Example:
        >>> still = Measured(np.array([0.8, 0.9]), np.full(2000, 0.85))
        >>> round(estimate(still).mean, 2)
        0.85
    """
    from scipy import stats

    seeds = min(len(part.per_seed) for part in parts)
    draws = np.mean([part.draws for part in parts], axis=0)
    spread = [part.per_seed for part in parts if len(part.per_seed) > 1]
    variances = np.array([values.var(ddof=1) / len(values) for values in spread])
    if variances.sum() > 0:
        freedom = variances.sum() ** 2 / np.sum(variances**2 / [len(values) - 1 for values in spread])
        # the t distribution's own quantiles in random order: all the tails, none of the sampling noise
        quantiles = stats.t.ppf((np.arange(len(draws)) + 0.5) / len(draws), df=freedom)
        error = np.sqrt(variances.sum()) / len(parts)
        draws = draws + error * np.random.default_rng(seeds).permutation(quantiles)
    tail = (1 - level) / 2
    low, high = np.clip(np.quantile(draws, [tail, 1 - tail]), *bounds)
    mean = float(np.mean([part.per_seed.mean() for part in parts]))
    return Estimate(mean, float(low), float(high), seeds)
