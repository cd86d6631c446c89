"""The power spectrum of an image beside that of reals: up-sampling leaves peaks and slopes that eyes do not see.

Frank et al. 2020 (spectra of GAN images), Durall et al. 2020 (eq. 4, the azimuthal profile).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.explain.references import images_of, training_rows
from crossfake.detect.whole import Whole
from crossfake.errors import UserError

Array = npt.NDArray[np.float64]
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MOST = 1000  # reals whose mean is shown


def log_spectrum(image: Pixels) -> Array:
    """Log power in dB of an image's luminance, the mean taken away, under a Hann window; zero frequency in the middle.

    The power of rounding to whole numbers (variance 1/12) is added, so a flat image has a finite logarithm.

    Args:
        image: uint8 ``[S, S, 3]``.

    Returns:
        float64 ``[S, S]``.
    """
    luma = image.astype(np.float64) @ _LUMA
    hann = np.hanning(len(luma) + 1)[:-1]
    window = hann[:, None] * hann
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum()
    return np.asarray(np.fft.fftshift(10 * np.log10(power + 1 / 12)))


def azimuthal(spectrum: Array) -> Array:
    """The mean power, in dB, over the ring that rounds to k cycles per image, k = 1 … S/2: ``[S, S]`` to ``[S // 2]``.

    Example:
        >>> azimuthal(np.full((8, 8), 3.0))
        array([3., 3., 3., 3.])
    """
    size = len(spectrum)
    steps = np.arange(size) - size // 2
    ring = np.rint(np.hypot(steps[:, None], steps)).astype(int).ravel()
    sums, counts = np.bincount(ring, 10 ** (spectrum.ravel() / 10)), np.bincount(ring)
    return np.asarray(10 * np.log10((sums / counts)[1 : size // 2 + 1]))


@dataclass(frozen=True)
class Spectra:
    """What the spectra of reals are like.

    Attributes:
        mean, deviation: of the log spectrum at each frequency, ``[S, S]``.
        profile_mean, profile_deviation: of the azimuthal profile, ``[S // 2]``.
        count: number of reals.
    """

    mean: Array
    deviation: Array
    profile_mean: Array
    profile_deviation: Array
    count: int

    @classmethod
    def of(cls, detector: Any, sets: Sequence[ShardSet]) -> Spectra:
        """Of at most 1,000 reals that the shards have for training; of native ones the middle window.

        Raises:
            UserError: they have none of the detector's size, or it has none.
        """
        if isinstance(detector.view, Whole) and not detector.view.fixed:
            raise UserError(
                "spectra of one size are compared, and this detector sees each picture at its own",
                hint="choose another --method",
            )
        return cls.of_images(images_of(detector.view, training_rows(sets, _MOST, 0)))

    @classmethod
    def of_images(cls, images: Iterable[Pixels]) -> Spectra:
        """Mean and deviation over images of one size, uint8 ``[H, W, 3]``.

        Raises:
            UserError: there are none.
        """
        spectra = np.stack([log_spectrum(image) for image in images] or [np.empty((0, 0))])
        if not spectra.size:
            raise UserError("there are no reals to compare spectra with", hint="name shards with --data DIR")
        profiles = np.stack([azimuthal(spectrum) for spectrum in spectra])
        return cls(spectra.mean(0), spectra.std(0), profiles.mean(0), profiles.std(0), len(spectra))

    def explain(self, image: Pixels) -> dict[str, Any]:
        """How far an image's spectrum is from that of reals.

        Returns:
            ``spectrum`` and ``difference`` (in standard deviations of reals at that frequency) ``[S, S]``, ``profile``
            in dB and ``profile_difference`` ``[S // 2]``, and ``high_frequency``: the mean difference of the profile
            over the upper half of the frequencies.
        """
        spectrum = log_spectrum(image)
        profile = azimuthal(spectrum)
        off = (profile - self.profile_mean) / np.maximum(self.profile_deviation, 1e-6)
        return {
            "spectrum": spectrum,
            "difference": (spectrum - self.mean) / np.maximum(self.deviation, 1e-6),
            "profile": profile,
            "profile_difference": off,
            "high_frequency": float(off[len(off) // 2 :].mean()),
        }
