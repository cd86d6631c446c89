"""The intervals against simulation, scipy and sklearn: do they cover the truth as often as they claim?"""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from crossfake.detect.evaluation import metrics
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.results import Cell, Results, Truth
from crossfake.experiments.report.statistics import (
    Estimate,
    Measured,
    average,
    chance,
    cluster_resamples,
    estimate,
    measure,
    together,
)


def accuracy(labels, scores, weights):
    return {"accuracy": (weights * ((scores > 0) == labels)).sum(1) / weights.sum(1)}


def mean(labels, scores, weights):
    return {"mean": (weights * scores).sum(1) / weights.sum(1)}


def found(labels, scores, figures, resamples):
    (measured,) = measure(labels, scores, figures, resamples).values()
    return measured


def shared(values, draws):
    """Measured where the pictures' chance is the same for all seeds."""
    return Measured(np.asarray(values), np.tile(draws, (len(values), 1)))


def pictures(rng, reals, fakes, photos=3):
    """Labels, groups and difficulty of photos of so many people; those of one person are alike."""
    people = reals + fakes
    hard = np.repeat(rng.normal(0, 1, people), photos) + rng.normal(0, 0.5, people * photos)
    groups = np.repeat(np.arange(people), photos)
    return (groups >= reals).astype(int), groups, hard


def trained(rng, labels, hard, seeds, strength, training_noise, own):
    """Scores [S, N]; ``training_noise`` makes trainings differ in quality, ``own`` in their mistakes."""
    level = strength + rng.normal(0, training_noise, (seeds, 1))
    return np.where(labels == 1, 1, -1) * level + hard + rng.normal(0, own, (seeds, len(labels)))


def two_arms(rng, seeds=3, shift=1.0, training_noise=0.0, own=0.3, base=0.5):
    """Scores of two arms on the same pictures."""
    labels, groups, hard = pictures(rng, 30, 30)
    arms = [trained(rng, labels, hard, seeds, base + s, training_noise, own) for s in (0, shift)]
    return labels, groups, *arms


def true_difference(shift, training_noise, own, base=0.5):
    """Of :func:`two_arms`: the AUC of two normal distributions, averaged over normally distributed levels."""
    spread = np.sqrt(2 * (1 + 0.5**2 + own**2) + 4 * training_noise**2)
    return stats.norm.cdf(2 * (base + shift) / spread) - stats.norm.cdf(2 * base / spread)


class Simulated(Results):
    """Results whose scores are drawn instead of read; whatever is made of them is what a report says."""

    def __init__(self, folder, rng, seeds, shift, training_noise=0.0, own=0.3, base=0.5):
        facts = json.loads((folder / "experiment.json").read_text())
        tests = [test["name"] for test in facts["tests"]]
        labels, groups, hard = pictures(rng, 30, 30 * len(tests))
        reals, fakes = (np.flatnonzero(labels == label) for label in (0, 1))  # one set of reals for all tests
        self.rows = {t: np.append(reals, f) for t, f in zip(tests, np.split(fakes, len(tests)), strict=True)}
        self.drawn = {
            (detector, condition): trained(rng, labels, hard, seeds, base + more, training_noise, own)
            for detector in facts["config"]["detectors"]
            for condition, more in (("without", 0.0), ("with", shift))
        }
        self.pictures = labels, groups
        super().__init__(folder)

    def _read(self, entry):
        labels, groups = self.pictures
        for test, rows in self.rows.items():
            self.truths[test] = Truth(labels[rows], tuple(map(str, groups[rows])))
        scores = self.drawn[entry["detector"], entry["condition"]][entry["seed"]]
        of_tests = {test: scores[rows] for test, rows in self.rows.items()}
        return Cell(*(entry[k] for k in ("detector", "condition", "seed", "key")), self.folder, {}, of_tests)


