"""Kernel Inception Distance (Bińkowski et al. 2018, "Demystifying MMD GANs")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.synth.quality.moments import Measurement

Features = npt.NDArray[np.float32]
_SUBSETS, _SUBSET_SIZE = 100, 1000  # what packages do, and papers quote
_BLOCKS = 10  # that the jackknife leaves out one by one


@dataclass(frozen=True)
class Kid:
    """What was found.

    Attributes:
        whole: the unbiased estimate from all images, with a jackknife's standard error.
        mean, deviation: over ``subsets`` random subsets of ``size`` images from each side; None where there are too
            few images for subsets that differ.
    """

    whole: Measurement
    mean: float | None
    deviation: float | None
    subsets: int
    size: int


def kid(
    real: Features, fake: Features, seed: int = 0, subsets: int = _SUBSETS, size: int = _SUBSET_SIZE
) -> Kid:
    """Squared maximum mean discrepancy with the kernel (x·y / d + 1)³, without bias (their eq. 4).

    It may fall a little below zero where there is no difference, and does not depend on how many images there are.

    Args:
        real, fake: ``[n, d]`` and ``[m, d]``, two rows or more each.
        seed: of the subsets.
        subsets: how many.
        size: images in each; no more than half of a side, or they would be the same images again and again.

    Example:
        >>> draw = np.random.default_rng(0).normal
        >>> same = kid(draw(size=(200, 8)), draw(size=(200, 8)))
        >>> abs(same.whole.value) < 4 * same.whole.standard_error
        True
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(side, np.float32)) for side in (real, fake))
    size = min(size, len(x) // 2, len(y) // 2)
    rng = np.random.RandomState(seed)  # torch-fidelity's, so that its subsets are drawn
    found: list[float] = []
    for _ in range(subsets if size > 1 else 0):
        a, b = (side[torch.from_numpy(rng.choice(len(side), size, replace=False))] for side in (x, y))
        found.append(_mmd2(_sums([a], [a]), _sums([b], [b]), _sums([a], [b]), [size], [size]))
    mean, deviation = (float(np.mean(found)), float(np.std(found))) if found else (None, None)
    return Kid(_whole(x, y), mean, deviation, len(found), size)


def _whole(x: Tensor, y: Tensor) -> Measurement:
    """Of all images; the jackknife needs only the sums of the kernel over pairs of blocks."""
    parts = [list(side.tensor_split(min(_BLOCKS, len(side) // 2))) for side in (x, y)]
    counts = [[len(part) for part in side] for side in parts]
    within, across = [_sums(side, side) for side in parts], _sums(*parts)
    value = _mmd2(within[0], within[1], across, counts[0], counts[1])
    variance = 0.0
    for axis in range(2):
        k = len(parts[axis])
        if k < 2:
            return Measurement(value, None, None)
        without = []
        for left_out in range(k):
            kept = [n for n in range(k) if n != left_out]
            own = list(within)
            own[axis] = own[axis][np.ix_(kept, kept)]
            shorter = list(counts)
            shorter[axis] = [counts[axis][n] for n in kept]
            without.append(_mmd2(own[0], own[1], across.take(kept, axis=axis), shorter[0], shorter[1]))
        variance += (k - 1) * float(np.var(without))
    return Measurement(value, float(np.sqrt(variance)), None)


def _sums(a: list[Tensor], b: list[Tensor]) -> npt.NDArray[np.float64]:
    """The kernel summed over each pair of blocks; of a block with itself, without its diagonal."""
    sums = np.empty((len(a), len(b)))
    for i, rows in enumerate(a):
        for j, columns in enumerate(b):
            kernel = (rows @ columns.T / rows.shape[1] + 1).double() ** 3
            sums[i, j] = float(kernel.sum() - (kernel.trace() if rows is columns else 0))
    return sums


def _mmd2(
    xx: npt.NDArray[np.float64],
    yy: npt.NDArray[np.float64],
    xy: npt.NDArray[np.float64],
    counts_x: list[int],
    counts_y: list[int],
) -> float:
    n, m = sum(counts_x), sum(counts_y)
    return float(xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.sum() / (n * m))
