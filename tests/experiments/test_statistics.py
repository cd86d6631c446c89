"""The intervals against simulation, scipy and sklearn: do they cover the truth as often as they claim?"""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from crossfake.detect import metrics
from crossfake.experiments.statistics import (
    Estimate,
    Measured,
    average,
    chance,
    cluster_resamples,
    estimate,
    measure,
)


def accuracy(labels, scores, weights):
    return {"accuracy": (weights * ((scores > 0) == labels)).sum(1) / weights.sum(1)}


def mean(labels, scores, weights):
    return {"mean": (weights * scores).sum(1) / weights.sum(1)}


def found(labels, scores, figures, resamples):
    (measured,) = measure(labels, scores, figures, resamples).values()
    return measured


def auc(labels, scores, weights):
    """metrics.weighted's AUC (checked below) by counting pairs: on few pictures that is ten times as fast."""
    right = (scores[labels == 1][:, None] > scores[labels == 0]).astype(np.float64)
    fakes, reals = (weights[:, labels == label].astype(np.float64) for label in (1, 0))
    return {"auc": ((fakes @ right) * reals).sum(1) / (fakes.sum(1) * reals.sum(1))}


def two_arms(rng, people=60, photos=3, seeds=3, shift=1.0, training_noise=0.0, own=0.3, base=0.5):
    """Scores [S, N] of two arms on the same pictures; people differ, so photos of one person are alike.

    ``training_noise`` makes one training better than the next, ``own`` makes their mistakes differ.
    """
    labels = np.repeat(np.arange(people) % 2, photos)
    groups = np.repeat(np.arange(people), photos)
    hard = np.repeat(rng.normal(0, 1, people), photos) + rng.normal(0, 0.5, people * photos)
    arms = []
    for strength in (base, base + shift):
        level = strength + rng.normal(0, training_noise, (seeds, 1))
        arms.append(
            np.where(labels == 1, 1, -1) * level + hard + rng.normal(0, own, (seeds, people * photos))
        )
    return labels, groups, *arms


def true_difference(shift, training_noise, own, base=0.5):
    """Of :func:`two_arms`: the AUC of two normal distributions, averaged over normally distributed levels."""
    spread = np.sqrt(2 * (1 + 0.5**2 + own**2) + 4 * training_noise**2)
    return stats.norm.cdf(2 * (base + shift) / spread) - stats.norm.cdf(2 * base / spread)


def simulated(rng, resamples, **of_the_arms):
    """The measured AUC difference of one simulated experiment."""
    labels, groups, without, with_ = two_arms(rng, **of_the_arms)
    draws = cluster_resamples(labels, groups, resamples, seed=int(rng.integers(1 << 30)))
    return found(labels, with_, auc, draws) - found(labels, without, auc, draws)


def coverage(truth, estimates):
    """The 95% interval (Clopper and Pearson) of how often the truth was held."""
    held = [one.low <= truth <= one.high for one in estimates]
    return stats.binomtest(sum(held), len(held)).proportion_ci()


def in_theory(rng, seeds, ratio, picture_draws):
    """A difference whose truth is 0: ``ratio`` is the pictures' variance over that of the seeds' mean."""
    common = rng.normal(0, np.sqrt(ratio))
    per_seed = common + rng.normal(0, np.sqrt(seeds), seeds)
    return Measured(per_seed, per_seed.mean() + np.sqrt(ratio) * picture_draws)


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