def write_design(folder, seeds=3, detectors=1, tests=1, resamples=300):
    """``experiment.json`` of two conditions on tests against the same reals."""
    entries = [
        {"detector": f"d{d}", "condition": condition, "seed": seed, "key": f"{d} {condition} {seed}"}
        for d in range(detectors) for condition in ("without", "with") for seed in range(seeds)
    ]  # fmt: skip
    names = [f"t{k}" for k in range(tests)]
    facts = {
        "config": {"resamples": resamples, "detectors": [f"d{d}" for d in range(detectors)]},
        "conditions": [{"name": name, "fakes": [], "synthetic": []} for name in ("without", "with")], "pools": [],
        "cells": entries, "failures": [], "seen": [],
        "tests": [{"name": name, "real": "real", "fake": name, "base": name, "perturbation": None, "n_real": 90,
                   "n_fake": 90} for name in names],
        "contrasts": [{"name": "with minus without", "a": "without", "b": "with", "tests": names}],
    }  # fmt: skip
    (folder / "experiment.json").write_text(json.dumps(facts))


def reported(folder, rng, repeats, seeds=3, detectors=1, tests=1, resamples=300, **of_the_arms):
    """The difference of AUC that a report gives, for each of many simulated experiments."""
    write_design(folder, seeds, detectors, tests, resamples)
    for _ in range(repeats):
        (answer,) = answers(Simulated(folder, rng, seeds, **of_the_arms))
        yield answer.overall.estimate


def coverage(truth, estimates):
    """The 95% interval (Clopper and Pearson) of how often the truth was held."""
    held = [one.low <= truth <= one.high for one in estimates]
    return stats.binomtest(sum(held), len(held)).proportion_ci()


