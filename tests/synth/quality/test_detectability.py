import numpy as np
import pytest
import torch

from crossfake.synth.quality.detectability import detectability

CPU = torch.device("cpu")
GROUPS = np.arange(200).astype(str)


def _noise(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


def test_what_is_alike_is_chance_and_what_is_smooth_is_found() -> None:
    same = detectability(_noise(0), _noise(1), GROUPS, CPU, steps=20)
    assert abs(same.value - 0.5) < 0.12 and 0.01 < same.standard_error < 0.08
    smooth = _noise(2)[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
    assert detectability(_noise(0), smooth, GROUPS, CPU, steps=40).value > 0.95


def test_it_is_the_same_again_and_for_any_global_seed() -> None:
    torch.manual_seed(1)
    first = detectability(_noise(0), _noise(1), GROUPS, CPU, seed=3, steps=5)
    torch.manual_seed(2)
    assert detectability(_noise(0), _noise(1), GROUPS, CPU, seed=3, steps=5) == first


def test_copies_of_one_person_do_not_leak_between_halves() -> None:
    """Every real is there ten times and each fake once; who learns the reals by heart knows nothing of the others."""
    real = np.repeat(_noise(4, 20), 10, axis=0)
    found = detectability(real, _noise(5), np.repeat(np.arange(20), 10).astype(str), CPU, steps=60)
    assert found.value < 0.75


@pytest.mark.parametrize("n", [120, 160])
def test_sides_are_made_equally_large(n: int) -> None:
    found = detectability(_noise(6), _noise(7, n), GROUPS, CPU, steps=5)
    assert 0.3 < found.value < 0.7
