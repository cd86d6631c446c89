"""Alias-free filters of StyleGAN3 (Karras et al. 2021, app. C), as matrices.

Zeros between samples, padding, filtering and dropping samples is one linear map along each axis. As a banded matrix it
computes only what is kept, and runs as a matrix product, at which processors are quickest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, kaiser_atten, kaiser_beta
from scipy.signal.windows import kaiser
from scipy.special import j1

Floats = npt.NDArray[np.float64]
TAPS = 6  # per sample of the slower rate
_NEGLIGIBLE = 1e-7  # of the largest singular value


def lowpass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Floats:
    """Kaiser-windowed low-pass that sums to 1: ``[taps]``, or ``[taps, taps]`` for a radially symmetric one.

    Args:
        taps: length; 1 does nothing.
        cutoff: frequency at which half is left, in cycles per unit of length (eq. 5).
        width: of the transition from pass to stop band.
        rate: samples per unit of length.
        radial: a jinc in place of the sinc: the same in all directions (eq. 7).

    Example:
        >>> lowpass(4, 1.0, 2.0, 8.0).round(3).tolist()
        [0.201, 0.299, 0.299, 0.201]
    """
    if taps == 1:
        return np.ones(1)
    if not radial:
        return np.asarray(firwin(taps, cutoff, width=width, fs=rate), np.float64)
    window = kaiser(taps, kaiser_beta(kaiser_atten(taps, width / (rate / 2))))
    at = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(at[:, None], at)  # never 0: the number of taps is even
    jinc = j1(2 * np.pi * cutoff * radius) / radius
    kernel = jinc * np.outer(window, window)
    return np.asarray(kernel / kernel.sum())


def upsampling(taps: Floats, factor: int, size: int, before: int, after: int) -> Floats:
    """``size`` samples, ``factor - 1`` zeros after each, ``before`` and ``after`` more at the ends, and the filter.

    Returns ``[size * factor + before + after - len(taps) + 1, size]``; a negative end is cut. The gain is ``factor``.

    Example:
        >>> upsampling(np.array([0.5, 0.5]), 2, 2, 0, 0)
        array([[1., 0.],
               [0., 1.],
               [0., 1.]])
    """
    rows = np.arange(size * factor + before + after - len(taps) + 1)[:, None]
    k = np.arange(size) * factor + before - rows  # which tap meets which sample
    return np.where((k >= 0) & (k < len(taps)), taps[k.clip(0, len(taps) - 1)], 0.0) * factor


def downsampling(taps: Floats, factor: int, outputs: int, size: int) -> Floats:
    """The filter at every ``factor``-th place of ``size`` samples: ``[outputs, size]``."""
    k = np.arange(size) - np.arange(outputs)[:, None] * factor
    return np.where((k >= 0) & (k < len(taps)), taps[k.clip(0, len(taps) - 1)], 0.0)


def separable(taps: Floats) -> list[tuple[Floats, float]]:
    """A symmetric filter as a sum of separable ones: vectors v and weights c with Σ c·outer(v, v).

    Three or four make a radial one to seven digits: its singular values fall by a hundred and more each.
    """
    if taps.ndim == 1:
        return [(taps, 1.0)]
    values, vectors = np.linalg.eigh(taps)
    order = np.argsort(-np.abs(values))
    kept = [k for k in order if abs(values[k]) > _NEGLIGIBLE * abs(values[order[0]])]
    return [(vectors[:, k], float(values[k])) for k in kept]
