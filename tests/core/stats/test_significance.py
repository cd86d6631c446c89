"""Tests and effect sizes against scipy, scikit-learn, the published formulae written out, and simulation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from crossfake.stats import ranking
from crossfake.stats.bootstrap import Measured, cluster_resamples, measure
from crossfake.stats.intervals import estimate
from crossfake.stats.significance import (
    bootstrap_p,
    cliffs_delta,
    cohens_d_paired,
    delong,
    delong_interval,
    holm,
    minimum_detectable,
)


def scores_of_two(rng, n=80, gain=0.0, digits=1):
    """Labels, and the scores of two detectors that agree in part; rounding makes ties."""
    labels = (rng.random(n) < 0.4).astype(int)
    labels[:4] = [0, 0, 1, 1]
    shared = rng.normal(0, 1, n)
    a, b = (labels * (1 + more) + shared + rng.normal(0, 0.7, n) for more in (0, gain))
    return labels, np.round(a, digits), np.round(b, digits)


def written_out(labels, scores):
    """Placements of DeLong et al. (1988) by comparing every fake with every real."""
    fakes, reals = scores[labels == 1], scores[labels == 0]
    right = (fakes[:, None] > reals) + 0.5 * (fakes[:, None] == reals)
    return right.mean(), right.mean(1), right.mean(0)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_delong_is_the_published_formula(digits):
    labels, a, b = scores_of_two(np.random.default_rng(0), digits=digits)
    ours = delong(labels, a, b)
    (auc_a, fakes_a, reals_a), (auc_b, fakes_b, reals_b) = written_out(labels, a), written_out(labels, b)
    covariance = np.cov(fakes_a, fakes_b) / len(fakes_a) + np.cov(reals_a, reals_b) / len(reals_a)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (ours.auc_a, ours.auc_b) == pytest.approx((auc_a, auc_b))
    assert (ours.auc_a, ours.auc_b) == pytest.approx((roc_auc_score(labels, a), roc_auc_score(labels, b)))
    assert ours.difference == pytest.approx(auc_b - auc_a)
    assert (ours.low, ours.high) == pytest.approx(
        stats.norm.interval(0.95, loc=auc_b - auc_a, scale=error), abs=1e-12
    )
    assert ours.p == pytest.approx(2 * stats.norm.sf(abs(auc_b - auc_a) / error))


def test_the_interval_of_one_auc_is_delongs_on_the_logit_scale():
    labels, a, _ = scores_of_two(np.random.default_rng(1))
    ours = delong_interval(labels, a, level=0.9)
    auc, fakes, reals = written_out(labels, a)
    error = np.sqrt(fakes.var(ddof=1) / len(fakes) + reals.var(ddof=1) / len(reals))
    low, high = np.log(auc / (1 - auc)) + 1.6448536 * np.array([-1, 1]) * error / (auc * (1 - auc))
    u = stats.mannwhitneyu(a[labels == 1], a[labels == 0]).statistic
    assert ours.mean == pytest.approx(u / len(fakes) / len(reals))
    assert (ours.low, ours.high) == pytest.approx((1 / (1 + np.exp(-low)), 1 / (1 + np.exp(-high))))


def test_groups_of_one_are_no_groups_and_copies_add_nothing():
    labels, a, b = scores_of_two(np.random.default_rng(2))
    alone = delong(labels, a, b)
    assert vars(delong(labels, a, b, groups=np.arange(len(a)))) == pytest.approx(vars(alone))
    copied = delong(*(np.repeat(column, 3) for column in (labels, a, b, np.arange(len(a)))))
    assert vars(copied) == pytest.approx(vars(alone))  # DeLong would take them for three times the pictures
    assert delong(*(np.repeat(column, 3) for column in (labels, a, b))).p < alone.p
    one = delong_interval(np.repeat(labels, 3), np.repeat(a, 3), np.repeat(np.arange(len(a)), 3))
    assert vars(one) == pytest.approx(vars(delong_interval(labels, a)))


@pytest.mark.parametrize("mixed", [False, True], ids=["groups of one class", "groups of both"])
def test_grouped_variance_agrees_with_the_cluster_bootstrap(mixed):
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(300), 4)
    labels = np.arange(1200) % 2 if mixed else groups % 2
    person = np.repeat(rng.normal(0, 1, 300), 4)
    a, b = (
        labels * gain + weight * person + rng.normal(0, 0.5, 1200) for gain, weight in ((1, 1), (1.3, 0.6))
    )
    draws = cluster_resamples(groups, 1500, seed=1, labels=labels)
    one, two = (measure(labels, scores, ranking.weighted, draws)["auc"].draws[0] for scores in (a, b))
    ours = delong(labels, a, b, groups)
    assert (ours.high - ours.low) / 2 / 1.96 == pytest.approx((two - one).std(), rel=0.07)
    single = delong_interval(labels, a, groups)
    assert (single.low, single.high) == pytest.approx(tuple(np.quantile(one, [0.025, 0.975])), abs=0.006)


def test_p_of_delong_is_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(4)
    p = [delong(*scores_of_two(rng, 200, digits=8)).p for _ in range(500)]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07 and stats.kstest(p, "uniform").pvalue > 0.01
    assert np.median([delong(*scores_of_two(rng, 400, gain=0.8)).p for _ in range(25)]) < 0.01


def test_delong_at_the_edges():
    same = delong([0, 0, 1, 1], [1, 3, 2, 4], [10, 30, 20, 40])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    apart = delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert (apart.difference, apart.p) == (-1, 0)
    perfect = delong_interval([0, 0, 1, 1], [1, 2, 3, 4])
    assert (perfect.low, perfect.mean, perfect.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("labels", "scores", "groups", "about"),
    [
        ([0, 0, 1, 1], [1, 2, 3], None, "one length"),
        ([0, 0, 1, 1], [1, 2, 3, np.nan], None, "not a number"),
        ([0, 0, 1, 2], [1, 2, 3, 4], None, "labels must be"),
        ([0, 0, 0, 1], [1, 2, 3, 4], None, "at least 2"),
        ([0, 0, 1, 1], [1, 2, 3, 4], ["a", "b", "c", "c"], "at least 2"),
        ([0, 0, 1, 1], [1, 2, 3, 4], ["a", "b", "c"], "needs a group"),
    ],
)
def test_delong_says_what_is_wrong(labels, scores, groups, about):
    with pytest.raises(ValueError, match=about):
        delong(labels, scores, scores, groups)
    with pytest.raises(ValueError, match=about):
        delong_interval(labels, scores, groups)


def test_p_belongs_to_the_interval_at_every_level():
    rng = np.random.default_rng(5)
    for seeds in (1, 2, 3, 5):
        for _ in range(25):
            seed_draws = rng.gamma(4, 0.01, 200) + rng.normal(0, 0.01, (seeds, 200))
            seed_draws *= rng.choice([-1, 1])
            difference = Measured(seed_draws.mean(1) * rng.uniform(0, 2), seed_draws)
            p = bootstrap_p(difference)
            assert 0 <= p <= 1
            for alpha in (0.01, 0.05, 0.2):
                found = estimate(difference, level=1 - alpha, bounds=(-1, 1))
                assert (p < alpha) == (found.verdict() != "no difference shown")


def test_p_is_students_and_welchs_where_pictures_are_no_chance():
    one, two = np.array([0.01, 0.03, 0.05, 0.02]), np.array([0.02, -0.01, 0.03])
    still = [Measured(values, np.full((len(values), 50), values.mean())) for values in (one, two)]
    assert bootstrap_p(still[0]) == pytest.approx(stats.ttest_1samp(one, 0).pvalue)
    assert bootstrap_p(*still) == pytest.approx(stats.ttest_ind(one, -two, equal_var=False).pvalue)


def test_p_of_two_detectors_whose_seeds_spread_unequally():
    """Broken degrees of freedom, such as 2.006, at which scipy's t is not defined for the least of probabilities."""
    for spread in np.linspace(0.01, 0.3, 200):
        parts = [np.array([0.2, 0.21, 0.22]), 0.2 + spread * np.array([-0.01, 0, 0.01])]
        p = bootstrap_p(*(Measured(v, np.full((3, 50), v.mean())) for v in parts))
        assert p == pytest.approx(stats.ttest_ind(parts[0], -parts[1], equal_var=False).pvalue)


