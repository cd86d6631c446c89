"""What reports say of differences, against simulated experiments: do their intervals cover the truth?"""

import json

import numpy as np
import pytest
from scipy import stats

from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.results import Cell, Results, Truth
from crossfake.stats import ranking
from crossfake.stats.bootstrap import Measured, average, measure
from crossfake.stats.intervals import estimate


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


def true_difference(shift, training_noise, own, base=0.5):
    """The AUC of two normal distributions, averaged over normally distributed levels."""
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
        for d in range(detectors)
        for condition in ("without", "with")
        for seed in range(seeds)
    ]
    names = [f"t{k}" for k in range(tests)]
    facts = {
        "config": {"resamples": resamples, "detectors": [f"d{d}" for d in range(detectors)]},
        "conditions": [{"name": name, "fakes": [], "synthetic": []} for name in ("without", "with")],
        "pools": [],
        "cells": entries,
        "failures": [],
        "seen": [],
        "tests": [
            {
                "name": name,
                "real": "real",
                "fake": name,
                "base": name,
                "perturbation": None,
                "n_real": 90,
                "n_fake": 90,
            }
            for name in names
        ],
        "contrasts": [{"name": "with minus without", "a": "without", "b": "with", "tests": names}],
    }
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
                    ranking.weighted,
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


def test_no_true_difference_is_rarely_called_one(tmp_path):
    settings = {"shift": 0.0, "training_noise": 0.1, "resamples": 150}
    verdicts = [one.verdict() for one in reported(tmp_path, np.random.default_rng(5), 200, **settings)]
    assert np.mean([verdict != "no difference shown" for verdict in verdicts]) <= 0.08
