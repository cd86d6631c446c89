import numpy as np
import pytest
import sklearn.metrics as reference

from crossfake.detect import metrics


def _case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_figure_equals_scikit_learn(seed: int, ties: bool) -> None:
    labels, scores = _case(seed, ties)
    called = scores >= 0.5
    expected = {
        "ap": reference.average_precision_score(labels, scores),
        "auc": reference.roc_auc_score(labels, scores),
        "accuracy": reference.accuracy_score(labels, called),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        "precision": reference.precision_score(labels, called),
        "recall": reference.recall_score(labels, called),
        "f1": reference.f1_score(labels, called),
    }
    figures = metrics.summary(labels, scores, 0.5)
    assert figures == pytest.approx({**expected, "eer": figures["eer"]})
    assert metrics.confusion(labels, scores, 0.5) == reference.confusion_matrix(labels, called).tolist()
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    wanted = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose([fpr, tpr], wanted[:2])


@pytest.mark.parametrize("seed", range(5))
def test_eer_is_where_the_roc_curve_meets_the_diagonal(seed: int) -> None:
    labels, scores = _case(seed, ties=False)
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    along = np.linspace(0, 1, 200_001)
    curve = np.interp(along, np.arange(len(fpr)) / (len(fpr) - 1), fpr)
    missed = np.interp(along, np.arange(len(fpr)) / (len(fpr) - 1), 1 - tpr)
    assert metrics.eer(labels, scores) == pytest.approx(curve[np.argmin(abs(curve - missed))], abs=1e-4)


def test_known_extremes() -> None:
    assert metrics.summary([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["eer"] == 0
    assert metrics.summary([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1])["auc"] == 0
    assert metrics.summary([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1])["eer"] == 1
    assert metrics.summary([0, 1, 0, 1], [0.5] * 4)["auc"] == 0.5


def test_one_class_leaves_undefined_figures_nan_and_the_others_right() -> None:
    only_fakes = metrics.summary([1, 1, 1], [0.2, 0.7, 0.9])
    assert np.isnan([only_fakes[name] for name in ("ap", "auc", "eer", "f1", "balanced_accuracy")]).all()
    assert only_fakes["accuracy"] == only_fakes["recall"] == pytest.approx(2 / 3)
    intervals = metrics.bootstrap([1, 1, 1], [0.2, 0.7, 0.9], resamples=50)
    assert np.isnan(intervals["auc"]).all() and not np.isnan(intervals["accuracy"]).any()


@pytest.mark.parametrize(
    ("labels", "scores"), [([], []), ([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, float("nan")])]
)
def test_nonsense_is_refused(labels: list[int], scores: list[float]) -> None:
    with pytest.raises(ValueError):
        metrics.summary(labels, scores)


def test_bootstrap_equals_resampling_by_hand() -> None:
    labels, scores = _case(0, ties=True)
    groups = np.arange(300) // 3
    low, high = metrics.bootstrap(labels, scores, groups, resamples=400, seed=1)["auc"]
    rng, by_hand = np.random.default_rng(2), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 100, 100)])
        by_hand.append(reference.roc_auc_score(labels[rows], scores[rows]))
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]), atol=0.015)


def test_groups_widen_the_interval_of_correlated_images() -> None:
    labels, scores = _case(3, ties=False)
    labels, scores, groups = labels.repeat(10), scores.repeat(10), np.arange(300).repeat(10)
    alone, grouped = (metrics.bootstrap(labels, scores, g, resamples=300)["auc"] for g in (None, groups))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_bootstrap_is_deterministic() -> None:
    labels, scores = _case(0, ties=False)
    assert metrics.bootstrap(labels, scores, resamples=50) == metrics.bootstrap(labels, scores, resamples=50)


@pytest.mark.slow
def test_the_interval_covers_the_truth() -> None:
    """Of 400 samples with AUC Φ(1/√2) about 95% of the intervals contain it."""
    from scipy.stats import norm

    truth, hits = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) % 2
        low, high = metrics.bootstrap(labels, rng.normal(labels, 1), resamples=400, seed=seed)["auc"]
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.97


def test_best_threshold_maximises_balanced_accuracy() -> None:
    labels, scores = _case(1, ties=False)
    best = metrics.summary(labels, scores, metrics.best_threshold(labels, scores))["balanced_accuracy"]
    assert best == pytest.approx(max(metrics.summary(labels, scores, t)["balanced_accuracy"] for t in scores))
    assert 0.2 < metrics.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) < 0.8
    with pytest.raises(ValueError, match="reals and fakes"):
        metrics.best_threshold([1, 1], [0.2, 0.3])
