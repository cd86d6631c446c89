"""How sure a figure is: intervals of shares, of resamples, and of means over seeds and pictures; pure functions.

Two things are random in an experiment: *which pictures* were in the test set and *how the training went*. An interval
that knows only one of them is too narrow, so both are in :func:`estimate`:

- Pictures: a cluster bootstrap (``bootstrap.py``), reals and fakes apart. The same draw serves both arms and all seeds,
  which keeps the comparison paired.
- Training: the seeds' own spread. Resampling three seeds would understate it: the plug-in variance of n values is
  short by (n-1)/n, and its percentiles lack t's wide tails (Hesterberg 2015, "What teachers should know about the
  bootstrap", section 3).

Their variances add up. Part of the pictures' chance is each training's own (its mistakes are not those of the next
seed) and is in the seeds' spread already: it shows as the variance between seeds of the *draws*, and is taken off the
pictures' side. See :func:`chance` and :meth:`Chance.reach`.

Simulated coverage of the 95% interval of a difference of AUC, as reports give it (slow tests in
tests/experiments/report/test_comparing.py): on 60 people with three photos each, single
rows and means over two detectors and two tests, 95.3% to 96.8% with 3 seeds and 94.9% to 95.9% with 5. In theory,
whatever the ratio of the two sources: 94.9% to 97.2% with 3 seeds, 95.0% to 96.4% with 5. It fails near the ceiling: at
an AUC of 0.98 with 30 groups a class, where a handful of groups makes all mistakes, it is 85% to 90%; with 200 groups a
class, 94% to 98%.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from crossfake.stats.bootstrap import Measured

Floats = npt.NDArray[np.float64]
Verdict = Literal["helped", "hurt", "no difference shown"]
Z = 1.959963984540054  # how many standard errors a 95% interval of the normal distribution reaches


def percentile_interval(draws: npt.ArrayLike, level: float = 0.95) -> Floats:
    """Where the middle of a bootstrap's draws lies (Efron 1979).

    Args:
        draws: ``[R, ...]``, of each resample; nan where it leaves the figure undefined, which then does not count.
        level: share of the draws inside.

    Returns:
        float64 ``[2, ...]``, low and high; nan where no resample defines the figure.

    Example:
        >>> percentile_interval(np.arange(101), level=0.5).tolist()
        [25.0, 75.0]
    """
    values = np.asarray(draws, np.float64)
    tails = [(1 - level) / 2, (1 + level) / 2]
    unknown = np.isnan(values)
    if not unknown.any():
        return np.asarray(np.quantile(values, tails, axis=0))
    found = np.full((2, *values.shape[1:]), np.nan)
    known = ~unknown.all(axis=0)
    found[:, known] = np.nanquantile(values[:, known], tails, axis=0)
    return found


def wilson(share: npt.ArrayLike, count: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Ends of the 95% interval of shares ``[N]`` of ``count`` independent cases each (Wilson 1927).

    Counts need not be whole, as those of :func:`share_interval`, which scipy's ``binomtest`` asks for.

    Example:
        >>> [round(float(end), 3) for end in wilson(0.5, 10)]
        [0.237, 0.763]
    """
    share, count = np.asarray(share, np.float64), np.asarray(count, np.float64)
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def share_interval(hits: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[float, float]:
    """95% interval of a share, where those of a group go together.

    Wilson's, for as many independent cases as the spread between groups leaves (Korn & Graubard 1998), and never for
    more than there are. Where all are alike, nothing is known of that spread: then as many as there would be if those
    of a group were one.

    Args:
        hits: 0 or 1, ``[N]``.
        groups: what belongs together, ``[N]``.

    Example:
        >>> low, high = share_interval([0] * 20, range(20))
        >>> low, round(high, 3)
        (0.0, 0.161)
    """
    case = np.asarray(hits, np.float64)
    number, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)[1:]
    share, n = float(case.mean()), len(case)
    alone = share * (1 - share) * n
    effect = float(np.sum(size**2)) / n
    if 1 < len(size) < n and alone > 0:
        apart = np.bincount(number, case - share) ** 2
        effect = max(1.0, float(apart.sum()) / alone * len(size) / max(1, len(size) - 1))
    low, high = wilson(share, n / effect)
    return float(low), float(high)


def clopper_pearson(hits: float, count: float) -> tuple[float, float]:
    """The exact 95% interval of a share (Clopper and Pearson 1934), also of counts that are not whole.

    Example:
        >>> low, high = clopper_pearson(0, 100)
        >>> low, round(high, 4)
        (0.0, 0.0362)
    """
    from scipy.special import betaincinv

    low = float(betaincinv(hits, count - hits + 1, 0.025)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0
    return low, high


@dataclass(frozen=True)
class Estimate:
    """A mean over ``seeds`` seeds (the fewest, where several things were averaged) with its interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half_width(self) -> float:
        """What stands behind ± in tables."""
        return (self.high - self.low) / 2

    def verdict(self, higher_is_better: bool = True) -> Verdict:
        """What a difference (with minus without) shows: only an interval that excludes zero says anything.

        Example:
            >>> Estimate(0.10, 0.04, 0.16, seeds=3).verdict()
            'helped'
        """
        low, high = (self.low, self.high) if higher_is_better else (-self.high, -self.low)
        return "helped" if low > 0 else "hurt" if high < 0 else "no difference shown"


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
    pictures = np.maximum(percentile_interval(draws) * [-1, 1] + [mean, -mean], 0.0) / Z
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
