"""Is a difference more than chance, how large is it, and could this experiment have seen it? Pure functions, float64.

Two tests stand side by side. :func:`bootstrap_p` belongs to the intervals of ``intervals.py`` and
speaks of the method: pictures and trainings are both chance. :func:`delong` compares two *given* detectors on a
test set: only the pictures are chance, so its p value says nothing about another seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfake.stats.bootstrap import Measured
from crossfake.stats.intervals import Estimate, Z, chance
from crossfake.stats.ranking import checked

Floats = npt.NDArray[np.float64]
# the logarithm of the smallest p value (1e-100) that is told from zero: further down scipy's t has gaps (nan) between
# whole degrees of freedom
_LEAST = -230.0


@dataclass(frozen=True)
class Paired:
    """Two AUCs on the same pictures, their difference (b minus a) with its interval, and the two-sided p value."""

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    p: float


def delong(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Paired:
    """Two detectors' AUCs on the same pictures, after DeLong, DeLong and Clarke-Pearson (1988).

    By midranks in O(N log N) (Sun & Xu 2014, eq. 7 to 10): 100,000 pictures take a fraction of a second.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores_a, scores_b: ``[N]``, higher is more likely fake; same pictures, same order.
        groups: ``[N]``, what belongs together (a person, a video); its rows then count as dependent, by Obuchowski
            (1997, eq. 4 and 5). None takes every picture for itself, as DeLong does.
        level: of the interval, which is the normal one.

    Returns:
        p is 1 where both order the pictures alike, 0 where they differ and the variance is nil.

    Raises:
        ValueError: lengths differ, a score is not a number, or a class has fewer than two groups.

    Example:
        >>> delong([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6], [1, 4, 3, 2, 5, 6]).difference
        -0.11111111111111116
    """
    from scipy import stats

    fake, member = _checked(labels, scores_a, scores_b, groups=groups)
    auc_a, places_a = _placements(fake, scores_a)
    auc_b, places_b = _placements(fake, scores_b)
    difference = auc_b - auc_a
    error = np.sqrt(_variance(fake, places_b - places_a, difference, member))
    reach = stats.norm.ppf((1 + level) / 2) * error
    p = float(2 * stats.norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)
    low, high = max(-1.0, difference - reach), min(1.0, difference + reach)
    return Paired(auc_a, auc_b, difference, float(low), float(high), p)


def delong_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """One detector's AUC with DeLong's interval, taken on the logit scale (Pepe 2003, section 5.2.4).

    It cannot leave [0, 1]. Where the classes are parted without a mistake the variance is nil, and so is the width:
    such an interval does not say that the AUC is known.

    Args and raises: as :func:`delong`.

    Example:
        >>> found = delong_interval([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
        >>> round(found.low, 2), round(found.mean, 2), round(found.high, 2)
        (0.26, 0.89, 0.99)
    """
    from scipy import special, stats

    fake, member = _checked(labels, scores, groups=groups)
    auc, places = _placements(fake, scores)
    error = np.sqrt(_variance(fake, places, auc, member))
    if not error > 0 or auc in (0, 1):
        return Estimate(auc, auc, auc, seeds=1)
    reach = stats.norm.ppf((1 + level) / 2) * error / (auc * (1 - auc))
    low, high = special.expit(special.logit(auc) + np.array([-reach, reach]))
    return Estimate(auc, float(low), float(high), seeds=1)


def bootstrap_p(*parts: Measured) -> float:
    """Two-sided p value of "no difference", from the same chance that ``intervals.estimate`` makes its interval of.

    It is below 0.05 exactly where the 95% interval leaves out zero, and likewise at every other level. Several parts
    are averaged as independent trainings, as there. With one seed it speaks of the pictures alone.

    Example:
        >>> pictures = np.random.default_rng(0).normal(0.03, 0.005, 2000)  # the same chance for every seed
        >>> gain = Measured(np.array([0.02, 0.03, 0.04]), np.tile(pictures, (3, 1)))
        >>> round(bootstrap_p(gain), 3)
        0.034
    """
    from scipy import optimize

    found = chance(*parts)
    side = 0 if found.mean > 0 else 1  # the side that zero lies on

    def beyond_zero(exponent: float) -> float:
        return float(found.reach(np.exp(exponent))[side] - abs(found.mean))

    if found.mean == 0:
        return 1.0
    if beyond_zero(_LEAST) < 0:
        return 0.0
    return float(np.exp(optimize.brentq(beyond_zero, _LEAST, 0.0)))


def holm(p_values: npt.ArrayLike) -> Floats:
    """p values adjusted for being one of a family (Holm 1979): below 0.05 all of them hold together at 5%.

    Args:
        p_values: ``[M]`` in [0, 1], all tests of the family, whatever came out.

    Returns:
        float64 ``[M]`` in the same order.

    Raises:
        ValueError: a value is no probability.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values must be a list of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def cliffs_delta(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """How often a value of ``a`` exceeds one of ``b``, less how often it falls short (Cliff 1993); in [-1, 1].

    Raises:
        ValueError: a list is empty or holds nan.

    Example:
        >>> cliffs_delta([2, 3, 4], [1, 2])
        0.8333333333333333
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    labels = np.repeat([1, 0], [len(a), len(b)])
    fake, _ = _checked(labels, both := np.concatenate([a, b]), fewest=1)
    return 2 * _placements(fake, both)[0] - 1


def cohens_d_paired(per_seed_differences: npt.ArrayLike) -> float:
    """The mean difference in units of its standard deviation over seeds (Cohen 1988, section 2.3.5, d_z).

    With few seeds it is too large on average: by 1.77 with three, by 1.25 with five (Hedges 1981, eq. 6).

    Returns:
        nan for fewer than two differences; infinite where all are the same, and zero where all are zero.

    Example:
        >>> round(cohens_d_paired([0.02, 0.03, 0.04]), 6)
        3.0
    """
    values = np.asarray(per_seed_differences, dtype=np.float64)
    if len(values) < 2:
        return float("nan")
    mean, spread = values.mean(), values.std(ddof=1)
    if np.ptp(values) == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return float(mean / spread)


def detectable(difference: Estimate) -> float:
    """The true difference that would be found four times in five, from the width of the 95% interval.

    A difference of z(0.975) + z(0.8) standard errors is found so often; the interval reaches z(0.975).
    """
    return difference.half_width * (Z + 0.841621) / Z


def minimum_detectable(
    n_real: int,
    n_fake: int,
    seeds: int,
    *,
    auc: float = 0.7,
    correlation: float = 0.5,
    seed_spread: float = 0.02,
    power: float = 0.8,
    level: float = 0.05,
    groups_per_row: float = 1.0,
) -> float:
    """The smallest true difference of AUC between two conditions that such an experiment would probably show.

    The variance of an AUC is Hanley & McNeil's (1982, eq. 1 to 3), that of a difference on the same pictures takes
    their correlation off (1983, eq. 1), and the seeds' variance comes on top. The power is that of the
    interval of ``intervals.estimate``. Averaging over seeds is not counted as
    making the pictures' chance smaller, so the answer errs on the large side.

    Args:
        n_real, n_fake: pictures of one test set.
        seeds: trainings per condition. With one, the seeds' spread is in neither the interval nor this figure.
        auc: expected of both conditions.
        correlation: of the two conditions' AUCs over test sets.
        seed_spread: standard deviation over seeds of the difference of AUC.
        power: how probably the difference is to be shown.
        level: of the two-sided test; divide 0.05 by the size of the family for Holm's first step.
        groups_per_row: independent groups (people, videos) per picture; fewer than one takes the pictures of a group
            for copies of each other, the worst case.

    Returns:
        A difference of AUC. More than ``1 - auc`` means: no improvement could be shown.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> round(minimum_detectable(600, 600, seeds=3), 3)
        0.072
    """
    from scipy import optimize, stats

    for name, inside in {
        "n_real and n_fake": min(n_real, n_fake) * groups_per_row >= 2,
        "seeds": seeds >= 1,
        "auc": 0 < auc < 1,
        "correlation": -1 <= correlation < 1,
        "seed_spread": seed_spread >= 0,
        "power": level < power < 1,
        "level": 0 < level < 1,
        "groups_per_row": 0 < groups_per_row <= 1,
    }.items():
        if not inside:
            raise ValueError(f"{name}: out of range")
    real, fake = n_real * groups_per_row, n_fake * groups_per_row
    two_fakes, two_reals = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    one = (auc * (1 - auc) + (fake - 1) * (two_fakes - auc**2) + (real - 1) * (two_reals - auc**2)) / (
        real * fake
    )
    training = seed_spread**2 / seeds if seeds > 1 else 0.0
    variance = 2 * one * (1 - correlation) + training
    # what the seeds' variance may be estimated at, as equally probable values, and the difference that then counts
    estimates = np.zeros(1)
    if training:
        estimates = training * stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, seeds - 1) / (seeds - 1)
    errors = np.sqrt(variance - training + estimates)
    freedom = seeds - 1 if training else np.inf
    normal, students = stats.norm.isf(level / 2), stats.t.isf(level / 2, freedom)
    needed = errors * (normal + estimates / errors**2 * (students - normal))

    def missing(difference: float) -> float:
        shown = stats.norm.cdf(np.subtract.outer([difference, -difference], needed) / np.sqrt(variance))
        return float(power - shown.sum(0).mean())

    return float(optimize.brentq(missing, 0.0, needed.max() + 10 * np.sqrt(variance)))


def _checked(
    labels: npt.ArrayLike, *scores: npt.ArrayLike, groups: npt.ArrayLike | None = None, fewest: int = 2
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp] | None]:
    """Which rows are fakes, and each row's group as a number."""
    fake = [checked(labels, column)[0] for column in scores][0] == 1
    member = None
    if groups is not None:
        member = np.unique(np.asarray(groups), return_inverse=True)[1]
        if member.shape != fake.shape:
            raise ValueError("every row needs a group")
    for chosen in (fake, ~fake):
        if (chosen.sum() if member is None else len(np.unique(member[chosen]))) < fewest:
            raise ValueError(f"reals and fakes: at least {fewest} of each (groups, where they are given)")
    return fake, member


def _placements(fake: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> tuple[float, Floats]:
    """The AUC, and each picture's share of the other class that it is on the right side of; ties count half.

    Sun & Xu (2014), eq. 8 to 10: midrank among all, less midrank within the class.
    """
    from scipy.stats import rankdata

    scores = np.asarray(scores, dtype=np.float64)
    fakes, reals = int(fake.sum()), int((~fake).sum())
    among_all = rankdata(scores)
    places = np.empty(len(scores))
    places[fake] = (among_all[fake] - rankdata(scores[fake])) / reals
    places[~fake] = 1 - (among_all[~fake] - rankdata(scores[~fake])) / fakes
    return float(places[fake].mean()), places


def _variance(
    fake: npt.NDArray[np.bool_], places: Floats, auc: float, member: npt.NDArray[np.intp] | None
) -> float:
    """Variance of the mean placement, or of a difference of two of them: both are sums over pictures.

    Obuchowski (1997), eq. 4 and 5; without groups it is DeLong's.
    """
    off = places - auc
    if member is None:
        return float(off[fake].var(ddof=1) / fake.sum() + off[~fake].var(ddof=1) / (~fake).sum())
    count = int(member.max()) + 1
    sums, squares = [], 0.0
    for chosen in (fake, ~fake):
        held = len(np.unique(member[chosen]))
        sums.append(np.bincount(member[chosen], off[chosen], count) / chosen.sum())
        squares += held / (held - 1) * float(sums[-1] @ sums[-1])
    return squares + 2 * count / (count - 1) * float(sums[0] @ sums[1])
