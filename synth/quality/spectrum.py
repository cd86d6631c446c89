"""Radially averaged power spectra: upsampling leaves marks in the high frequencies that eyes do not see.

Durall et al. 2020, "Watch your up-convolution" (the azimuthal integral, eq. 4); Dzanic et al. 2020, "Fourier
spectrum discrepancies in deep network generated images".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.synth.quality.moments import Moments

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what "greyscale" means in Durall et al.


def frequencies(size: int) -> npt.NDArray[np.float64]:
    """Cycles per pixel of the bins of :func:`radial_spectrum`, up to Nyquist's 0.5: ``[size // 2]``."""
    return np.arange(1, size // 2 + 1) / size


def radial_spectrum(images: Tensor) -> npt.NDArray[np.float64]:
    """Log power of each image per ring of equal frequency, in dB.

    Luminance less its mean, times a Hann window (the jump between opposite borders would drown the high
    frequencies), Fourier transformed; the mean power over the ring that rounds to k cycles per image,
    k = 1 … size/2. The power of rounding to whole numbers (variance 1/12) is added: what is weaker cannot
    be told from it, and a flat image has a finite logarithm.

    Args:
        images: uint8 ``[B, 3, H, H]``.

    Returns:
        float64 ``[B, H // 2]``.

    Example:
        >>> radial_spectrum(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape
        (2, 8)
    """
    size = images.shape[-1]
    luma = torch.einsum("bchw,c->bhw", images.float(), torch.tensor(_LUMA, device=images.device))
    hann = torch.hann_window(size, device=images.device)
    window = hann[:, None] * hann
    energy = window.square().sum()
    power = torch.fft.rfft2((luma - luma.mean((1, 2), keepdim=True)) * window).abs().square() / energy
    ring, weight = _rings(size, images.device)
    inside = ring < size // 2
    sums = power.new_zeros(len(images), size // 2)
    sums.index_add_(1, ring[inside], (power.flatten(1) * weight)[:, inside])
    counts = power.new_zeros(size // 2).index_add_(0, ring[inside], weight[inside])
    decibels: npt.NDArray[np.float64] = (10 * torch.log10(sums / counts + 1 / 12)).cpu().double().numpy()
    return decibels


def log_spectral_distance(a: Moments, b: Moments) -> float:
    """Root mean square over frequency of the difference of two mean curves, in dB (Gray and Markel 1976)."""
    return float(np.sqrt(((a.mean - b.mean) ** 2).mean()))


def _rings(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ring number (from 0 for one cycle per image) and weight of each value that ``rfft2`` returns.

    The half plane leaves out mirror images, so what has one counts twice. Zero frequency gets a ring
    beyond the last, as the corners have.
    """
    down = torch.fft.fftfreq(size, 1 / size, device=device)[:, None]
    right = torch.fft.rfftfreq(size, 1 / size, device=device)
    ring = torch.sqrt(down**2 + right**2).round().long() - 1
    ring[ring < 0] = size
    weight = torch.full_like(right, 2.0)
    weight[0] = 1.0
    if size % 2 == 0:
        weight[-1] = 1.0
    return ring.flatten(), weight.expand(size, -1).flatten()
