import numpy as np
import pytest
import torch

from crossfake.synth.quality.moments import Moments
from crossfake.synth.quality.spectrum import frequencies, log_spectral_distance, radial_spectrum


def _grey(values: np.ndarray) -> torch.Tensor:
    """float ``[B, H, W]`` -> uint8 ``[B, 3, H, W]``."""
    return torch.from_numpy(values.round().clip(0, 255).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize("size", [16, 33, 64])
def test_equals_a_plain_loop_over_the_full_plane(size: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 3, size, size), dtype=np.uint8)
    luma = np.einsum("chw,c->hw", image[0].astype(float), (0.299, 0.587, 0.114))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    window = np.outer(hann, hann)
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum()
    sums, counts = np.zeros(size), np.zeros(size)
    for u in range(size):
        for v in range(size):
            ring = round(np.hypot(min(u, size - u), min(v, size - v)))
            if ring < size:
                sums[ring] += power[u, v]
                counts[ring] += 1
    expected = 10 * np.log10(sums[1 : size // 2 + 1] / counts[1 : size // 2 + 1] + 1 / 12)
    np.testing.assert_allclose(radial_spectrum(torch.from_numpy(image))[0], expected, atol=1e-3)


def test_a_wave_peaks_at_its_frequency() -> None:
    x = np.arange(64)
    wave = 128 + 60 * np.sin(2 * np.pi * 10 * x / 64)
    curve = radial_spectrum(_grey(np.tile(wave, (1, 64, 1))))[0]
    assert frequencies(64)[curve.argmax()] == 10 / 64


def test_white_noise_is_flat_at_its_variance() -> None:
    noise = 128 + 20 * np.random.default_rng(0).normal(size=(64, 64, 64))
    curve = radial_spectrum(_grey(noise)).mean(0)
    assert curve[2:] == pytest.approx(10 * np.log10(400), abs=0.6)


def test_flat_images_stay_finite() -> None:
    curve = radial_spectrum(torch.full((2, 3, 16, 16), 200, dtype=torch.uint8))
    assert curve == pytest.approx(10 * np.log10(1 / 12), abs=1e-3)


def test_doubled_contrast_is_six_decibels_everywhere() -> None:
    noise = 20 * np.random.default_rng(0).normal(size=(40, 32, 32))
    a, b = (Moments.of(radial_spectrum(_grey(128 + gain * noise))) for gain in (1, 2))
    assert log_spectral_distance(a, b) == pytest.approx(20 * np.log10(2), abs=0.05)
    assert log_spectral_distance(a, a) == 0
