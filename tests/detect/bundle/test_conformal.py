import numpy as np
import pytest

from crossfake.detect.bundle.conformal import allowed, check, fit


def _p_value(logit: float, of_class: np.ndarray, sign: int) -> float:
    return float((np.sum(sign * of_class >= sign * logit) + 1) / (len(of_class) + 1))


def test_the_limits_are_those_of_the_p_values() -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-1, 1, 60).round(1), rng.normal(1, 1, 45).round(1)])
    labels = np.repeat([0, 1], [60, 45])
    for coverage in (0.5, 0.8, 0.9):
        abstention = fit(logits, labels, np.arange(105), coverage)
        new = np.linspace(-4, 4, 161)
        real, fake = allowed(abstention, new)
        alpha = 1 - coverage + 1e-12
        assert real.tolist() == [_p_value(z, logits[labels == 0], 1) > alpha for z in new]
        assert fake.tolist() == [_p_value(z, logits[labels == 1], -1) > alpha for z in new]


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_new_images_of_each_class_keep_their_label_as_often_as_stated(coverage: float) -> None:
    """Few fakes and skewed logits: the guarantee is per class and for any distribution."""
    rng = np.random.default_rng(1)
    kept = np.zeros(2)
    for _ in range(400):
        logits = np.concatenate([-rng.exponential(1, 200), rng.standard_t(3, 25) + 1])
        abstention = fit(logits, np.repeat([0, 1], [200, 25]), np.arange(225), coverage)
        kept[0] += allowed(abstention, -rng.exponential(1, 500))[0].mean() / 400
        kept[1] += allowed(abstention, rng.standard_t(3, 500) + 1)[1].mean() / 400
    error = 3 * np.sqrt(coverage * (1 - coverage) / 25 / 400) + 0.002
    assert (kept > coverage - error).all() and (kept < coverage + 1 / 26 + error).all()


def test_near_copies_do_not_fake_precision() -> None:
    """A first image of a new group is covered although groups are of very different size."""
    rng = np.random.default_rng(2)
    kept = []
    for _ in range(600):
        sizes = rng.choice([1, 30], 20)
        centers = rng.normal(0, 1, 20) + (sizes == 30)
        groups = np.repeat(np.arange(20), sizes)
        logits = centers[groups] + rng.normal(0, 0.1, len(groups))
        labels = np.zeros(len(groups), int)
        abstention = fit(np.append(logits, 9.0), np.append(labels, 1), np.append(groups, 99), coverage=0.8)
        new = rng.normal(0, 1) + rng.integers(2)
        kept.append(bool(allowed(abstention, [new])[0][0]))
    assert np.mean(kept) > 0.8 - 3 * np.sqrt(0.16 / 600)


def test_whole_weights_are_repetitions_and_0_leaves_out() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(np.repeat([-1.0, 1.0], 40), 1), np.repeat([0, 1], 40)
    alike = fit(logits, labels, np.arange(80), 0.8)
    assert fit(logits, labels, np.arange(80), 0.8, np.full(80, 0.37)) == alike
    more = np.append(logits, [5.0, -5.0])
    left_out = fit(more, np.append(labels, [0, 1]), np.arange(82), 0.8, np.append(np.ones(80), [0, 0]))
    assert left_out == alike


def test_weights_keep_the_coverage_of_the_kinds_as_they_are_drawn() -> None:
    """Nine in ten fakes that calibrate are easy, half of those that come are: without weights too few are kept."""
    rng = np.random.default_rng(4)
    centers, kept = np.repeat([4.0, 0.0], [180, 20]), {}
    for name, weights in (("weighed", np.repeat([0.5 / 180, 0.5 / 20], [180, 20])), ("alike", None)):
        found = []
        for _ in range(300):
            logits = np.append(rng.normal(centers, 1), [-9.0])
            w = None if weights is None else np.append(weights, 1)
            abstention = fit(logits, np.append(np.ones(200), 0), np.arange(201), 0.9, w)
            found.append(allowed(abstention, rng.normal(np.repeat([4.0, 0.0], 100), 1))[1].mean())
        kept[name] = np.mean(found)
    assert 0.9 - 0.01 < kept["weighed"] < 0.96 and kept["alike"] < 0.8


def test_too_few_images_never_rule_a_label_out() -> None:
    abstention = fit([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1], np.arange(4), 0.9)
    assert abstention["real_at_most"] is None and abstention["fake_at_least"] is None
    assert all(part.all() for part in allowed(abstention, [-99.0, 99.0]))
    with pytest.raises(ValueError, match="coverage"):
        fit([0.0, 1.0], [0, 1], [0, 1], 1.5)


@pytest.mark.parametrize(
    "card",
    [
        {"coverage": 2, "real_at_most": 0, "fake_at_least": 0},
        {"coverage": 0.9, "real_at_most": float("nan"), "fake_at_least": 0},
        {"coverage": 0.9, "real_at_most": 1},
    ],
)
def test_a_damaged_card_is_refused(card: dict[str, float]) -> None:
    with pytest.raises((ValueError, KeyError)):
        check(card)
