import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from crossfake.detect.evaluation import metrics
from crossfake.stats import ranking


def _case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    return labels, np.round(scores, 1) if ties else scores


def _reference(labels: np.ndarray, scores: np.ndarray, threshold: float, bins: int = 15) -> dict[str, float]:
    """Every figure as scikit-learn has it, or from its curves."""
    called = scores >= threshold
    fpr, tpr, thresholds = reference.roc_curve(labels, scores, drop_intermediate=False)
    place = np.digitize(scores, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    held = np.bincount(place, minlength=bins)
    came, promised = calibration_curve(labels, scores, n_bins=bins)
    return {
        "ap": reference.average_precision_score(labels, scores),
        "auc": reference.roc_auc_score(labels, scores),
        "partial_auc": reference.roc_auc_score(labels, scores, max_fpr=0.1),
        "tpr_at_1%_fpr": tpr[fpr <= 0.01].max(),
        "tpr_at_0.1%_fpr": tpr[fpr <= 0.001].max(),
        "oracle_accuracy": max(reference.accuracy_score(labels, scores >= t) for t in thresholds),
        "accuracy": reference.accuracy_score(labels, called),
        "accuracy_at_half": reference.accuracy_score(labels, scores >= 0.5),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        "precision": reference.precision_score(labels, called, zero_division=0),
        "recall": reference.recall_score(labels, called),
        "f1": reference.f1_score(labels, called),
        "mcc": reference.matthews_corrcoef(labels, called),
        "ece": np.sum(held[held > 0] / len(scores) * abs(came - promised)),
        "brier": reference.brier_score_loss(labels, scores),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_figure_equals_scikit_learn(seed: int, ties: bool) -> None:
    labels, scores = _case(seed, ties)
    figures = metrics.summary(labels, scores, 0.45)
    assert figures == pytest.approx({**_reference(labels, scores, 0.45), "eer": figures["eer"]})
    assert set(figures) == {*ranking.RANKING, *metrics.AT_THRESHOLD, *metrics.OF_PROBABILITIES}
    called = scores >= 0.45
    assert metrics.confusion(labels, scores, 0.45) == reference.confusion_matrix(labels, called).tolist()
    promised, came, count = metrics.reliability(labels, scores, bins=10)
    np.testing.assert_allclose([came, promised], calibration_curve(labels, scores, n_bins=10))
    assert count.sum() == 300


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 1], [0.2, 0.8]),
        ([0, 1], [0.8, 0.2]),
        ([0, 1, 1], [0.5, 0.5, 0.5]),  # constant
        ([0, 0, 0, 1], [0.0, 1.0, 0.0, 1.0]),  # the ends of the scale
        ([1, 0, 1, 0, 1], [0.3, 0.3, 0.2, 0.1, 0.9]),
        ([0, 1, 0], [0.1, 0.2, 0.3]),  # none reaches the threshold
    ],
)
def test_tiny_and_constant_sets_equal_scikit_learn(labels: list[int], scores: list[float]) -> None:
    threshold = 0.95 if max(scores) == 0.3 else 0.5
    figures = metrics.summary(labels, scores, threshold)
    wanted = _reference(np.array(labels), np.array(scores), threshold)
    assert figures == pytest.approx({**wanted, "eer": figures["eer"]})


def test_counts_as_weights_equal_repeated_images() -> None:
    labels, scores = _case(7, ties=True)
    counts = np.random.default_rng(0).integers(0, 4, (3, 300))
    figures = metrics.weighted(labels, scores, counts, 0.4, probabilities=True)
    for row, times in enumerate(counts):
        repeated = metrics.summary(labels.repeat(times), scores.repeat(times), 0.4)
        assert {name: values[row] for name, values in figures.items()} == pytest.approx(repeated)


def test_hits_at_few_false_alarms_need_enough_reals() -> None:
    scores = np.concatenate([np.linspace(0, 0.5, 1000), [0.4997, 0.49]])
    labels = np.repeat([0, 1], [1000, 2])
    figures = metrics.summary(labels, scores)
    assert figures["tpr_at_0.1%_fpr"] == 0.5 and figures["tpr_at_1%_fpr"] == 0.5
    assert metrics.summary(labels[1:], scores[1:])["tpr_at_0.1%_fpr"] == 0.0  # 1 of 999 is too many


def test_margins_are_no_probabilities() -> None:
    figures = metrics.summary([0, 1, 1], [-2.0, 0.4, 3.0], 0.0)
    assert np.isnan([figures[name] for name in metrics.OF_PROBABILITIES]).all() and figures["auc"] == 1
    for margins in (
        [-2.0, 0.4, 3.0],
        [0.1, 0.4, 0.9],
    ):  # the same figures, wherever the margins happen to lie
        found = metrics.weighted([0, 1, 1], margins, np.ones((2, 3)))
        assert set(found) == {*ranking.RANKING, *metrics.AT_THRESHOLD}