@pytest.mark.parametrize("training_noise", [0.0, 0.1])
def test_the_interval_of_the_difference_covers_the_truth(training_noise):
    """Against gross error: 95% intervals hold the true AUC difference in 91% to 99% of 200 simulated experiments."""
    rng = np.random.default_rng(4)
    truth = true_difference(0.2, training_noise, 0.3)
    found = [
        estimate(simulated(rng, 150, shift=0.2, training_noise=training_noise), bounds=(-1, 1))
        for _ in range(200)
    ]
    assert 0.91 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99
    # t with two degrees of freedom is 4.3 wide where the normal is 1.96
    assert np.mean([one.half_width for one in found]) < 5 * np.std([one.mean for one in found])
    assert np.mean([one.mean for one in found]) == pytest.approx(truth, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training_noise", "own"), [(0.0, 1.0), (0.05, 0.3), (0.1, 1.0)], ids=["pictures", "both", "training"]
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_of_the_difference_is_within_93_and_97_percent(seeds, training_noise, own):
    """3,000 experiments, 60 people with three photos each: the measured coverage's own interval lies inside, too."""
    rng = np.random.default_rng(12)
    truth = true_difference(0.2, training_noise, own)
    settings = {"seeds": seeds, "shift": 0.2, "training_noise": training_noise, "own": own}
    held = coverage(truth, (estimate(simulated(rng, 300, **settings), bounds=(-1, 1)) for _ in range(3000)))
    print(f"{seeds} seeds, noise {training_noise}, own {own}: {held}")
    assert held.low >= 0.93 and held.high <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_whatever_the_ratio_of_pictures_and_training(seeds, ratio):
    """Cochran's interval is a trace too wide with three seeds, where the pictures weigh a little more than they."""
    rng = np.random.default_rng(13)
    pictures = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    everywhere = (-np.inf, np.inf)
    held = coverage(
        0, (estimate(in_theory(rng, seeds, ratio, pictures), bounds=everywhere) for _ in range(20_000))
    )
    print(f"{seeds} seeds, ratio {ratio}: {held}")
    assert held.low >= 0.93 and held.high <= (0.975 if seeds == 3 else 0.97)


@pytest.mark.slow
def test_the_ceiling_where_the_interval_fails_is_as_the_module_says():
    rng = np.random.default_rng(14)
    settings = {"seeds": 5, "shift": 0.2, "training_noise": 0.1, "base": 1.8}
    held = coverage(
        true_difference(0.2, 0.1, 0.3, base=1.8),
        (estimate(simulated(rng, 300, **settings), bounds=(-1, 1)) for _ in range(600)),
    )
    print(f"30 groups a class at an AUC of 0.98: {held}")
    assert held.low > 0.8 and held.high < 0.93


def test_what_is_each_trainings_own_is_counted_once():
    """Trainings that share nothing but their quality: the pictures' chance is in the seeds' spread as a whole."""
    rng = np.random.default_rng(8)
    seed_draws = rng.normal(0, 0.02, (3, 20_000)) + np.array([[0.10], [0.12], [0.17]])
    values = seed_draws.mean(1)
    ours = chance(Measured(values, seed_draws.mean(0), seed_draws))
    assert ours.errors == pytest.approx(2 * [stats.sem(values)], rel=0.05)
    assert ours.freedom == 2 and ours.shares == pytest.approx([1, 1], abs=0.05)
    twice = chance(Measured(values, seed_draws.mean(0)))
    assert twice.errors == pytest.approx(2 * [np.hypot(stats.sem(values), 0.02 / np.sqrt(3))], rel=0.05)

    shared = np.tile(rng.normal(0, 0.02, 20_000), (3, 1)) + values[:, None]
    ours = chance(Measured(values, shared.mean(0), shared))
    assert ours.errors == pytest.approx(2 * [np.hypot(stats.sem(values), 0.02)], rel=0.05)


def test_skewness_of_the_pictures_stays():
    draws = 0.02 * np.random.default_rng(9).exponential(1, 50_000)
    ours = estimate(Measured(np.full(3, 0.02) + [-1e-6, 0, 1e-6], draws))
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=0.01)


def test_the_interval_holds_its_mean_even_where_resampling_is_biased():
    ours = estimate(Measured(np.array([0.9]), np.linspace(0.5, 0.6, 100)))
    assert ours.low < 0.9 == ours.high


def test_no_true_difference_is_rarely_called_one():
    rng = np.random.default_rng(5)
    verdicts = [
        estimate(simulated(rng, 150, shift=0.0, training_noise=0.1), bounds=(-1, 1)).verdict()
        for _ in range(200)
    ]
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
    assert both.seed_draws is None and (parts[0] - parts[1]).seed_draws is None
    known = [Measured(part.per_seed, part.draws, np.stack([part.draws, part.draws])) for part in parts]
    assert average(known).seed_draws.tolist() == [[0.5, 1.0], [0.5, 1.0]]
    assert (known[1] - known[0]).seed_draws.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert average([known[0], parts[1]]).seed_draws is None


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
    pairs = found(labels, without, auc, draws)
    assert pairs.seed_draws.shape == (3, 30) and pairs.draws == pytest.approx(pairs.seed_draws.mean(0))
    assert pairs.seed_draws == pytest.approx(whole["auc"].seed_draws)


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


def test_tests_against_the_same_reals_resample_these_alike():
    """Also where the fakes of one of them show the reals' people."""
    reals, labels = [f"p{k}" for k in range(60)], np.repeat([0, 1], [60, 40])
    apart, shared = (
        cluster_resamples(labels, [*reals, *(f"{who}{k}" for k in range(40))], 50) for who in ("x", "p")
    )
    assert (apart[:, :60] == shared[:, :60]).all()
    assert (shared[:, 60:] == shared[:, :40]).all() and shared[:, 60:].any(1).all()
