import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from crossfake.synth.quality.neighbours import manifolds, nearest, realism


def _sample(seed: int, n: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, 6)) * scale + shift).astype(np.float32)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.6, 0.2), (1.5, 1.0)])
def test_precision_and_recall_are_those_of_torch_fidelity(scale: float, shift: float) -> None:
    real, fake = _sample(1, 300), _sample(2, 250, scale, shift)
    theirs = prc_features_to_metric(
        torch.from_numpy(fake).double(), torch.from_numpy(real).double(), verbose=False, prc_batch_size=64
    )
    ours = manifolds(real, fake)
    assert ours.precision.value == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours.recall.value == pytest.approx(theirs["recall"], abs=1e-6)


def test_density_and_coverage_are_their_definitions() -> None:
    real, fake, k = _sample(3, 80), _sample(4, 60, 0.8), 5
    own = np.linalg.norm(real[:, None] - real, axis=2)
    radius = np.sort(own, axis=1)[:, k]  # column 0 is the image itself
    across = np.linalg.norm(fake[:, None] - real, axis=2)  # [m, n]
    found = manifolds(real, fake)
    assert found.density.value == pytest.approx((across <= radius).sum() / (k * 60), abs=1e-6)
    assert found.coverage.value == pytest.approx((across.min(axis=0) <= radius).mean(), abs=1e-6)
    assert found.density.standard_error > 0 and 0 < found.coverage.standard_error < 0.1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = _sample(5, 70), _sample(6, 90)
    whole, pairs = manifolds(real, fake), nearest(fake, real, 3)
    monkeypatch.setattr("crossfake.synth.quality.neighbours._CHUNK", 16)
    assert manifolds(real, fake) == whole
    np.testing.assert_array_equal(nearest(fake, real, 3)[0], pairs[0])


def test_the_nearest_of_a_copy_is_its_original() -> None:
    real = _sample(7, 50)
    rows, distances = nearest(real[[9, 3]] * 2, real, 2)
    assert rows[:, 0].tolist() == [9, 3] and np.abs(distances[:, 0]).max() < 1e-6
    assert (distances[:, 1] > distances[:, 0]).all()


def test_constant_images_give_figures() -> None:
    found = manifolds(np.ones((20, 4), np.float32), np.ones((20, 4), np.float32))
    assert found.precision.value == found.recall.value == found.coverage.value == 1.0


def test_realism_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(20, 5)).astype(np.float32)
    between = np.linalg.norm(real[:, None] - real, axis=2)
    radii = np.sort(between, axis=1)[:, 3]
    small = radii <= np.sort(radii)[29]  # torch's median: the lower of the two in the middle
    expected = (radii[small] / np.linalg.norm(fake[:, None] - real[small], axis=2)).max(axis=1)
    assert np.allclose(realism(real, fake), expected, rtol=1e-4)
    assert realism(real, real[small][:3]).min() > 1e3  # a copy of a real one lies in the middle of its ball