def test_p_without_chance():
    assert bootstrap_p(Measured(np.array([0.0, 0.0]), np.zeros((2, 9)))) == 1
    assert bootstrap_p(Measured(np.array([0.1]), np.full((1, 9), 0.1))) == 0


def test_holm_rejects_what_the_step_down_procedure_does():
    rng = np.random.default_rng(6)
    for _ in range(50):
        p = rng.random(7) ** 3
        for alpha in (0.01, 0.05, 0.3):
            rejected = np.zeros(7, bool)
            for step, k in enumerate(np.argsort(p)):
                if p[k] > alpha / (7 - step):
                    break
                rejected[k] = True
            assert ((holm(p) <= alpha) == rejected).all()


def test_holm_lies_between_bonferroni_and_benjamini_hochberg():
    p = np.random.default_rng(7).random(20) ** 4
    assert (holm(p) <= np.minimum(1, 20 * p)).all() and (holm(p) >= stats.false_discovery_control(p)).all()
    assert holm([0.2]).tolist() == [0.2] and holm([]).tolist() == [] and holm([0.9, 0.8]).tolist() == [1, 1]


def test_holm_holds_the_family_at_its_level():
    p = np.random.default_rng(8).random((4000, 10))
    assert np.mean([(holm(family) < 0.05).any() for family in p]) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("p", [[0.1, np.nan], [1.1], [-0.1], [[0.1]]])
