"""The cluster bootstrap against resampling by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from crossfake.stats import bootstrap, ranking
from crossfake.stats.bootstrap import Measured, average, cluster_resamples, measure, together
from crossfake.stats.intervals import estimate


def accuracy(labels, scores, weights):
    return {"accuracy": (weights * ((scores > 0) == labels)).sum(1) / weights.sum(1)}


def found(labels, scores, figures, resamples):
    (measured,) = measure(labels, scores, figures, resamples).values()
    return measured


def two_arms(rng, seeds=3, shift=1.0, own=0.3, base=0.5):
    """Scores of two arms on the same pictures of 60 people, three of each; those of one person are alike."""
    hard = np.repeat(rng.normal(0, 1, 60), 3) + rng.normal(0, 0.5, 180)
    groups = np.repeat(np.arange(60), 3)
    labels = (groups >= 30).astype(int)
    arms = [
        np.where(labels == 1, 1, -1) * (base + more) + hard + rng.normal(0, own, (seeds, 180))
        for more in (0, shift)
    ]
    return labels, groups, *arms


def test_resamples_keep_groups_whole_and_classes_present():
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    groups = np.array(["a", "a", "b", "c", "c", "c", "m", "m"])  # m holds both classes
    for counts in cluster_resamples(groups, n=50, seed=1, labels=labels):
        for group in set(groups):
            assert len(set(counts[groups == group])) == 1
        assert counts[0] + counts[2] == 2  # two groups of reals, drawn twice
        assert (counts[groups == "m"] == 1).all() and (
            counts[groups == "c"] == 1
        ).all()  # alone in their stratum


def test_resamples_are_the_same_for_the_same_seed():
    labels, groups = np.arange(40) % 2, np.arange(40)
    one, two = (cluster_resamples(groups, n=5, seed=3, labels=labels) for _ in range(2))
    assert (one == two).all() and one.shape == (5, 40) and (one.sum(1) == 40).all()
    assert not (one == cluster_resamples(groups, n=5, seed=4, labels=labels)).all()


def test_without_labels_all_groups_are_drawn_alike():
    counts = cluster_resamples(np.repeat(np.arange(50), 2), n=4000, seed=5)
    assert (counts[:, ::2] == counts[:, 1::2]).all() and (counts.sum(1) == 100).all()
    times = counts[:, ::2]  # of one group: binomial, 50 draws with a chance of 1/50
    assert times.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert times.var() == pytest.approx(50 * 1 / 50 * 49 / 50, rel=0.03)


@pytest.mark.parametrize("stratified", [False, True])
def test_draws_of_the_bootstrap_are_those_of_its_resamples(stratified, monkeypatch):
    """Whatever fits into memory at once, and from a generator as from its seed."""
    rng = np.random.default_rng(1)
    groups, scores = rng.integers(0, 40, 120), rng.normal(size=120)
    labels = groups % 2 if stratified else None
    counts = cluster_resamples(groups, 30, 7, labels)
    by_hand = [np.repeat(scores, times).mean() for times in counts]

    def mean(times):
        return {"mean": times @ scores / times.sum(1)}

    for size, seed in ((10**6, 7), (700, 7), (700, np.random.default_rng(7))):
        monkeypatch.setattr(bootstrap, "_AT_A_TIME", size)
        assert bootstrap.bootstrap(mean, groups, 30, seed, labels)["mean"] == pytest.approx(by_hand)
        assert bootstrap.on_resamples(mean, counts)["mean"] == pytest.approx(by_hand)


def test_clusters_widen_the_interval_as_they_should():
    """Three identical photos of each person carry the information of one."""
    rng = np.random.default_rng(2)
    labels, person = np.repeat(np.arange(200) % 2, 3), np.repeat(np.arange(200), 3)
    scores = np.repeat(rng.normal(0, 1, 200), 3)
    by_person = estimate(found(labels, scores, accuracy, cluster_resamples(person, 2000, labels=labels)))
    by_photo = estimate(
        found(labels, scores, accuracy, cluster_resamples(np.arange(600), 2000, labels=labels))
    )
    assert by_person.half_width / by_photo.half_width == pytest.approx(np.sqrt(3), rel=0.1)


def test_pairing_beats_unpaired_arms():
    rng = np.random.default_rng(3)
    labels, groups, without, with_ = two_arms(rng, shift=0.2)
    draws = cluster_resamples(groups, 1000, labels=labels)
    one, two = found(labels, without, accuracy, draws), found(labels, with_, accuracy, draws)
    paired = estimate(two - one, bounds=(-1, 1)).half_width
    assert paired < 0.8 * np.hypot(estimate(one).half_width, estimate(two).half_width)


def test_average_is_taken_seed_by_seed_and_draw_by_draw():
    parts = [
        Measured(np.array([0.1, 0.3]), np.array([[0.0, 1.0], [0.2, 1.0]])),
        Measured(np.array([0.3, 0.5]), np.array([[1.0, 1.0], [1.0, 0.0]])),
    ]
    both = average(parts)
    assert both.per_seed.tolist() == pytest.approx([0.2, 0.4])
    assert both.draws.tolist() == [[0.5, 1.0], [0.6, 0.5]]
    assert (parts[1] - parts[0]).draws.tolist() == [[1.0, 0.0], [0.8, -1.0]]
    joined = together(parts)
    assert joined.per_seed.tolist() == [0.1, 0.3, 0.3, 0.5] and joined.draws.shape == (4, 2)


def test_draws_that_were_averaged_over_seeds_are_refused():
    for draws in (np.zeros(9), np.zeros((1, 9))):
        with pytest.raises(ValueError, match="draws of 3 seeds"):
            Measured(np.zeros(3), draws)


def test_chunks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(6)
    labels, groups, without, _ = two_arms(rng)
    draws = cluster_resamples(groups, 30, labels=labels)
    whole = measure(labels, without, ranking.weighted, draws)
    monkeypatch.setattr(bootstrap, "_AT_A_TIME", 700)
    parts = measure(labels, without, ranking.weighted, draws)
    assert all((whole[name].draws == parts[name].draws).all() for name in whole)
    assert whole["auc"].per_seed[0] == pytest.approx(roc_auc_score(labels, without[0]))
    expected = [roc_auc_score(labels, without[2], sample_weight=row) for row in draws]
    assert whole["auc"].draws.shape == (3, 30) and whole["auc"].draws[2] == pytest.approx(expected)


def test_tests_against_the_same_reals_resample_these_alike():
    """Also where the fakes of one of them show the reals' people."""
    reals, labels = [f"p{k}" for k in range(60)], np.repeat([0, 1], [60, 40])
    apart, shared = (
        cluster_resamples([*reals, *(f"{who}{k}" for k in range(40))], 50, labels=labels)
        for who in ("x", "p")
    )
    assert (apart[:, :60] == shared[:, :60]).all()
    assert (shared[:, 60:] == shared[:, :40]).all() and shared[:, 60:].any(1).all()
