"""Copies and nearest neighbours among the pictures looked at, by perceptual hash."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crossfake.datasets.fingerprints import BITS, Codes

_ROWS = 256  # codes compared at a time: memory stays flat


def nearest(
    some: Codes, others: Codes, same: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Differing bits of every code to its nearest other one, and which one that is.

    Args:
        some: uint64 ``[N, words]``.
        others: uint64 ``[M, words]``, M at least 1.
        same: both are the same array, and no code counts as its own neighbour.

    Example:
        >>> codes = np.array([[0], [1], [7]], np.uint64)
        >>> nearest(codes, codes, same=True)
        (array([1, 1, 2]), array([1, 0, 1]))
    """
    best = np.full(len(some), BITS + 1)
    where = np.zeros(len(some), np.int64)
    for start in range(0, len(some), _ROWS):
        block = some[start : start + _ROWS]
        apart = np.zeros((len(block), len(others)), np.int64)
        for word in range(some.shape[1]):  # one word at a time: a third of the memory of all at once
            apart += np.bitwise_count(block[:, None, word] ^ others[None, :, word])
        if same:
            rows = np.arange(len(block))
            apart[rows, start + rows] = BITS + 1
        where[start : start + _ROWS] = apart.argmin(axis=1)
        best[start : start + _ROWS] = apart.min(axis=1)
    return best, where


def families(pairs: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """A number for each of ``count`` rows, the same for rows that pairs ``[P, 2]`` link, directly or by others.

    Example:
        >>> families(np.array([[0, 2]]), 4).tolist()
        [0, 1, 0, 2]
    """
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)
