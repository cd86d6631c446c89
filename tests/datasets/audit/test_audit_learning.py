"""Figures of the audit's models: the interval of the AUC, and folds that keep groups together."""

import numpy as np
import pytest

from crossfake.datasets.audit import learning
from crossfake.datasets.audit.probes import verdict_of
from crossfake.datasets.audit.settings import AuditSettings


def test_interval_covers_the_truth():
    """Scores N(0, 1) and N(1, 1): the AUC is 0.760; nineteen intervals in twenty hold it."""
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        labels = np.repeat([0, 1], 60)
        low, high = learning.interval(rng.normal(labels, 1), labels, np.arange(120), trial)
        hits += low <= 0.7602 <= high
    assert 52 <= hits <= 60


def test_interval_counts_groups_not_pictures():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 20)
    scores = rng.normal(labels, 1)
    apart = learning.interval(scores, labels, np.arange(40), 0)
    copied = learning.interval(np.tile(scores, 10), np.tile(labels, 10), np.tile(np.arange(40), 10), 0)
    assert copied == pytest.approx(apart, abs=0.02)  # ten copies of each say no more than one


def test_folds_keep_groups_together():
    rng = np.random.default_rng(3)
    groups, labels = rng.integers(0, 30, 200), rng.integers(0, 2, 200)
    fold = learning.folds(labels, groups, 0)
    assert {len(np.unique(fold[groups == group])) for group in np.unique(groups)} == {1}
    assert len(np.unique(fold)) == learning.FOLDS
    assert not learning.folds(np.array([0, 0, 1]), np.array([1, 2, 3]), 0).any()


@pytest.mark.parametrize("linear", [True, False])
def test_memorised_groups_do_not_count(linear):
    """Noise that only groups share: a model that saw a group's other pictures would know its label."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(60), 5)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    values = np.repeat(rng.normal(size=(60, 6)), 5, axis=0).astype(np.float32)
    found = learning.separation(values, labels, groups, learning.folds(labels, groups, 0), linear, 0)
    assert found.auc < 0.65  # far below 0.5 is what few groups of noise give
    assert verdict_of(found, AuditSettings(("a",), ("b",))) in ("pass", "cannot tell")


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_constant_values_are_a_coin_toss(value):
    labels = np.repeat([0, 1], 20)
    values = np.full((40, 3), value, np.float32)
    found = learning.separation(values, labels, np.arange(40), labels * 0, False, 0)
    assert (found.auc, found.low, found.high) == (0.5, 0.5, 0.5)
    assert verdict_of(found, AuditSettings(("a",), ("b",))) == "pass"


@pytest.mark.parametrize("linear", [True, False])
def test_noise_is_no_finding(linear):
    """Classes of uneven size and few rows, where folds differ most."""
    everyone = np.arange(220)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        labels = rng.permutation([0] * 200 + [1] * 20)
        values = rng.normal(size=(220, 4)).astype(np.float32)
        found = learning.separation(
            values, labels, everyone, learning.folds(labels, everyone, seed), linear, seed
        )
        assert verdict_of(found, AuditSettings(("a",), ("b",))) in ("pass", "cannot tell")


@pytest.mark.parametrize(
    ("low", "high", "groups", "verdict"),
    [
        (0.9, 1.0, (50, 50), "fail"),
        (0.7, 0.9, (50, 50), "warn"),
        (0.55, 0.7, (50, 50), "pass"),
        (0.45, 0.6, (50, 50), "pass"),
        (0.4, 0.8, (50, 50), "cannot tell"),
        (1.0, 1.0, (7, 50), "cannot tell"),
        (0.1, 0.3, (50, 50), "pass"),
    ],
)
def test_verdicts(low, high, groups, verdict):
    found = learning.Separation((low + high) / 2, low, high, 100, groups)
    assert verdict_of(found, AuditSettings(("a",), ("b",))) == verdict
