"""A fake with the power spectrum of the photo that it was made of.

Autoencoders lose fine detail, so that a detector trained on photos and their reconstructions learns that fakes are
smoother. Published fakes need not be (Dzanic et al. 2020 correct their spectra with as little); what a decoder leaves
besides stays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from crossfake.datasets.types import Pixels

_RINGS = 64  # of equal frequency, in one cycle per pixel
_LAST = 46  # the corners', at the root of one half
_STRONGEST = 3.0  # gain, and its inverse: 9.5 dB
_BORDER = 16  # pixels that are mirrored on each side, so that borders do not ring
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def match_spectrum(fake: Pixels, photo: Pixels) -> Pixels:
    """``fake`` through a filter without phase, after which its radially averaged power is that of ``photo``.

    One smooth gain a frequency, of luminance, for all directions and channels, between 1/3 and 3: peaks of a grid and
    textures stay what they are.

    Args:
        fake: uint8 ``[H, W, 3]``.
        photo: uint8 ``[H, W, 3]``.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    gain = np.sqrt((_power(photo) + 1 / 12) / (_power(fake) + 1 / 12))  # 1/12: the power of rounding
    gain = np.convolve(np.pad(gain, 1, "edge"), [0.25, 0.5, 0.25], "valid").clip(1 / _STRONGEST, _STRONGEST)
    border = ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0))
    padded = np.pad(fake, border, "symmetric").astype(np.float32)
    shape = padded.shape[:2]
    curve = np.interp(_RINGS * _radius(*shape) - 0.5, np.arange(_LAST), gain).astype(np.float32)
    filtered = fft.irfft2(fft.rfft2(padded, axes=(0, 1)) * curve[:, :, None], shape, axes=(0, 1))
    inner = filtered[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return np.rint(inner).clip(0, 255).astype(np.uint8)


def _power(image: Pixels) -> npt.NDArray[np.float64]:
    """Mean power of luminance in each ring, ``[_LAST]``, in squared grey levels; a Hann window hides the borders."""
    height, width = image.shape[:2]
    luma = image @ _LUMA
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    power = np.abs(fft.rfft2((luma - luma.mean()) * window)).astype(np.float64) ** 2 / (window**2).sum()
    ring = np.minimum((_RINGS * _radius(height, width)).astype(np.int64), _LAST - 1).ravel()
    counts = np.bincount(ring, minlength=_LAST)
    return np.asarray(np.bincount(ring, power.ravel(), _LAST) / np.maximum(counts, 1))


def _radius(height: int, width: int) -> npt.NDArray[np.float64]:
    """Cycles per pixel of what ``rfft2`` returns: ``[height, width // 2 + 1]``."""
    return np.asarray(np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)))
