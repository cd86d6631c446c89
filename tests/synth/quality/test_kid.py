import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from crossfake.synth.quality.kid import kid


def _sample(seed: int, n: int, shift: float = 0.0, d: int = 16) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


def test_subsets_are_those_of_torch_fidelity() -> None:
    a, b = _sample(1, 120), _sample(2, 100, 0.2)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=7, kid_subset_size=50, rng_seed=5, verbose=False
    )
    ours = kid(a, b, seed=5, subsets=7, size=50)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


def test_the_whole_is_the_unbiased_estimate() -> None:
    a, b = _sample(3, 43).astype(np.float64), _sample(4, 31, 0.3).astype(np.float64)
    xx, yy, xy = ((p @ q.T / 16 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
    for square in (xx, yy):
        np.fill_diagonal(square, 0)
    expected = xx.sum() / (43 * 42) + yy.sum() / (31 * 30) - 2 * xy.mean()
    assert kid(a, b, subsets=1).whole.value == pytest.approx(expected, rel=1e-5)


def test_subsets_of_few_images_still_differ() -> None:
    found = kid(_sample(5, 40), _sample(6, 40, 0.1), subsets=5)
    assert found.size == 20 and found.deviation is not None and found.deviation > 1e-3
    none = kid(_sample(5, 3), _sample(6, 40))
    assert (none.subsets, none.mean, none.deviation) == (0, None, None)


def test_the_error_is_the_spread_over_samples() -> None:
    drawn = [kid(_sample(10 + k, 100), _sample(200 + k, 100, 0.1), subsets=1).whole for k in range(60)]
    spread = np.std([each.value for each in drawn])
    assert np.mean([each.standard_error for each in drawn]) == pytest.approx(spread, rel=0.35)
    same = [kid(_sample(10 + k, 100), _sample(200 + k, 100), subsets=1).whole.value for k in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)  # no bias, whatever n is


def test_two_images_a_side_are_enough() -> None:
    found = kid(_sample(1, 2), _sample(2, 2))
    assert np.isfinite(found.whole.value) and found.whole.standard_error is None
