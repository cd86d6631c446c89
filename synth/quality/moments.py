"""Mean and covariance of a stream of feature vectors, and standard errors for what is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crossfake.errors import UserError
from crossfake.stats.intervals import Z

Vector = npt.NDArray[np.float64]

_CHUNK = 4096  # rows folded in at once: adding two d×d matrices per batch would cost more than the rows do


@dataclass(frozen=True)
class Moments:
    """First and second moments of ``n`` vectors in float64; ``a + b`` are those of both sets together.

    Attributes:
        n: number of vectors.
        mean: ``[d]``.
        scatter: ``[d, d]``, the sum of outer products of deviations from the mean.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(30, 4))
        >>> both = Moments.of(vectors[:7]) + Moments.of(vectors[7:])
        >>> bool(np.allclose(both.covariance, np.cov(vectors, rowvar=False)))
        True
    """

    n: int
    mean: Vector
    scatter: Vector

    @classmethod
    def of(cls, vectors: npt.ArrayLike) -> Moments:
        """Moments of the rows of ``[n, d]``."""
        rows = np.asarray(vectors, np.float64)
        mean = rows.mean(axis=0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        """Chan et al. 1983, "Algorithms for computing the sample variance", eq. 2.1."""
        n = self.n + other.n
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(shift, shift * (self.n * other.n / n))
        return Moments(n, self.mean + shift * (other.n / n), scatter)

    @property
    def covariance(self) -> Vector:
        """``[d, d]``, with n - 1 in the denominator; needs two vectors."""
        if self.n < 2:
            raise ValueError("the covariance of fewer than two vectors is not defined")
        return self.scatter / (self.n - 1)

    @cached_property
    def root(self) -> Vector:
        """A matrix R with R Rᵀ = covariance; kept, because one set is compared with many.

        ``[d, r]``: fewer vectors than d span fewer directions, and whatever is made of R becomes that much smaller.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        rank = min(self.n - 1, len(values))
        root: Vector = vectors[:, -rank:] * np.sqrt(values[-rank:].clip(min=0))
        return root


def collect(features: Callable[[Tensor], npt.NDArray[np.floating]], batches: Iterable[Tensor]) -> Moments:
    """Moments of ``features(batch)`` over all batches; memory does not grow with their number."""
    total: Moments | None = None
    waiting: list[npt.NDArray[np.floating]] = []
    for batch in batches:
        waiting.append(features(batch))
        if sum(map(len, waiting)) >= _CHUNK:
            chunk = Moments.of(np.concatenate(waiting))
            total, waiting = (total + chunk if total else chunk), []
    rest = [Moments.of(np.concatenate(waiting))] if waiting else []
    return merge([*([total] if total else []), *rest])


def merge(blocks: Sequence[Moments]) -> Moments:
    """Moments of all blocks together."""
    return reduce(add, blocks)


class Measurement(NamedTuple):
    """A figure, its standard error, and the figure with its bias of order 1/n taken off."""

    value: float
    standard_error: float | None
    debiased: float | None


def interval(estimate: Measurement, share: bool = False) -> dict[str, Any]:
    """The figure with its standard error and the 95% interval that follows; of a ``share`` within 0 and 1.

    ``debiased`` has the part taken off that comes from comparing samples instead of whole distributions, which
    for FID is large below some 10,000 images (Chong and Forsyth 2020); it may fall a little below zero. The figure's
    own interval is of samples of this size, that of ``debiased`` of the distributions.
    """
    value, error = estimate.value, estimate.standard_error
    if not math.isfinite(value):
        raise UserError(
            "a figure is not a number", hint="the network's weights file is damaged: fetch it again"
        )
    within = None if error is None else [value - Z * error, value + Z * error]
    if within and share:
        within = [max(0.0, within[0]), min(1.0, within[1])]
    figure = {"value": value, "standard_error": error, "interval": within}
    if estimate.debiased is not None and error is not None:
        low, high = estimate.debiased - Z * error, estimate.debiased + Z * error
        figure |= {"debiased": estimate.debiased, "debiased_interval": [low, high]}
    return figure


def jackknife(
    distance: Callable[[Moments, Moments], float], real: Sequence[Moments], fake: Sequence[Moments]
) -> Measurement:
    """A symmetric distance between two samples that are given as random blocks of about equal size.

    Leaving out one block at a time, on each side in turn, gives the variance and the bias that come from
    the finite samples (Tukey 1958, Quenouille 1956). Both are None when a side has fewer than two blocks.
    """
    whole_real, whole_fake = merge(real), merge(fake)
    value = distance(whole_real, whole_fake)
    if min(len(real), len(fake)) < 2:
        return Measurement(value, None, None)
    variance, bias = 0.0, 0.0
    for fixed, blocks in ((whole_fake, real), (whole_real, fake)):
        k = len(blocks)
        without = np.array([distance(fixed, merge([*blocks[:i], *blocks[i + 1 :]])) for i in range(k)])
        variance += (k - 1) * float(without.var())
        bias += (k - 1) * (float(without.mean()) - value)
    return Measurement(value, float(np.sqrt(variance)), value - bias)
