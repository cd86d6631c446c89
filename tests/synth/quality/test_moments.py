from functools import partial

import numpy as np
import pytest
import torch

from crossfake.synth.quality import cache
from crossfake.synth.quality.moments import Moments, collect, jackknife, merge


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    return 100 + rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))


def test_merged_blocks_equal_numpy(vectors: np.ndarray) -> None:
    whole = merge([Moments.of(part) for part in np.array_split(vectors, 7)])
    assert whole.n == 500
    np.testing.assert_allclose(whole.mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(vectors, rowvar=False), rtol=1e-10)


def test_large_offsets_do_not_cancel() -> None:
    vectors = 1e6 + np.random.default_rng(1).normal(size=(1000, 3))
    whole = merge([Moments.of(part) for part in np.array_split(vectors, 10)])
    np.testing.assert_allclose(whole.covariance, np.cov(vectors, rowvar=False), rtol=1e-6)


def test_root_squares_to_the_covariance_even_if_singular(vectors: np.ndarray) -> None:
    few = Moments.of(vectors[:3])
    np.testing.assert_allclose(few.root @ few.root.T, few.covariance, atol=1e-9)


def test_one_vector_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        _ = Moments.of([[1.0, 2.0]]).covariance


def test_collect_does_not_depend_on_the_batches(vectors: np.ndarray) -> None:
    rows = torch.from_numpy(vectors)
    many = rows.repeat(20, 1)  # more than one chunk
    a = collect(lambda batch: batch.numpy(), many.split(16))
    b = Moments.of(many.numpy())
    assert a.n == b.n
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-9)


def _distance(a: Moments, b: Moments) -> float:
    return float(((a.mean - b.mean) ** 2).sum())


def test_jackknife_standard_error_and_bias_are_right_on_average() -> None:
    """|mean difference|² of normals: its spread over samples and its bias are known by repetition."""
    d, n = 4, 200
    values, errors, debiased = [], [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sides = rng.normal(size=(n, d)), 0.5 + rng.normal(size=(n, d))
        real, fake = ([Moments.of(part) for part in np.array_split(side, 10)] for side in sides)
        estimate = jackknife(_distance, real, fake)
        assert estimate.standard_error is not None and estimate.debiased is not None
        values.append(estimate.value)
        errors.append(estimate.standard_error)
        debiased.append(estimate.debiased)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)
    truth, bias = d * 0.25, 2 * d / n
    standard_error = np.std(debiased) / np.sqrt(300)
    assert np.mean(values) == pytest.approx(truth + bias, abs=4 * standard_error)
    assert np.mean(debiased) == pytest.approx(truth, abs=4 * standard_error)


def test_jackknife_of_single_blocks_has_no_error(vectors: np.ndarray) -> None:
    block = [Moments.of(vectors)]
    assert jackknife(_distance, block, block) == (0.0, None, None)


def test_cache_measures_once_and_mends_itself(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    blocks = [Moments.of(part) for part in np.array_split(vectors, 3)]
    calls: list[int] = []

    def measure(number: int) -> list[Moments]:
        calls.append(number)
        return blocks

    cache.cached_moments(["a", 1], partial(measure, 1))
    again = cache.cached_moments(["a", 1], partial(measure, 2))
    assert calls == [1]
    for block, kept in zip(blocks, again, strict=True):
        assert block.n == kept.n
        assert (block.mean == kept.mean).all() and (block.scatter == kept.scatter).all()
    cache.cached_moments(["a", 2], partial(measure, 3))
    assert calls == [1, 3]
    for file in cache.folder().iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    cache.cached_moments(["a", 1], partial(measure, 4))
    assert calls == [1, 3, 4]


def test_cache_that_cannot_be_written_is_no_error(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.cached_moments("key", lambda: [Moments.of(vectors)])[0].n == 500
