"""The intervals against simulation, scipy and sklearn: do they cover the truth as often as they claim?"""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from crossfake.detect import metrics
from crossfake.experiments.statistics import Estimate, Measured, average, cluster_resamples, estimate, measure


def accuracy(labels, scores, weights):
    return {"accuracy": (weights * ((scores > 0) == labels)).sum(1) / weights.sum(1)}


def mean(labels, scores, weights):
    return {"mean": (weights * scores).sum(1) / weights.sum(1)}


def found(labels, scores, figures, resamples):
    (measured,) = measure(labels, scores, figures, resamples).values()
    return measured


def auc(labels, scores, weights):
    return {"auc": metrics.weighted(labels, scores, weights)["auc"]}


def two_arms(rng, people=60, photos=3, seeds=3, shift=1.0, training_noise=0.0):
    """Scores [S, N] of two arms on the same pictures; people differ, so photos of one person are alike."""
    labels = np.repeat(np.arange(people) % 2, photos)
    groups = np.repeat(np.arange(people), photos)
    hard = np.repeat(rng.normal(0, 1, people), photos) + rng.normal(0, 0.5, people * photos)
    arms = []
    for strength in (0.5, 0.5 + shift):
        level = strength + rng.normal(0, training_noise, (seeds, 1))
        arms.append(
            np.where(labels == 1, 1, -1) * level + hard + rng.normal(0, 0.3, (seeds, people * photos))
        )
    return labels, groups, *arms


def test_resamples_keep_groups_whole_and_classes_present():
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    groups = np.array(["a", "a", "b", "c", "c", "c", "m", "m"])  # m holds both classes
    for counts in cluster_resamples(labels, groups, n=50, seed=1):
        for group in set(groups):
            assert len(set(counts[groups == group])) == 1
        assert counts[0] + counts[2] == 2  # two groups of reals, drawn twice
        assert (counts[groups == "m"] == 1).all() and (
            counts[groups == "c"] == 1
        ).all()  # alone in their stratum


def test_resamples_are_the_same_for_the_same_seed():
    labels, groups = np.arange(40) % 2, np.arange(40)
    one, two = (cluster_resamples(labels, groups, n=5, seed=3) for _ in range(2))
    assert (one == two).all() and one.shape == (5, 40) and (one.sum(1) == 40).all()
    assert not (one == cluster_resamples(labels, groups, n=5, seed=4)).all()


def test_one_seed_without_clusters_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.exponential(1.0, 300) / 10
    ours = estimate(
        found(np.zeros(300, int), values, mean, cluster_resamples(np.zeros(300), np.arange(300), 4000))
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_without_noise_from_pictures_it_is_students_t():
    values = np.array([0.71, 0.74, 0.78, 0.73])
    ours = estimate(Measured(values, np.full(20_000, values.mean())))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3)


def test_clusters_widen_the_interval_as_they_should():
    """Three identical photos of each person carry the information of one."""
    rng = np.random.default_rng(2)
    labels, person = np.repeat(np.arange(200) % 2, 3), np.repeat(np.arange(200), 3)
    scores = np.repeat(rng.normal(0, 1, 200), 3)
    by_person = estimate(found(labels, scores, accuracy, cluster_resamples(labels, person, 2000)))
    by_photo = estimate(found(labels, scores, accuracy, cluster_resamples(labels, np.arange(600), 2000)))
    assert by_person.half_width / by_photo.half_width == pytest.approx(np.sqrt(3), rel=0.1)


def test_pairing_beats_unpaired_arms():
    rng = np.random.default_rng(3)
    labels, groups, without, with_ = two_arms(rng, shift=0.2)
    draws = cluster_resamples(labels, groups, 1000)
    one, two = found(labels, without, accuracy, draws), found(labels, with_, accuracy, draws)
    paired = estimate(two - one, bounds=(-1, 1)).half_width
    assert paired < 0.8 * np.hypot(estimate(one).half_width, estimate(two).half_width)


