import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "modes.py"


@pytest.fixture(scope="module")
def script() -> Any:
    found = importlib.util.spec_from_file_location("modes", SCRIPT)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_modes_are_counted(script: Any) -> None:
    count, divergence = script.modes(np.full(50, 7))
    assert count == 1 and divergence == pytest.approx(math.log(1000))
    count, divergence = script.modes(np.arange(1000).repeat(3))
    assert count == 1000 and divergence == pytest.approx(0, abs=1e-9)


def test_the_judge_knows_real_stacks(script: Any) -> None:
    digits = script.Digits()
    images, kinds = digits.stacks(400, seed=1)
    assert digits.accuracy > 0.95 and (digits.kinds(images) == kinds).mean() > 0.85
    again, _ = digits.stacks(400, seed=1)
    assert np.array_equal(images, again) and images.shape == (400, 16, 16, 3)


def test_a_family_is_measured(script: Any, tmp_path: Path) -> None:
    digits = script.Digits()
    data = script.write(tmp_path / "data", digits, 40, seed=0)
    count, divergence = script.measure(
        "dcgan", digits, data, 20, tmp_path, kimg=0.016, batch=8, channels=16, device="cpu"
    )
    assert 1 <= count <= 20 and divergence > 0
