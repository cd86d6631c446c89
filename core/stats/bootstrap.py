"""The cluster bootstrap (Efron 1979): whole groups (a person, a source photo) are drawn with replacement.

A resample is how often each row was drawn, so a statistic of weights ``[B, N]`` is asked about many resamples at once.
What is measured on the same resamples stays paired: see :class:`Measured`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Counts = npt.NDArray[np.uint16]
Statistic = Callable[[Counts], Mapping[str, Floats]]
Figures = Callable[[Any, Any, Any], Mapping[str, Floats]]
_MANY = 30  # groups: that a resample misses all of them has a chance of e^-30
_AT_A_TIME = 1_000_000  # weights in a chunk of resamples: 8 MB an array


def bootstrap(
    statistic: Statistic,
    groups: npt.ArrayLike,
    n: int,
    seed: int | np.random.Generator = 0,
    labels: npt.ArrayLike | None = None,
) -> dict[str, Floats]:
    """Figures on ``n`` resampled test sets, of which no more are held at a time than fit a few megabytes.

    Args:
        statistic: counts uint16 ``[B, N]``, how often each resample drew each row, to figures ``[B]`` by name.
        groups, n, seed, labels: as :func:`cluster_resamples`, whose draws these are.

    Returns:
        float64 ``[n]`` by name.

    Example:
        >>> values = np.array([1.0, 2.0, 6.0])
        >>> draws = bootstrap(lambda times: {"mean": times @ values / times.sum(1)}, groups=[0, 1, 2], n=1000)
        >>> round(float(draws["mean"].mean()), 1)
        3.0
    """
    member, stratum = _groups(groups, labels)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // len(member))
    sizes = [min(step, n - first) for first in range(0, n, step)]
    parts: Iterable[Counts]
    if labels is None:  # one stratum, drawn part by part as it would be at once
        parts = (_times(stratum, size, rng) for size in sizes)
    else:
        parts = np.split(_times(stratum, n, rng), np.cumsum(sizes)[:-1])
    return _joined(statistic(times[:, member]) for times in parts)


def cluster_resamples(
    groups: npt.ArrayLike,
    n: int,
    seed: int | np.random.Generator = 0,
    labels: npt.ArrayLike | None = None,
) -> Counts:
    """``n`` resampled test sets, as how often each drew every row: whole groups, drawn with replacement.

    With labels, groups are drawn within their stratum (only real rows, only fake ones, or both), so a class never
    vanishes. Where many groups have both, they are drawn with those of reals alone, as one of many would hardly vanish:
    so tests against the same reals resample these alike, whosever faces their fakes show.

    Args:
        groups: ``[N]``, any dtype that ``np.unique`` takes; rows of one group always come together.
        n: how many resamples.
        seed: same seed, same resamples; a generator is drawn from.
        labels: ``[N]``, 0 real and 1 fake; without, all groups are of one stratum.

    Returns:
        uint16 ``[n, N]``.

    Example:
        >>> cluster_resamples(["a", "b", "b"], n=2, labels=[0, 1, 1])
        array([[1, 1, 1],
               [1, 1, 1]], dtype=uint16)
    """
    member, stratum = _groups(groups, labels)
    return _times(stratum, n, np.random.default_rng(seed))[:, member]


def on_resamples(statistic: Statistic, resamples: Counts) -> dict[str, Floats]:
    """As :func:`bootstrap`, on resamples of :func:`cluster_resamples` that several quantities are to share."""
    step = max(1, _AT_A_TIME // resamples.shape[1])
    return _joined(statistic(resamples[first : first + step]) for first in range(0, len(resamples), step))


@dataclass(frozen=True)
class Measured:
    """One quantity on one test set: its value per seed, and on every resampled test set.

    Draws stay apart by seed: how far seeds differ in them is what ``intervals.chance`` takes off the pictures' side.

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


def measure(
    labels: npt.ArrayLike, scores: npt.ArrayLike, figures: Figures, resamples: Counts
) -> dict[str, Measured]:
    """Figures on one test set, for every seed, as the pictures are and on every resample.

    Args:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[S, N]``, one row per training seed, on the same pictures in the same order.
        figures: ``figures(labels, scores, weights [B, N]) -> {name: [B]}``, for example
            ``crossfake.stats.ranking.weighted``.
        resamples: from :func:`cluster_resamples`; give both arms the same.
    """
    labels, scores = np.asarray(labels), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    whole = np.ones((1, len(labels)), np.uint16)
    found: dict[str, list[Measured]] = {}
    for row in scores:
        draws = on_resamples(lambda weights, row=row: figures(labels, row, weights), resamples)  # type: ignore[misc]
        for name, value in figures(labels, row, whole).items():
            found.setdefault(name, []).append(Measured(value, draws[name][None]))
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


def _groups(groups: npt.ArrayLike, labels: npt.ArrayLike | None) -> tuple[Indices, Indices]:
    """Number of each row's group ``[N]``, and of each group's stratum ``[G]``."""
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(member)
    if labels is None:
        return member, np.zeros(len(sizes), np.intp)
    fakes = np.bincount(member, weights=np.asarray(labels))
    stratum = np.where(fakes == 0, 0, np.where(fakes == sizes, 1, 2))
    if (stratum == 2).sum() >= _MANY:
        stratum[stratum == 2] = 0
    return member, stratum


def _times(stratum: Indices, n: int, rng: np.random.Generator) -> Counts:
    """How often each of ``n`` resamples drew each group, ``[n, G]``."""
    drawn = np.zeros((n, len(stratum)), np.uint16)
    for kind in np.unique(stratum):
        inside = np.flatnonzero(stratum == kind)
        drawn[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=n)
    return drawn


def _joined(parts: Iterable[Mapping[str, Floats]]) -> dict[str, Floats]:
    found: dict[str, list[Floats]] = {}
    for part in parts:
        for name, values in part.items():
            found.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in found.items()}
