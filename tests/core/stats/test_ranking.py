"""Rankings against scikit-learn, weighted and not, with ties and without."""

import numpy as np
import pytest
import sklearn.metrics as reference

from crossfake.stats import ranking


def _case(seed, ties):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_figures_and_curves_are_scikit_learns(seed, ties):
    labels, scores = _case(seed, ties)
    assert ranking.auc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)
    assert ranking.average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=1e-12
    )
    fpr, tpr, _ = ranking.roc_curve(labels, scores)
    wanted = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose([fpr, tpr], wanted[:2])
    precision, recall = ranking.precision_recall_curve(labels, scores)
    wanted = reference.precision_recall_curve(labels, scores)
    np.testing.assert_allclose([precision, recall], np.array(wanted[:2])[:, -2::-1])


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_figures_and_curves_are_scikit_learns(ties):
    labels, scores = _case(2, ties)
    weights = np.random.default_rng(3).choice([0.0, 0.3, 1.0, 7.0], len(labels))
    assert ranking.auc(labels, scores, weights) == pytest.approx(
        reference.roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12
    )
    assert ranking.average_precision(labels, scores, weights) == pytest.approx(
        reference.average_precision_score(labels, scores, sample_weight=weights), abs=1e-12
    )
    theirs = reference.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    for own, other in zip(ranking.roc_curve(labels, scores, weights), theirs, strict=True):
        np.testing.assert_allclose(own, other)


@pytest.mark.parametrize("ties", [False, True])
def test_many_rows_of_weights_at_once(ties):
    """Whole numbers in float32, exact to 1e-6; others exactly."""
    rng = np.random.default_rng(0)
    labels, scores = _case(0, ties)
    weights = rng.integers(0, 4, (20, 300))
    areas = [reference.roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    assert ranking.weighted_auc(labels, scores, weights) == pytest.approx(areas, abs=1e-6)
    assert ranking.weighted_auc(labels, scores, weights / 7) == pytest.approx(areas, abs=1e-12)
    found = ranking.weighted(labels, scores, weights)
    assert set(found) == set(ranking.RANKING) and found["auc"] == pytest.approx(areas, abs=1e-12)
    for row, times in enumerate(weights):
        again = labels.repeat(times), scores.repeat(times)
        assert found["ap"][row] == pytest.approx(reference.average_precision_score(*again))
        assert found["partial_auc"][row] == pytest.approx(reference.roc_auc_score(*again, max_fpr=0.1))
        fpr, tpr, _ = reference.roc_curve(*again, drop_intermediate=False)
        assert found["tpr_at_1%_fpr"][row] == pytest.approx(tpr[fpr <= 0.01].max())


@pytest.mark.parametrize("seed", range(5))
def test_eer_is_where_the_roc_curve_meets_the_diagonal(seed):
    labels, scores = _case(seed, False)
    fpr, tpr, _ = ranking.roc_curve(labels, scores)
    along = np.linspace(0, 1, 200_001)
    curve = np.interp(along, np.arange(len(fpr)) / (len(fpr) - 1), fpr)
    missed = np.interp(along, np.arange(len(fpr)) / (len(fpr) - 1), 1 - tpr)
    assert ranking.eer(labels, scores) == pytest.approx(curve[np.argmin(abs(curve - missed))], abs=1e-4)


def test_one_class_has_no_ranking():
    assert np.isnan(ranking.auc([1, 1], [0.2, 0.3])) and np.isnan(ranking.average_precision([0], [0.3]))
    found = ranking.weighted([0, 1], [0.1, 0.9], [[1, 1], [1, 0]])
    assert all(values[0] in (0, 1) and np.isnan(values[1]) for values in found.values())
    assert np.isnan(ranking.weighted_auc([0, 1], [0.1, 0.9], [[1, 1], [1, 0]])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "scores", "about"),
    [
        ([], [], "not empty"),
        ([0, 1], [0.5], "one length"),
        ([0, 2], [0.1, 0.2], "labels must be"),
        ([0, 1], [0.1, float("nan")], "not a number"),
    ],
)
def test_nonsense_is_refused(labels, scores, about):
    for figure in (ranking.auc, ranking.average_precision, ranking.eer, ranking.roc_curve):
        with pytest.raises(ValueError, match=about):
            figure(labels, scores)
