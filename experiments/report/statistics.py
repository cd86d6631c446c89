"""With against without: paired differences, their intervals, and a verdict in words. Pure functions.

Two things are random in such an experiment: *which pictures* were in the test set and *how the training
went*. An interval that knows only one of them is too narrow, so both are in:

- Pictures: a cluster bootstrap. Whole groups (a person, a source photo) are drawn with replacement, reals and
  fakes apart, and the same draw serves both arms and all seeds, which keeps the comparison paired.
- Training: the seeds' own spread. Resampling three seeds would understate it: the plug-in variance of n values is
  short by (n-1)/n, and its percentiles lack t's wide tails (Hesterberg 2015, "What teachers should know about the
  bootstrap", section 3).

Their variances add up. Part of the pictures' chance is each training's own (its mistakes are not those of the next
seed) and is in the seeds' spread already: it shows as the variance between seeds of the *draws*, and is taken off the
pictures' side. See :func:`chance` and :meth:`Chance.reach`.

Simulated coverage of the 95% interval of a difference of AUC, as reports give it (slow tests in
tests/experiments/report/test_statistics.py, through ``comparing.answers``): on 60 people with three photos each, single
rows and means over two detectors and two tests, 95.3% to 96.8% with 3 seeds and 94.9% to 95.9% with 5. In theory,
whatever the ratio of the two sources: 94.9% to 97.2% with 3 seeds, 95.0% to 96.4% with 5. It fails near the ceiling: at
an AUC of 0.98 with 30 groups a class, where a handful of groups makes all mistakes, it is 85% to 90%; with 200 groups a
class, 94% to 98%.
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
_TAILS, _Z = (0.025, 0.975), 1.959963984540054  # of the pictures' 95% interval, and the normal distribution's
_MANY = 30  # groups: that a resample misses all of them has a chance of e^-30
_AT_A_TIME = 1_000_000  # weights in a chunk of resamples: 8 MB an array


@dataclass(frozen=True)
class Measured:
    """One quantity on one test set: its value per seed, and on every resampled test set.

    Draws stay apart by seed: how far seeds differ in them is what :func:`chance` takes off the pictures' side.

    Attributes:
        per_seed: float64 ``[S]``.
        draws: float64 ``[S, R]``; column r belongs to resample r, so quantities on the same test set stay paired.

    Raises:
        ValueError: there is not one row of draws per seed.
    """

    per_seed: Floats
    draws: Floats

    def __post_init__(self) -> None:
        if self.draws.ndim != 2 or len(self.draws) != len(self.per_seed):
            raise ValueError(f"draws of {len(self.per_seed)} seeds cannot be {self.draws.shape}")

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

    Groups are drawn within their stratum (only real rows, only fake ones, or both), so a class never vanishes. Where
    many groups have both, they are drawn with those of reals alone, as one of many would hardly vanish: so tests
    against the same reals resample these alike, whosever faces their fakes show.

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
    if (stratum == 2).sum() >= _MANY:
        stratum[stratum == 2] = 0
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n, len(sizes)), np.uint16)
    for kind in np.unique(stratum):
        inside = np.flatnonzero(stratum == kind)
        drawn[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=n)
    return drawn[:, member]


def measure(
    labels: npt.ArrayLike, scores: npt.ArrayLike, figures: Figures, resamples: Counts
) -> dict[str, Measured]:
    """Figures on one test set, for every seed, as the pictures are and on every resample.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[S, N]``, one row per training seed, on the same pictures in the same order.
        figures: ``figures(labels, scores, weights [B, N]) -> {name: [B]}``, for example
            ``crossfake.detect.evaluation.metrics.weighted``.
        resamples: from :func:`cluster_resamples`; give both arms the same.
    """
    labels, scores = np.asarray(labels), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    chunk = max(1, _AT_A_TIME // len(labels))
    whole = np.ones((1, len(labels)), np.uint16)
    found: dict[str, list[Measured]] = {}
    for row in scores:
        parts = [figures(labels, row, whole)]
        parts += [
            figures(labels, row, resamples[first : first + chunk])
            for first in range(0, len(resamples), chunk)
        ]
        for name in parts[0]:
            draws = np.concatenate([part[name] for part in parts[1:]])
            found.setdefault(name, []).append(Measured(parts[0][name], draws[None]))
    return {name: together(seeds) for name, seeds in found.items()}


def together(seeds: Sequence[Measured]) -> Measured:
    """Trainings measured one by one, as one quantity of all of them."""
    return Measured(
        np.concatenate([seed.per_seed for seed in seeds]), np.concatenate([seed.draws for seed in seeds])
    )


def average(parts: Sequence[Measured]) -> Measured:
    """The mean of one quantity of the same trainings over test sets, seed by seed and resample by resample."""
    return Measured(
        np.mean([part.per_seed for part in parts], axis=0), np.mean([part.draws for part in parts], axis=0)
    )


@dataclass(frozen=True)
class Chance:
    """How far a mean may be off by chance, below and above it.

    Attributes:
        mean: over seeds and parts.
        errors: float64 ``[2]``, standard errors below and above the mean.
        shares: float64 ``[2]``, how much of their squares is the seeds' variance; in [0, 1].
        freedom: degrees of freedom of the seeds' variance; infinite where no spread of seeds is known.
    """

    mean: float
    errors: Floats
    shares: Floats
    freedom: float

    def reach(self, alpha: float) -> Floats:
        """How far an interval of level ``1 - alpha`` reaches below and above the mean; ``[2]``, falling in alpha.

        The critical value is Cochran's (1964, "Approximate significance levels of the Behrens-Fisher test"): the
        normal one for the pictures and t's for the seeds, weighted by their variances. The usual degrees of freedom of
        Welch and Satterthwaite take the variance of three seeds too much at its word: where the pictures' variance is
        a tenth of the seeds', the 95% interval covers 92%, and p values below 0.002 come up ten times as often as they
        should (1.7 times with Cochran's).
        """
        from scipy import special  # scipy.stats gives the same figures at a hundred times the cost

        normal = -special.ndtri(alpha / 2)
        students = normal if np.isinf(self.freedom) else -special.stdtrit(self.freedom, alpha / 2)
        return self.errors * (normal + self.shares * (students - normal))


def chance(*parts: Measured) -> Chance:
    """Both sources of chance, from which interval and p value are made.

    The pictures' error of a side is how far the 2.5% or 97.5% percentile of the draws lies from the mean, in units of
    the normal distribution's: this keeps their skewness. Squared, less what is each training's own, it is added to the
    seeds' variance ``s² / S``.

    Several parts are averaged as trainings that have nothing to do with each other, such as those of two detectors:
    the seeds' variances add up, with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
    """
    mean = float(np.mean([part.per_seed.mean() for part in parts]))
    draws = np.mean([part.draws.mean(0) for part in parts], axis=0)
    pictures = np.maximum(np.quantile(draws, _TAILS) * [-1, 1] + [mean, -mean], 0.0) / _Z
    spread = [part for part in parts if len(part.per_seed) > 1]
    variances = np.array([part.per_seed.var(ddof=1) / len(part.per_seed) for part in spread])
    counted_twice = sum(
        (part.draws - part.draws.mean(1, keepdims=True)).var(0, ddof=1).mean() / len(part.per_seed)
        for part in spread
    )
    if (total := draws.var()) > 0:
        pictures = pictures * np.sqrt(max(0.0, 1 - counted_twice / len(parts) ** 2 / total))
    seeds = variances.sum() / len(parts) ** 2
    summed = pictures**2 + seeds
    if not seeds > 0:
        return Chance(mean, np.sqrt(summed), np.zeros(2), float("inf"))
    freedom = variances.sum() ** 2 / np.sum(variances**2 / [len(part.per_seed) - 1 for part in spread])
    return Chance(mean, np.sqrt(summed), seeds / summed, float(freedom))


def estimate(*parts: Measured, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """The mean with an interval for both sources of chance (see :func:`chance`).

    With a single seed only the pictures' chance is in the interval: say so wherever it is shown. With two, coverage
    of the 95% interval is 94% to 98%.

    Args:
        parts: what was measured; a difference of two is fine. Draws must come from the same resamples. Several parts
            are averaged as independent trainings.
        level: of the interval.
        bounds: that the quantity cannot leave; ``(-1, 1)`` for differences of rates.

    Example:
        >>> still = Measured(np.array([0.8, 0.9]), np.full((2, 2000), 0.85))
        >>> round(estimate(still).mean, 2)
        0.85
    """
    found = chance(*parts)
    low, high = np.clip(found.mean + found.reach(1 - level) * [-1, 1], *bounds)
    return Estimate(found.mean, float(low), float(high), min(len(part.per_seed) for part in parts))
