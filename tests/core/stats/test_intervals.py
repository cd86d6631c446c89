"""The intervals against simulation and scipy: do they cover the truth as often as they claim?"""

import numpy as np
import pytest
from scipy import stats

from crossfake.stats.bootstrap import Measured, cluster_resamples, measure
from crossfake.stats.intervals import (
    Estimate,
    chance,
    clopper_pearson,
    estimate,
    percentile_interval,
    share_interval,
    wilson,
)


def mean(labels, scores, weights):
    return {"mean": (weights * scores).sum(1) / weights.sum(1)}


def shared(values, draws):
    """Measured where the pictures' chance is the same for all seeds."""
    return Measured(np.asarray(values), np.tile(draws, (len(values), 1)))


def coverage(truth, estimates):
    """The 95% interval (Clopper and Pearson) of how often the truth was held."""
    held = [one.low <= truth <= one.high for one in estimates]
    return stats.binomtest(sum(held), len(held)).proportion_ci()


def in_theory(rng, seeds, ratio, picture_draws):
    """A difference whose truth is 0: ``ratio`` is the pictures' variance over that of the seeds' mean."""
    common = rng.normal(0, np.sqrt(ratio))
    per_seed = common + rng.normal(0, np.sqrt(seeds), seeds)
    return shared(per_seed, per_seed.mean() + np.sqrt(ratio) * picture_draws)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (1, 618), (7, 20), (20, 20)])
def test_intervals_of_shares_are_scipys(hits, count):
    exact, score = (stats.binomtest(hits, count).proportion_ci(0.95, how) for how in ("exact", "wilson"))
    assert clopper_pearson(hits, count) == pytest.approx((exact.low, exact.high))
    assert [float(end) for end in wilson(hits / count, count)] == pytest.approx((score.low, score.high))
    low, high = wilson(np.array([0.2, 0.5]), np.array([10, 20.5]))
    assert low.shape == high.shape == (2,) and (low < [0.2, 0.5]).all() and (high > [0.2, 0.5]).all()


def test_percentiles_leave_out_what_a_resample_does_not_define():
    draws = np.random.default_rng(0).normal(size=(200, 3))
    assert percentile_interval(draws, 0.9) == pytest.approx(np.quantile(draws, [0.05, 0.95], axis=0))
    draws[:50, 1], draws[:, 2] = np.nan, np.nan
    found = percentile_interval(draws)
    assert found[:, 1] == pytest.approx(np.quantile(draws[50:, 1], [0.025, 0.975]))
    assert np.isnan(found).tolist() == [[False, False, True]] * 2
    assert np.isnan(percentile_interval([np.nan, np.nan])).all()


def test_the_interval_of_a_share_counts_groups():
    rng = np.random.default_rng(0)
    hits = (rng.random(200) < 0.3).astype(int)
    alone = share_interval(hits, np.arange(200))
    share = hits.mean()
    assert alone[0] < share < alone[1] and alone[1] - alone[0] == pytest.approx(0.126, abs=0.01)
    fours = share_interval(np.repeat(hits[:50], 4), np.arange(200) // 4)
    fifty = share_interval(hits[:50], np.arange(50))
    assert fours[1] - fours[0] == pytest.approx(fifty[1] - fifty[0], rel=0.03)
    # nothing found: as if each group were one picture
    assert share_interval(np.zeros(200), np.arange(200) // 4) == share_interval(np.zeros(50), np.arange(50))
    low, high = share_interval(hits, np.zeros(200))  # one group says next to nothing
    assert low < 0.1 and high > 0.7


def test_the_interval_of_a_share_covers_the_truth():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        rates = rng.beta(0.5, 4.5, 60)  # groups differ much: 0.1 on average
        hits = (rng.random((60, 5)) < rates[:, None]).astype(int).ravel()
        low, high = share_interval(hits, np.repeat(np.arange(60), 5))
        covered += low <= 0.1 <= high
    assert covered >= 0.92 * 400


def test_one_seed_without_clusters_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.exponential(1.0, 300) / 10
    ours = estimate(
        measure(np.zeros(300, int), values, mean, cluster_resamples(np.arange(300), 4000))["mean"]
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_without_noise_from_pictures_it_is_students_t():
    values = np.array([0.71, 0.74, 0.78, 0.73])
    ours = estimate(shared(values, np.full(20_000, values.mean())))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3)


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


def test_what_is_each_trainings_own_is_counted_once():
    """Trainings that share nothing but their quality: the pictures' chance is in the seeds' spread as a whole."""
    rng = np.random.default_rng(8)
    seed_draws = rng.normal(0, 0.02, (3, 20_000)) + np.array([[0.10], [0.12], [0.17]])
    values = seed_draws.mean(1)
    ours = chance(Measured(values, seed_draws))
    assert ours.errors == pytest.approx(2 * [stats.sem(values)], rel=0.05)
    assert ours.freedom == 2 and ours.shares == pytest.approx([1, 1], abs=0.05)

    ours = chance(Measured(values, rng.normal(0, 0.02, 20_000) + values[:, None]))
    assert ours.errors == pytest.approx(2 * [np.hypot(stats.sem(values), 0.02)], rel=0.05)


def test_skewness_of_the_pictures_stays():
    draws = 0.02 * np.random.default_rng(9).exponential(1, 50_000)
    ours = estimate(shared(np.full(3, 0.02) + [-1e-6, 0, 1e-6], draws))
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=0.01)


def test_the_interval_holds_its_mean_even_where_resampling_is_biased():
    ours = estimate(shared([0.9], np.linspace(0.5, 0.6, 100)))
    assert ours.low < 0.9 == ours.high


def test_verdicts():
    def of(low, high):
        return Estimate((low + high) / 2, low, high, 3)

    assert of(0.01, 0.2).verdict() == "helped" and of(-0.2, -0.01).verdict() == "hurt"
    assert of(-0.1, 0.2).verdict() == of(0.0, 0.1).verdict() == "no difference shown"
    assert of(-0.2, -0.01).verdict(higher_is_better=False) == "helped"  # a lower EER


def test_intervals_stay_within_bounds():
    narrow = estimate(shared([0.98, 1.0], np.full(500, 0.99)))
    assert narrow.high == 1.0 and narrow.low >= 0.0


def test_independent_parts_are_pooled_as_welch_and_satterthwaite_do():
    rng = np.random.default_rng(7)
    one, two = rng.normal(0.8, 0.01, 3), rng.normal(0.6, 0.04, 5)
    ours = estimate(*(shared(values, np.full(20_000, values.mean())) for values in (one, two)))
    theirs = stats.ttest_ind(one, -two, equal_var=False).confidence_interval(0.95)  # of the sum
    assert (ours.low, ours.high) == pytest.approx((theirs.low / 2, theirs.high / 2), rel=1e-3)
    assert ours.seeds == 3


def test_parts_without_any_spread_have_the_pictures_interval_only():
    draws = np.linspace(0.4, 0.6, 1001)
    for values in ([0.5], [0.5, 0.5]):
        found = estimate(shared(values, draws))
        assert (found.low, found.high) == pytest.approx((0.405, 0.595))
