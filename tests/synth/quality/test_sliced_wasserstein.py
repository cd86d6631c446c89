from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from crossfake.synth.quality import sliced_wasserstein as swd

CPU = torch.device("cpu")


def _noise(n: int, size: int, seed: int, blur: float = 0.0) -> Tensor:
    images = np.random.default_rng(seed).normal(128, 40, (n, 3, size, size))
    if blur:
        images = ndimage.gaussian_filter(images, (0, 0, blur, blur))
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8))


def test_levels() -> None:
    assert swd.levels(256) == [256, 128, 64, 32, 16]
    assert swd.levels(16) == [16]
    assert swd.levels(8) == swd.levels(48) == swd.levels(300) == []


def test_pyramid_equals_scipy_and_adds_up() -> None:
    images = _noise(2, 64, 0).float()
    pyramid = swd.laplacian_pyramid(images)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.convolve(x, kernel[None, None], mode="mirror")

    def enlarge(x: np.ndarray) -> np.ndarray:
        sparse = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
        sparse[:, :, ::2, ::2] = x
        return 4 * blur(sparse)

    fine = images.double().numpy()
    for level in pyramid[:-1]:
        coarse = blur(fine)[:, :, ::2, ::2]
        np.testing.assert_allclose(level.numpy(), fine - enlarge(coarse), atol=1e-3)
        fine = coarse
    np.testing.assert_allclose(pyramid[-1].numpy(), fine, atol=1e-3)


def test_equals_sorted_projections() -> None:
    """The same patches and directions through scipy's exact one-dimensional distance."""
    a, b = _noise(6, 16, 0), _noise(6, 16, 1, blur=0.7)
    value, _ = swd.sliced_wasserstein([a], [b], 16, CPU, seed=5)[16]
    sides = []
    for seed, images in ((5, a), (6, b)):
        ((_, patches),) = swd._patches([images], CPU, seed)
        mean, deviation = patches.mean((0, 2), keepdim=True), patches.std((0, 2), keepdim=True, correction=0)
        sides.append(((patches - mean) / deviation).flatten(1))
    directions = torch.randn(swd.DIRECTIONS, 147, generator=torch.Generator().manual_seed(5))
    directions /= directions.norm(dim=1, keepdim=True)
    exact = [
        stats.wasserstein_distance(*(np.asarray(side @ direction) for side in sides))
        for direction in directions
    ]
    assert value == pytest.approx(1e3 * np.mean(exact), rel=0.01)


def test_noise_shows_in_the_finest_level_only() -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(80, 3, 32, 32)), (0, 0, 2, 2))
    smooth = 128 + 40 * smooth / smooth.std()
    noisy = smooth[40:] + np.random.default_rng(1).normal(0, 8, (40, 3, 32, 32))
    reals, others, fakes = (
        torch.from_numpy(x.clip(0, 255).astype(np.uint8)) for x in (smooth[:40], smooth[40:], noisy)
    )
    same, changed = (swd.sliced_wasserstein([reals], [side], 32, CPU) for side in (others, fakes))
    assert changed[32][0] > 1.4 * same[32][0]
    assert changed[16][0] == pytest.approx(same[16][0], rel=0.05)


def test_the_seed_decides() -> None:
    a, b = _noise(8, 16, 0), _noise(8, 16, 1)
    values = [swd.sliced_wasserstein(a.split(4), b.split(4), 16, CPU, seed)[16] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("make", [torch.zeros, torch.ones], ids=["black", "nearly black"])
def test_flat_images_give_zero_not_nan(make: Callable[..., Tensor]) -> None:
    flat = make(3, 3, 32, 32).to(torch.uint8)
    assert [value for value, _ in swd.sliced_wasserstein([flat], [flat], 32, CPU).values()] == [0, 0]


def test_sides_may_differ_in_number() -> None:
    found = swd.sliced_wasserstein([_noise(5, 16, 0)], [_noise(9, 16, 1)], 16, CPU)
    assert 0 < found[16][0] < 1000
