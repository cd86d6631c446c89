"""Fréchet distances between features (Heusel et al. 2017), and what is made of them: FID∞ and MiFID."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfake.synth.quality.moments import Measurement, Moments, merge

_LEAST_SHARE = 0.5  # of the fakes, in the smallest sample that FID∞'s line goes through
_MEMORISED = 0.1  # cosine distance below which Kaggle's contest called an image a copy


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |μa - μb|² + tr(Σa + Σb - 2(Σa Σb)^½), never negative.

    With Σa = R Rᵀ, the eigenvalues of Σa Σb are those of the symmetric Rᵀ Σb R: real, quick to compute and
    good for singular covariances, where the general matrix square root is none of these.

    Example:
        >>> a = Moments.of([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> b = Moments(a.n, a.mean + 3.0, a.scatter)
        >>> round(frechet_distance(a, b), 6)
        18.0
    """
    eigenvalues = np.linalg.eigvalsh(a.root.T @ b.covariance @ a.root)
    cross = np.sqrt(eigenvalues.clip(min=0)).sum()
    traces = (np.trace(a.scatter) / (a.n - 1)) + (np.trace(b.scatter) / (b.n - 1))
    return max(0.0, float(((a.mean - b.mean) ** 2).sum() + traces - 2 * cross))


def fid_infinity(real: Moments, blocks: Sequence[Moments]) -> Measurement | None:
    """FID as it would be with endlessly many fakes (Chong & Forsyth 2020, "Effectively unbiased FID", sec. 3).

    FID falls in a line with 1/N. It is measured on growing parts of the fakes, each going round the blocks from
    another start, and the line is followed to 1/N = 0. The reals stay as many as they are.

    Args:
        real: all reals.
        blocks: random parts of the fakes, of about equal size.

    Returns:
        The line's start, with the standard error of the fit alone: it lacks what another sample of images would
        change. None for fewer than six blocks.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real = Moments.of(rng.normal(size=(20_000, 8)))
        >>> blocks = [Moments.of(rng.normal(size=(50, 8))) for _ in range(10)]
        >>> plain, endless = frechet_distance(real, merge(blocks)), fid_infinity(real, blocks)
        >>> plain > 0.03 and abs(endless.value) < 0.02
        True
    """
    count = len(blocks)
    if count < 6:
        return None
    inverse, distance = [], []
    for used in range(int(count * _LEAST_SHARE), count + 1):
        part = merge([blocks[(used * 3 + k) % count] for k in range(used)])
        inverse.append(1 / part.n)
        distance.append(frechet_distance(real, part))
    x, y = np.array(inverse), np.array(distance)
    design = np.stack([np.ones_like(x), x], axis=1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = float(((y - design @ solution) ** 2).sum()) / (len(x) - 2)
    error = float(np.sqrt(residual * np.linalg.inv(design.T @ design)[0, 0]))
    return Measurement(float(solution[0]), error, None)


def mifid(fid: float, nearest: float) -> float:
    """FID over the mean distance of a fake to the nearest real, where that is small enough to mean copying.

    The measure of Kaggle's contest "Generative Dog Images" (Bai et al. 2021, "On training sample memorization").

    Args:
        fid: the Fréchet distance.
        nearest: mean over fakes of the least cosine distance, 1 - |cos|, to a real.

    Example:
        >>> mifid(20.0, 0.3), mifid(20.0, 0.05)
        (20.0, 400.0)
    """
    return fid / (nearest + 1e-15) if nearest < _MEMORISED else fid