def test_known_extremes() -> None:
    assert metrics.summary([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["eer"] == 0
    assert metrics.summary([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1])["auc"] == 0
    assert metrics.summary([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1])["eer"] == 1
    assert metrics.summary([0, 1, 0, 1], [0.5] * 4)["auc"] == 0.5


def test_one_class_leaves_undefined_figures_nan_and_the_others_right() -> None:
    only_fakes = metrics.summary([1, 1, 1], [0.2, 0.7, 0.9])
    assert np.isnan([only_fakes[name] for name in metrics.NEED_BOTH]).all()
    assert only_fakes["brier"] == pytest.approx(np.mean([0.8**2, 0.3**2, 0.1**2]))
    assert np.isnan(metrics.summary([0, 0], [0.2, 0.7])["recall"])
    assert only_fakes["accuracy"] == only_fakes["recall"] == pytest.approx(2 / 3)
    intervals = metrics.intervals([1, 1, 1], [0.2, 0.7, 0.9], resamples=50)
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
    low, high = metrics.intervals(labels, scores, groups, resamples=400, seed=1)["auc"]
    rng, by_hand = np.random.default_rng(2), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 100, 100)])
        by_hand.append(reference.roc_auc_score(labels[rows], scores[rows]))
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]), atol=0.015)


def test_groups_widen_the_interval_of_correlated_images() -> None:
    labels, scores = _case(3, ties=False)
    labels, scores, groups = labels.repeat(10), scores.repeat(10), np.arange(300).repeat(10)
    alone, grouped = (metrics.intervals(labels, scores, g, resamples=300)["auc"] for g in (None, groups))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_bootstrap_is_deterministic_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = _case(0, ties=False)
    whole = metrics.intervals(labels, scores, resamples=50)
    assert whole == metrics.intervals(labels, scores, resamples=50)
    monkeypatch.setattr("crossfake.stats.bootstrap._AT_A_TIME", 700)
    chunked = metrics.intervals(labels, scores, resamples=50)
    np.testing.assert_allclose(list(chunked.values()), list(whole.values()))


@pytest.mark.slow
def test_the_interval_covers_the_truth() -> None:
    """Of 400 samples with AUC Φ(1/√2) about 95% of the intervals contain it."""
    from scipy.stats import norm

    truth, hits = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) % 2
        low, high = metrics.intervals(labels, rng.normal(labels, 1), resamples=400, seed=seed)["auc"]
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.97


def test_best_threshold_maximises_balanced_accuracy() -> None:
    labels, scores = _case(1, ties=False)
    best = metrics.summary(labels, scores, metrics.best_threshold(labels, scores))["balanced_accuracy"]
    assert best == pytest.approx(max(metrics.summary(labels, scores, t)["balanced_accuracy"] for t in scores))
    assert 0.2 < metrics.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) < 0.8
    with pytest.raises(ValueError, match="reals and fakes"):
        metrics.best_threshold([1, 1], [0.2, 0.3])


@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_threshold_gives_the_oracle_accuracy(seed: int) -> None:
    labels, scores = _case(seed, ties=seed % 2 == 0)
    figures = metrics.summary(labels, scores, metrics.oracle_threshold(labels, scores))
    assert figures["accuracy"] == pytest.approx(figures["oracle_accuracy"])
    few = np.arange(300) < 280  # so few fakes that calling everything real is best
    figures = metrics.summary(~few, np.ones(300), metrics.oracle_threshold(~few, np.ones(300)))
    assert figures["accuracy"] == figures["oracle_accuracy"] == pytest.approx(280 / 300)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_figures_are_scikit_learns(ties: bool) -> None:
    labels, scores = _case(2, ties=ties)
    weights = np.random.default_rng(3).choice([0.0, 0.3, 1.0, 7.0], len(labels))
    figures = metrics.summary(labels, scores, 0.5, weights)
    expected = {
        "ap": reference.average_precision_score(labels, scores, sample_weight=weights),
        "auc": reference.roc_auc_score(labels, scores, sample_weight=weights),
        "accuracy": reference.accuracy_score(labels, scores >= 0.5, sample_weight=weights),
        "f1": reference.f1_score(labels, scores >= 0.5, sample_weight=weights),
        "mcc": reference.matthews_corrcoef(labels, scores >= 0.5, sample_weight=weights),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    fpr, tpr, _ = ranking.roc_curve(labels, scores, weights)
    at = metrics.summary(labels, scores, metrics.best_threshold(labels, scores, weights), weights)
    assert at["balanced_accuracy"] == pytest.approx(((1 - fpr + tpr) / 2).max())


def test_whole_weights_are_repetitions() -> None:
    labels, scores = _case(4, ties=False)
    times = np.random.default_rng(5).integers(0, 4, len(labels))
    repeated = metrics.best_threshold(labels.repeat(times), scores.repeat(times))
    assert metrics.best_threshold(labels, scores, times) == repeated
    assert metrics.summary(labels, scores, repeated, times) == pytest.approx(
        metrics.summary(labels.repeat(times), scores.repeat(times), repeated)
    )
