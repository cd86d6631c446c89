from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from crossfake.detect.bundle import calibration as c


def _drawn(count: int = 2000, seed: int = 0) -> tuple[Any, Any, Any]:
    """Logits three times too sure of themselves, labels, groups of two."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, count)
    return 3 * honest, (rng.random(count) < expit(honest)).astype(np.int64), np.arange(count) // 2


def test_temperature_is_the_best_divisor() -> None:
    logits, labels, _ = _drawn()
    found = c.fit("temperature", logits, labels)["temperature"]
    tried = np.linspace(2.5, 3.5, 101)
    losses = [log_loss(labels, expit(logits / t)) for t in tried]
    assert found == pytest.approx(tried[np.argmin(losses)], abs=0.01)
    assert found == pytest.approx(3, rel=0.15)


def test_beta_is_logistic_regression_on_two_logarithms() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 1500)
    logits = np.where(labels, rng.gamma(2, 1.0, 1500), -rng.gamma(3, 0.6, 1500)) + rng.normal(0, 1.5, 1500)
    s = expit(logits)
    reference = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000)
    reference.fit(np.stack([np.log(s), -np.log1p(-s)], axis=1), labels)
    assert (reference.coef_ > 0).all()
    found = c.fit("beta", logits, labels)
    assert [found["a"], found["b"]] == pytest.approx(reference.coef_[0], rel=1e-3)
    assert found["c"] == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_isotonic_is_scikit_learns() -> None:
    logits, labels, _ = _drawn(500)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    new = np.linspace(-15, 15, 301)
    wanted = np.clip(reference.predict(new), 1 / 502, 1 - 1 / 502)
    assert c.probability(c.fit("isotonic", logits, labels), new) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("method", c.METHODS)
def test_maps_rise_improve_and_hold_their_interval(method: str) -> None:
    logits, labels, groups = _drawn(800)
    weights = np.ones(800)
    fitted = c.with_interval(c.fit(method, logits, labels), logits, labels, groups, weights, resamples=50)
    c.check(fitted)
    new = np.linspace(-40, 40, 801)
    found, ends = c.probability(fitted, new), c.interval(fitted, new)
    assert ends is not None
    assert (np.diff(found) >= 0).all() and found[0] >= 0 and found[-1] <= 1
    assert (ends[0] <= found).all() and (found <= ends[1]).all() and (ends[1] - ends[0]).max() > 0.01
    fresh, truth, _ = _drawn(4000, seed=9)
    assert log_loss(truth, c.probability(fitted, fresh)) < log_loss(truth, expit(fresh)) - 0.1


@pytest.mark.parametrize("method", c.METHODS)
def test_classes_without_a_mistake_give_a_finite_map(method: str) -> None:
    logits = np.concatenate([np.linspace(-9, -3, 20), np.linspace(4, 9, 20)])
    fitted = c.fit(method, logits, np.repeat([0, 1], 20))
    c.check(fitted)
    assert np.isfinite(c.probability(fitted, [-1000.0, 0.0, 1000.0])).all()
    with pytest.raises(ValueError, match="reals and fakes"):
        c.fit(method, logits, np.zeros(40))


def test_the_interval_covers_the_true_probability() -> None:
    hits = []
    for seed in range(16):
        logits, labels, groups = _drawn(300, seed)
        weights = np.ones(300)
        fitted = c.with_interval(c.fit("temperature", logits, labels), logits, labels, groups, weights, 60)
        ends = c.interval(fitted, [2.0])
        assert ends is not None
        hits.append(bool(ends[0][0] <= expit(2 / 3) <= ends[1][0]))
    assert np.mean(hits) > 0.75


def test_weights_move_the_share_of_fakes() -> None:
    logits, labels, _ = _drawn(4000)
    weights = c.class_weights(labels, 0.1)
    assert weights.mean() == pytest.approx(1)
    assert np.average(labels, weights=weights) == pytest.approx(0.1)
    found = c.probability(c.fit("beta", logits, labels, weights), logits)
    assert np.average(found, weights=weights) == pytest.approx(0.1, abs=1e-3)


def test_no_image_is_calibrated_by_its_own_group() -> None:
    """Labels that are noise per group cannot be learnt, unless a group leaks into its own map."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 5)
    logits, labels = np.repeat(rng.normal(0, 1, 60), 5), np.repeat(rng.integers(0, 2, 60), 5)
    weights = np.ones(300)
    found = c.cross_validated("isotonic", logits, labels, groups, weights)
    inside = c.probability(c.fit("isotonic", logits, labels), logits)
    assert log_loss(labels, found) > 0.68 > log_loss(labels, inside)
    with pytest.raises(ValueError, match="two groups"):
        c.cross_validated("isotonic", logits, labels, np.where(labels, 0, groups), weights)


def test_figures_are_the_reference_ones() -> None:
    logits, labels, groups = _drawn(1000)
    p = expit(logits)
    for weights in (np.ones(1000), c.class_weights(labels, 0.2)):
        found = c.figures(labels, p, weights)
        assert found["nll"] == pytest.approx(log_loss(labels, p, sample_weight=weights))
        assert found["brier"] == pytest.approx(brier_score_loss(labels, p, sample_weight=weights))
        intervals = c.figures_interval(labels, p, groups, weights, 150)
        assert all(low <= found[name] <= high for name, (low, high) in intervals.items())
    honest = c.figures(labels, expit(logits / 3), np.ones(1000))
    assert honest["ece"] < c.figures(labels, p, np.ones(1000))["ece"] / 2


@pytest.mark.parametrize(
    "card",
    [
        None,
        {"method": "pickle"},
        {"method": "temperature", "temperature": 0},
        {"method": "temperature", "temperature": "inf"},
        {"method": "beta", "a": -1, "b": 1, "c": 0},
        {"method": "beta", "a": 1, "b": 1},
        {"method": "isotonic", "logits": [0, 1], "probabilities": [0.9, 0.1]},
        {"method": "isotonic", "logits": [], "probabilities": []},
        {"method": "isotonic", "logits": [1, 0], "probabilities": [0, 1]},
        {"method": "temperature", "temperature": 1, "interval": {"logits": [0], "low": [0], "high": [7]}},
    ],
)
def test_a_damaged_card_is_refused(card: Any) -> None:
    with pytest.raises((ValueError, KeyError)):
        c.check(card)


def test_class_weights_shift_the_share_of_fakes_and_keep_the_rest() -> None:
    labels, own = np.array([0, 0, 1, 1, 1]), np.array([1.0, 3.0, 2.0, 1.0, 1.0])
    kept = c.class_weights(labels, None, own)
    np.testing.assert_allclose(kept, own / own.mean())
    shifted = c.class_weights(labels, 0.2, own)
    assert shifted.mean() == pytest.approx(1) and np.average(labels, weights=shifted) == pytest.approx(0.2)
    assert shifted[1] / shifted[0] == pytest.approx(3) and shifted[2] / shifted[3] == pytest.approx(2)


def test_a_card_before_calibration_is_of_weighted_images() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, 300)
    logits = rng.normal(2.0 * labels - 1, 1.5)
    times = rng.integers(0, 4, 300)
    weighed = c.by_temperature(logits, labels, times)
    repeated = c.by_temperature(logits.repeat(times), labels.repeat(times))
    assert weighed["temperature"] == pytest.approx(repeated["temperature"], rel=1e-4)
    assert weighed["threshold"] == pytest.approx(repeated["threshold"], abs=1e-4)
