import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors

from crossfake.detect.bundle import novelty
from crossfake.errors import UserError
from crossfake.provenance import hash_file


def _features(count: int, width: int = 12, seed: int = 0, shift: float = 0.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    spread = np.linspace(0.2, 2, width)
    features = rng.normal(0, 1, (count, width)) * spread + 3 * labels[:, None] * (np.arange(width) < 2) + 1
    return (features + shift * (np.arange(width) % 3 == 2)).astype(np.float32), labels


METHODS = ("knn", "mahalanobis", "energy")


def _fit(method: str, width: int = 12, quantile: float = 0.95) -> novelty.Novelty:
    """Of nearest neighbours as calibration makes it, of the others as bundles made before have it."""
    train, labels = _features(400, width)
    held, _ = _features(300, width, seed=1)
    validation = np.linspace(-5, 5, 300), held
    if method == "knn":
        return novelty.fit(train, validation, quantile)
    means = np.stack([train[labels == label].mean(axis=0) for label in (0, 1)])
    variances, axes = np.linalg.eigh(np.cov((train - means[labels]).T))
    kept = slice(max(0, width - 256), None)
    arrays = {
        "means": means,
        "axes": axes[:, kept].astype(np.float32),
        "variances": variances[kept].astype(np.float32),
        "rest": np.array([variances[: kept.start].mean() if kept.start else np.inf], np.float32),
    }
    made = novelty.Novelty(
        method, arrays if method == "mahalanobis" else {}, np.zeros(1, np.float32), quantile
    )
    return dataclasses.replace(made, scale=np.sort(made.distance(*validation)).astype(np.float32))


def test_knn_is_scikit_learns_tenth_neighbour() -> None:
    train, _ = _features(400)
    new, _ = _features(50, seed=2)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, new)]
    wanted = NearestNeighbors(n_neighbors=10).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    assert _fit("knn").distance(np.zeros(50), new) == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("width", [12, 300])
def test_mahalanobis_is_the_formula(width: int) -> None:
    train, labels = _features(400, width)
    new, _ = _features(50, width, seed=2)
    means = [train[labels == label].mean(axis=0) for label in (0, 1)]
    covariance = np.cov((train - np.stack(means)[labels]).T)
    if width > 256:
        variances, axes = np.linalg.eigh(covariance.astype(np.float64))
        variances[:-256] = variances[:-256].mean()
        covariance = axes * variances @ axes.T
    inverse = np.linalg.inv(covariance)
    wanted = np.min([np.einsum("nf,fg,ng->n", new - m, inverse, new - m) for m in means], axis=0)
    assert _fit("mahalanobis", width).distance(np.zeros(50), new) == pytest.approx(wanted, rel=1e-3)


def test_energy_is_the_free_energy_of_two_opposite_logits() -> None:
    logits = np.array([-800.0, -3.0, 0.0, 2.0, 800.0])
    found = _fit("energy").distance(logits, np.zeros((5, 0), np.float32))
    assert found == pytest.approx(-np.logaddexp(logits / 2, -logits / 2))


@pytest.mark.parametrize("method", METHODS)
def test_usual_images_are_usual_and_shifted_ones_are_not(method: str) -> None:
    fitted = _fit(method)
    usual, _ = _features(600, seed=3)
    logits = np.random.default_rng(0).uniform(-5, 5, 600)
    share = fitted.share(logits, usual)
    assert ((share >= 0) & (share <= 1)).all()
    assert np.mean(share > fitted.quantile) == pytest.approx(0.05, abs=0.04)
    odd, _ = _features(600, seed=4, shift=-25)
    assert (fitted.share(0 * logits, odd) > fitted.quantile).mean() > 0.9
    assert fitted.share(logits[:0], usual[:0]).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_is_what_is_loaded(method: str, tmp_path: Path) -> None:
    fitted = _fit(method)
    card = novelty.save(fitted, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [card["file"]]
    new, _ = _features(40, seed=5)
    assert np.array_equal(
        novelty.load(tmp_path, card).share(np.zeros(40), new), fitted.share(np.zeros(40), new)
    )


def test_at_most_a_thousand_references_are_kept(tmp_path: Path) -> None:
    train, _ = _features(3000)
    fitted = novelty.fit(train, (np.zeros(3000), train))
    assert fitted.arrays["vectors"].shape == (1000, 12)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    card = novelty.save(_fit("knn"), tmp_path)
    file = tmp_path / card["file"]
    for change in (
        {"noticed": [{"source": "web"}]},
        {"file": "../" + card["file"]},
        {"method": "pickle"},
        {"quantile": 3},
        {"method": "energy"},
    ):
        with pytest.raises((ValueError, KeyError)):
            novelty.load(tmp_path, {**card, **change})
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not the file"):
        novelty.load(tmp_path, card)
    with pytest.raises(SafetensorError):
        novelty.load(tmp_path, {**card, "sha256": hash_file(file)})
    save_file({"vectors": np.full((3, 2), np.nan, np.float32), "scale": np.zeros(2, np.float32)}, file)
    with pytest.raises(ValueError, match="not finite"):
        novelty.load(tmp_path, {**card, "sha256": hash_file(file)})


def test_a_model_without_features_and_too_few_rows_are_one_line() -> None:
    nothing = np.zeros((50, 0), np.float32)
    with pytest.raises(UserError, match="no features"):
        novelty.fit(nothing, (np.zeros(50), nothing))
    few, _ = _features(5)
    with pytest.raises(UserError, match="too few"):
        novelty.fit(few, (np.zeros(5), few))


def test_the_scale_counts_images_by_their_weights() -> None:
    train, _ = _features(400)
    held, _ = _features(300, seed=1)
    logits, times = np.linspace(-5, 5, 300), np.random.default_rng(0).integers(0, 4, 300)
    fitted = novelty.fit(train, (logits, held), 0.95, times)
    repeated = novelty.fit(train, (logits.repeat(times), held.repeat(times, axis=0)), 0.95)
    assert len(fitted.scale) == 300 and (np.diff(fitted.scale) >= 0).all()
    new, _ = _features(100, seed=2)
    np.testing.assert_allclose(
        fitted.share(np.zeros(100), new), repeated.share(np.zeros(100), new), atol=1 / 150
    )
    alike = novelty.fit(train, (logits, held), 0.95)
    assert np.array_equal(alike.scale, np.sort(alike.distance(logits, held).astype(np.float32)))
