"""From score files to estimates: the truth of the simulation is within them, and damage is named."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from crossfake.errors import UserError
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.results import Results

from ..conftest import GENERATORS, write_experiment


def true_auc(strength):
    return norm.cdf(strength / np.sqrt(2))


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    return Results(write_experiment(tmp_path_factory.mktemp("ablation")))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return Results(write_experiment(tmp_path_factory.mktemp("matrix"), "matrix"))


def test_the_truth_is_within_the_intervals(ablation, matrix):
    for condition, strength in (("without", 0.4), ("with", 2.0)):
        for test in ("dcgan", "web faces"):
            found = ablation.value("cnn", condition, test)
            # pictures that are hard are hard for all: shared by all tests of the fixture
            assert found.low - 0.05 < true_auc(strength) < found.high + 0.05
    assert matrix.value("cnn", "stylegan2", "stylegan3").mean > matrix.value("cnn", "dcgan", "stylegan3").mean


def test_what_was_trained_on_is_in_no_mean(matrix):
    assert matrix.unseen("dcgan") == [name for name in GENERATORS if name != "dcgan"]
    assert matrix.seen("dcgan") == ["dcgan"]
    mean = matrix.mean("cnn", "dcgan").mean
    others = [matrix.value("cnn", "dcgan", name).mean for name in GENERATORS[1:]]
    assert mean == pytest.approx(np.mean(others)) and mean < matrix.value("cnn", "dcgan", "dcgan").mean - 0.2


def test_perturbed_tests_go_by_their_base(tmp_path):
    results = Results(write_experiment(tmp_path / "x", "robustness", seeds=(0,)))
    assert "dcgan, jpeg 90" in results.tests and "dcgan, jpeg 90" not in results.plain
    clean, worst = (results.value("cnn", "with", name).mean for name in ("dcgan", "dcgan, jpeg 30"))
    assert clean > worst + 0.2
    # the same pictures are drawn for both, so that the difference is paired
    assert np.array_equal(results._resamples("dcgan"), results._resamples("dcgan, jpeg 30"))


def test_tests_against_the_same_reals_draw_the_same_reals(ablation):
    draws = {name: ablation._resamples(name).copy() for name in ("dcgan", "splice", "web faces")}
    n = ablation.tests["dcgan"]["n_real"]
    assert np.array_equal(draws["dcgan"][:, :n], draws["splice"][:, :n])
    assert not np.array_equal(draws["dcgan"][:, :n], draws["web faces"][:, :n])
    assert np.array_equal(draws["dcgan"][:, 0], draws["dcgan"][:, 1])  # two pictures of one person


def test_contrasts_find_what_was_put_in(ablation):
    (answer,) = answers(ablation)
    verdicts = {(row.detector, row.test): row.verdict for row in answer.rows}
    assert {v for (d, _), v in verdicts.items() if d == "cnn"} == {"better"}
    assert {v for (d, _), v in verdicts.items() if d == "resnet_18"} == {"no difference shown"}
    assert answer.overall.verdict == "better" and answer.overall.adjusted == answer.overall.p
    assert answer.overall.estimate.mean == pytest.approx(
        answer.overall.after.mean - answer.overall.before.mean
    )
    singles = [*answer.by_detector, *answer.rows]
    assert all(each.adjusted >= each.p for each in singles)
    least = min(singles, key=lambda each: each.p)
    assert least.adjusted == pytest.approx(min(1, least.p * len(singles)))  # Holm's first step
    assert all(len(row.delong) == 3 for row in answer.rows)
    assert max(answer.rows[0].delong) < 1e-6 and min(answer.rows[-1].delong) > 0.01
    assert answer.overall.detectable == pytest.approx(
        answer.overall.estimate.half_width * 2.8 / 1.96, rel=0.01
    )


def test_only_whole_pairs_are_compared(tmp_path):
    folder = write_experiment(tmp_path / "x", failures=("broken",))
    cell = next(c for c in Results(folder).cells if (c.detector, c.condition, c.seed) == ("cnn", "with", 2))
    (cell.folder / "cell.json").unlink()
    results = Results(folder)
    assert results.seeds("cnn", "without", "with") == (0, 1) and len(results.pending) == 1
    (answer,) = answers(results)
    assert answer.by_detector[0].estimate.seeds == 2 and answer.overall.estimate.seeds == 2
    assert results.seeds("cnn", "without") == (0, 1, 2)


def test_a_shared_cache_and_conditions_that_share_a_cell(tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    (folder / "cells").rename(tmp_path / "cache")
    facts = json.loads((folder / "experiment.json").read_text())
    facts["config"]["cache"] = str(tmp_path / "cache")
    with_ = [entry for entry in facts["cells"] if entry["condition"] == "with"]
    for entry in facts["cells"]:  # trained on the same data, both conditions have one key
        if entry["condition"] == "without":
            entry["key"] = next(e["key"] for e in with_ if e["detector"] == entry["detector"])
    (folder / "experiment.json").write_text(json.dumps(facts))
    results = Results(folder)
    assert {c.condition for c in results.cells} == {"with", "without"}
    (answer,) = answers(results)
    assert answer.overall.estimate.mean == 0 and answer.overall.verdict == "no difference shown"


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="holds no experiment"):
        Results(tmp_path)
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    for path in folder.glob("cells/*/cell.json"):
        path.unlink()
    with pytest.raises(UserError, match="no cell is finished yet"):
        Results(folder)


@pytest.mark.parametrize(
    "damage", ["cut", "no number", "other rows", "other label", "nan", "header", "empty"]
)
def test_a_damaged_score_file_is_named(tmp_path, damage):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    file = sorted(folder.glob("cells/*/scores/*.csv"))[0]
    lines = file.read_text().splitlines()
    replaced = {
        "cut": lines[:50],
        "no number": [*lines[:-1], lines[-1] + "x"],
        "other rows": [lines[0], *lines[2:], lines[1]],
        "other label": [lines[0], lines[1].replace("0,0,", "0,1,"), *lines[2:]],
        "nan": [*lines[:-1], lines[-1].rpartition(",")[0] + ",nan"],
        "header": ["a,b", *lines[1:]],
        "empty": [],
    }
    file.write_text("\n".join(replaced[damage]) + "\n")
    with pytest.raises(UserError, match=f"{file.name} is damaged.*delete"):
        Results(folder)


def test_settings_are_not_read_from_elsewhere(ablation):
    facts = json.loads((ablation.folder / "experiment.json").read_text())
    assert (
        ablation.resamples == facts["config"]["resamples"] and Results(ablation.folder, 150).resamples == 150
    )