def in_theory(rng, seeds, ratio, picture_draws):
    """A difference whose truth is 0: ``ratio`` is the pictures' variance over that of the seeds' mean."""
    common = rng.normal(0, np.sqrt(ratio))
    per_seed = common + rng.normal(0, np.sqrt(seeds), seeds)
    return shared(per_seed, per_seed.mean() + np.sqrt(ratio) * picture_draws)


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
    ours = estimate(shared(values, np.full(20_000, values.mean())))
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
def test_the_interval_of_the_difference_covers_the_truth(tmp_path, training_noise):
    """Against gross error: 95% intervals hold the true AUC difference in 91% to 99% of 200 simulated experiments."""
    truth = true_difference(0.2, training_noise, 0.3)
    settings = {"shift": 0.2, "training_noise": training_noise, "resamples": 150}
    found = list(reported(tmp_path, np.random.default_rng(4), 200, **settings))
    assert 0.91 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99
    # t with two degrees of freedom is 4.3 wide where the normal is 1.96
    assert np.mean([one.half_width for one in found]) < 5 * np.std([one.mean for one in found])
    assert np.mean([one.mean for one in found]) == pytest.approx(truth, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("mean_over", [(1, 1), (2, 2)], ids=["one row", "two detectors, two tests"])
@pytest.mark.parametrize(
    ("training_noise", "own"), [(0.0, 1.0), (0.05, 0.3), (0.1, 1.0)], ids=["pictures", "both", "training"]
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_of_the_reported_difference(tmp_path, seeds, training_noise, own, mean_over):
    """3,000 reports on 60 people with three photos each: the measured coverage's own interval lies in 93% to 97%, too.

    With three seeds up to 97.5%: there Cochran's interval is a trace too wide, as below."""
    settings = {"seeds": seeds, "shift": 0.2, "training_noise": training_noise, "own": own}
    settings |= dict(zip(("detectors", "tests"), mean_over, strict=True))
    found = list(reported(tmp_path, np.random.default_rng(12), 3000, **settings))
    held = coverage(true_difference(0.2, training_noise, own), found)
    width = np.mean([one.half_width for one in found])
    print(f"{seeds} seeds, noise {training_noise}, own {own}, {mean_over}: {held}, ±{width:.4f}")
    assert held.low >= 0.93 and held.high <= (0.975 if seeds == 3 else 0.97)


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
def test_the_ceiling_where_the_interval_fails_is_as_the_module_says(tmp_path):
    settings = {"seeds": 5, "shift": 0.2, "training_noise": 0.1, "base": 1.8}
    held = coverage(
        true_difference(0.2, 0.1, 0.3, base=1.8),
        reported(tmp_path, np.random.default_rng(14), 600, **settings),
    )
    print(f"30 groups a class at an AUC of 0.98: {held}")
    assert held.low > 0.8 and held.high < 0.93


def test_a_report_counts_what_is_each_trainings_own_once(tmp_path):
    """Draws stay apart by seed from the score files to the interval."""
    write_design(tmp_path, detectors=2, tests=2)
    results = Simulated(tmp_path, np.random.default_rng(3), 3, shift=0.2, own=1.0)
    (answer,) = answers(results)
    parts = []
    for detector in ("d0", "d1"):
        sides = []
        for condition in ("without", "with"):
            each = [
                measure(
                    results.truths[test].labels,
                    results.drawn[detector, condition][:, results.rows[test]],
                    metrics.weighted,
                    results._resamples(test),
                )["auc"]
                for test in ("t0", "t1")
            ]
            sides.append(average(each))
        parts.append(sides[1] - sides[0])
    expected = estimate(*parts, bounds=(-1, 1))
    found = answer.overall.estimate
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-6
    )
    pictures_again = estimate(*(shared(p.per_seed, p.draws.mean(0)) for p in parts), bounds=(-1, 1))
    assert found.half_width < 0.97 * pictures_again.half_width


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


def test_no_true_difference_is_rarely_called_one(tmp_path):
    settings = {"shift": 0.0, "training_noise": 0.1, "resamples": 150}
    verdicts = [one.verdict() for one in reported(tmp_path, np.random.default_rng(5), 200, **settings)]
    assert np.mean([verdict != "no difference shown" for verdict in verdicts]) <= 0.08


def test_verdicts():
    def of(low, high):
        return Estimate((low + high) / 2, low, high, 3)

    assert of(0.01, 0.2).verdict() == "helped" and of(-0.2, -0.01).verdict() == "hurt"
    assert of(-0.1, 0.2).verdict() == of(0.0, 0.1).verdict() == "no difference shown"
    assert of(-0.2, -0.01).verdict(higher_is_better=False) == "helped"  # a lower EER


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


def test_intervals_stay_within_bounds():
    narrow = estimate(shared([0.98, 1.0], np.full(500, 0.99)))
    assert narrow.high == 1.0 and narrow.low >= 0.0


def test_chunks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(6)
    labels, groups, without, _ = two_arms(rng)
    draws = cluster_resamples(labels, groups, 30)
    whole = measure(labels, without, metrics.weighted, draws)
    monkeypatch.setattr("crossfake.experiments.report.statistics._AT_A_TIME", 700)
    parts = measure(labels, without, metrics.weighted, draws)
    assert all((whole[name].draws == parts[name].draws).all() for name in whole)
    assert whole["auc"].per_seed[0] == pytest.approx(roc_auc_score(labels, without[0]))
    expected = [roc_auc_score(labels, without[2], sample_weight=row) for row in draws]
    assert whole["auc"].draws.shape == (3, 30) and whole["auc"].draws[2] == pytest.approx(expected)


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


def test_tests_against_the_same_reals_resample_these_alike():
    """Also where the fakes of one of them show the reals' people."""
    reals, labels = [f"p{k}" for k in range(60)], np.repeat([0, 1], [60, 40])
    apart, shared = (
        cluster_resamples(labels, [*reals, *(f"{who}{k}" for k in range(40))], 50) for who in ("x", "p")
    )
    assert (apart[:, :60] == shared[:, :60]).all()
    assert (shared[:, 60:] == shared[:, :40]).all() and shared[:, 60:].any(1).all()