@pytest.mark.parametrize("training_noise", [0.0, 0.25])
def test_the_interval_of_the_difference_covers_the_truth(training_noise):
    """95% intervals hold the true AUC difference in at least 91% of 120 simulated experiments, and are not silly."""
    rng = np.random.default_rng(4)
    truth = np.mean(
        [
            np.subtract(*(roc_auc_score(arms[0], arm[0]) for arm in arms[:1:-1]))
            for arms in (two_arms(rng, people=2000, training_noise=training_noise) for _ in range(100))
        ]
    )
    held, widths, means = [], [], []
    for _ in range(120):
        labels, groups, without, with_ = two_arms(rng, training_noise=training_noise)
        draws = cluster_resamples(labels, groups, 120, seed=int(rng.integers(1 << 30)))
        one, two = found(labels, without, auc, draws), found(labels, with_, auc, draws)
        difference = estimate(two - one, bounds=(-1, 1))
        held.append(difference.low <= truth <= difference.high)
        widths.append(difference.half_width)
        means.append(difference.mean)
    assert np.mean(held) >= 0.91
    assert np.mean(widths) < 5 * np.std(
        means
    )  # t with two degrees of freedom is 4.3 wide where the normal is 1.96


def test_no_true_difference_is_rarely_called_one():
    rng = np.random.default_rng(5)
    verdicts = []
    for _ in range(120):
        labels, groups, without, with_ = two_arms(rng, shift=0.0, training_noise=0.1)
        draws = cluster_resamples(labels, groups, 120, seed=int(rng.integers(1 << 30)))
        difference = found(labels, with_, auc, draws) - found(labels, without, auc, draws)
        verdicts.append(estimate(difference, bounds=(-1, 1)).verdict())
    assert np.mean([verdict != "no difference shown" for verdict in verdicts]) <= 0.08


def test_verdicts():
    def of(low, high):
        return Estimate((low + high) / 2, low, high, 3)

    assert of(0.01, 0.2).verdict() == "helped" and of(-0.2, -0.01).verdict() == "hurt"
    assert of(-0.1, 0.2).verdict() == of(0.0, 0.1).verdict() == "no difference shown"
    assert of(-0.2, -0.01).verdict(higher_is_better=False) == "helped"  # a lower EER


def test_average_is_taken_seed_by_seed_and_draw_by_draw():
    parts = [
        Measured(np.array([0.1, 0.3]), np.array([0.0, 1.0])),
        Measured(np.array([0.3, 0.5]), np.array([1.0, 1.0])),
    ]
    both = average(parts)
    assert both.per_seed.tolist() == pytest.approx([0.2, 0.4]) and both.draws.tolist() == [0.5, 1.0]


def test_intervals_stay_within_bounds():
    narrow = estimate(Measured(np.array([0.98, 1.0]), np.full(500, 0.99)))
    assert narrow.high == 1.0 and narrow.low >= 0.0


def test_chunks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(6)
    labels, groups, without, _ = two_arms(rng)
    draws = cluster_resamples(labels, groups, 30)
    whole = measure(labels, without, metrics.weighted, draws)
    monkeypatch.setattr("crossfake.experiments.statistics._AT_A_TIME", 700)
    parts = measure(labels, without, metrics.weighted, draws)
    assert all((whole[name].draws == parts[name].draws).all() for name in whole)
    assert whole["auc"].per_seed[0] == pytest.approx(roc_auc_score(labels, without[0]))


def test_independent_parts_are_pooled_as_welch_and_satterthwaite_do():
    rng = np.random.default_rng(7)
    one, two = rng.normal(0.8, 0.01, 3), rng.normal(0.6, 0.04, 5)
    ours = estimate(*(Measured(values, np.full(20_000, values.mean())) for values in (one, two)))
    theirs = stats.ttest_ind(one, -two, equal_var=False).confidence_interval(0.95)  # of the sum
    assert (ours.low, ours.high) == pytest.approx((theirs.low / 2, theirs.high / 2), rel=1e-3)
    assert ours.seeds == 3


def test_parts_without_any_spread_have_the_pictures_interval_only():
    draws = np.linspace(0.4, 0.6, 1001)
    for values in ([0.5], [0.5, 0.5]):
        found = estimate(Measured(np.array(values), draws))
        assert (found.low, found.high) == pytest.approx((0.405, 0.595))
