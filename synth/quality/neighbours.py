"""What nearest neighbours among features say: precision, recall, density, coverage, and copies."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.synth.quality.moments import Measurement

Features = npt.NDArray[np.float32]
_CHUNK = 1024  # rows whose distances are held at once


class Manifolds(NamedTuple):
    """The four figures. Errors are of the mean over images, the other side taken as given."""

    precision: Measurement
    recall: Measurement
    density: Measurement
    coverage: Measurement


def manifolds(real: Features, fake: Features, k: int = 3, k_density: int = 5) -> Manifolds:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A side's manifold is the union of balls around its images, each reaching to the k-th nearest other one. Precision
    is the share of fakes within the reals' manifold, recall that of reals within the fakes'. Density counts how many
    balls of reals a fake is in, over k, and coverage is the share of reals in whose ball there is a fake; both of
    these are less moved by odd images.

    Args:
        real, fake: ``[n, d]`` and ``[m, d]``, more than ``k_density`` rows each.
        k: for precision and recall.
        k_density: for density and coverage.

    Example:
        >>> grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
        >>> found = manifolds(grid, grid[:32] + 0.1)
        >>> found.precision.value, found.recall.value
        (1.0, 0.625)
    """
    center = real.mean(axis=0)  # smaller numbers lose less in the products
    x, y = (torch.from_numpy(np.ascontiguousarray(side - center, np.float32)) for side in (real, fake))
    radii_x, radii_y = radii(x, (k, k_density)), radii(y, (k,))
    precise, dense = torch.zeros(len(y), dtype=torch.bool), torch.zeros(len(y))
    recalled, nearest = torch.zeros(len(x), dtype=torch.bool), torch.full((len(x),), math.inf)
    for start in range(0, len(y), _CHUNK):
        rows = slice(start, start + _CHUNK)
        squared = _squared(y[rows], x)  # [chunk, n]
        precise[rows] = (squared <= radii_x[0]).any(dim=1)
        dense[rows] = (squared <= radii_x[1]).sum(dim=1) / k_density
        recalled |= (squared <= radii_y[0][rows, None]).any(dim=0)
        nearest = torch.minimum(nearest, squared.min(dim=0).values)
    return Manifolds(_mean(precise), _mean(recalled), _mean(dense), _mean(nearest <= radii_x[1]))


def realism(real: Features, fake: Features, k: int = 3) -> Features:
    """How well each fake lies among the reals (Kynkäänniemi et al. 2019, eq. 3), ``[m]``: 1 and more is within.

    The largest ratio, over reals, of the radius to the k-th nearest other real and the distance to the fake. As
    there, only the smaller half of the radii count, since balls of lone reals are large.

    Args:
        real, fake: ``[n, d]`` and ``[m, d]``, more than ``k`` reals.

    Example:
        >>> line = np.arange(8.0)[:, None]
        >>> realism(line, np.array([[3.5], [20.0]]), k=1).round(3).tolist()
        [2.0, 0.077]
    """
    center = real.mean(axis=0)
    x, y = (torch.from_numpy(np.ascontiguousarray(side - center, np.float32)) for side in (real, fake))
    squared = radii(x, (k,))[0]
    small = squared <= squared.median()
    ratios = squared[small] / _squared(y, x[small]).clamp(min=1e-12)
    found: Features = ratios.max(dim=1).values.sqrt().numpy()
    return found


def radii(x: Tensor, ks: tuple[int, ...]) -> Tensor:
    """Squared distance of every row ``[n, d]`` to its k-th nearest other one, ``[len(ks), n]``."""
    found = torch.empty(len(ks), len(x))
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        smallest = (
            _squared(x[rows], x).topk(max(ks) + 1, largest=False).values
        )  # the row itself is one of them
        found[:, rows] = smallest[:, list(ks)].T
    return found


def nearest(fake: Features, real: Features, count: int = 1) -> tuple[npt.NDArray[np.int64], Features]:
    """Of every fake the ``count`` reals at the least cosine distance, 1 - |cos|, nearest first.

    Returns:
        Rows of ``real`` ``[m, count]`` and the distances ``[m, count]``.
    """
    x, y = (
        torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(side, np.float32)))
        for side in (real, fake)
    )
    found = [(y[k : k + _CHUNK] @ x.T).abs().topk(count) for k in range(0, len(y), _CHUNK)]
    return (
        torch.cat([each.indices for each in found]).numpy(),
        1 - torch.cat([each.values for each in found]).numpy(),
    )


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances ``[n, m]``."""
    lengths = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp_(min=0)


def _mean(each: Tensor) -> Measurement:
    each = each.double()
    return Measurement(float(each.mean()), float(each.std(correction=0)) / math.sqrt(len(each)), None)