def test_holm_takes_probabilities_only(p):
    with pytest.raises(ValueError, match="p values"):
        holm(p)


def test_cliffs_delta_counts_pairs():
    rng = np.random.default_rng(9)
    a, b = rng.integers(0, 9, 40), rng.integers(2, 9, 30)
    assert cliffs_delta(a, b) == pytest.approx(np.sign(a[:, None] - b).mean())
    assert cliffs_delta(a, b) == pytest.approx(2 * stats.mannwhitneyu(a, b).statistic / 1200 - 1)
    assert cliffs_delta([1], [0]) == 1 and cliffs_delta([0, 1], [2]) == -1 and cliffs_delta([1, 1], [1]) == 0
    with pytest.raises(ValueError, match="at least 1"):
        cliffs_delta([], [1])


def test_cohens_d_is_t_over_the_root_of_n():
    values = [0.01, 0.03, -0.01, 0.02]
    assert cohens_d_paired(values) == pytest.approx(stats.ttest_1samp(values, 0).statistic / 2)
    assert np.isnan(cohens_d_paired([0.1])) and cohens_d_paired([0.0, 0.0]) == 0
    assert cohens_d_paired([0.1, 0.1, 0.1]) == np.inf and cohens_d_paired([-0.1, -0.1]) == -np.inf


def hanley_mcneil(n_real, n_fake, auc):
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    above = auc * (1 - auc) + (n_fake - 1) * (q1 - auc**2) + (n_real - 1) * (q2 - auc**2)
    return above / (n_real * n_fake)


def test_the_minimum_for_one_seed_is_the_text_book_formula():
    expected = (1.959964 + 0.841621) * np.sqrt(2 * hanley_mcneil(300, 200, 0.8) * (1 - 0.6))
    assert minimum_detectable(300, 200, 1, auc=0.8, correlation=0.6) == pytest.approx(expected, rel=1e-4)
    by_group = minimum_detectable(600, 400, 1, auc=0.8, correlation=0.6, groups_per_row=0.5)
    assert by_group == pytest.approx(expected, rel=1e-4)


def test_the_variance_is_that_of_scores_with_exponential_tails():
    """Hanley and McNeil's formula is exact for them: AUC = k / (1 + k) where fakes score k times as much."""
    rng = np.random.default_rng(10)
    labels = np.repeat([0, 1], [60, 40])
    found = [written_out(labels, rng.exponential(1 + 2 * labels))[0] for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.75, abs=0.01)
    assert np.var(found) == pytest.approx(hanley_mcneil(60, 40, 0.75), rel=0.1)


def test_the_power_is_that_of_students_t_where_seeds_are_all():
    found = minimum_detectable(10**9, 10**9, 4, seed_spread=0.03)
    shift, critical = found / (0.03 / 2), stats.t.isf(0.025, 3)
    power = stats.nct.sf(critical, 3, shift) + stats.nct.cdf(-critical, 3, shift)
    assert power == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_minimum_is_shown_as_often_as_promised(seeds):
    """Simulated experiments through ``estimate``: pictures that all trainings share, and trainings."""
    rng = np.random.default_rng(11)
    pictures, spread = 2 * hanley_mcneil(500, 500, 0.7) * 0.5, 0.02
    truth = minimum_detectable(500, 500, seeds, seed_spread=spread)
    draws = np.sqrt(pictures) * stats.norm.ppf((np.arange(200) + 0.5) / 200)
    shown = []
    for _ in range(800):
        per_seed = truth + rng.normal(0, np.sqrt(pictures)) + rng.normal(0, spread, seeds)
        difference = Measured(per_seed, np.tile(per_seed.mean() + draws, (seeds, 1)))
        shown.append(estimate(difference, bounds=(-1, 1)).verdict())
    assert np.mean([verdict == "helped" for verdict in shown]) == pytest.approx(0.8, abs=0.05)


def test_more_of_anything_shows_smaller_differences():
    usual = minimum_detectable(500, 500, 3)
    for better in (
        {"n_fake": 5000},
        {"seeds": 5},
        {"correlation": 0.8},
        {"auc": 0.95},
        {"seed_spread": 0.01},
    ):
        assert minimum_detectable(**{"n_real": 500, "n_fake": 500, "seeds": 3, **better}) < usual
    assert minimum_detectable(500, 500, 3, level=0.05 / 200) > usual
    assert minimum_detectable(500, 500, 3, seed_spread=0) < usual


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_real": 1},
        {"seeds": 0},
        {"auc": 1.0},
        {"correlation": 1.0},
        {"power": 0.01},
        {"groups_per_row": 0.0},
    ],
)
def test_the_minimum_refuses_nonsense(wrong):
    with pytest.raises(ValueError, match="out of range"):
        minimum_detectable(**{"n_real": 500, "n_fake": 500, "seeds": 3, **wrong})
