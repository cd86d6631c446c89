"""Detectors that were there already: their figures are nobody's here, not a condition's."""

import csv
import json

import numpy as np
import pytest

from crossfake.experiments.design.protocols import ELSEWHERE
from crossfake.experiments.report.charts import heat, roc_panels
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.reporting import report
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.sheet import Sheet
from crossfake.experiments.report.sheet_tables import markdown

from ..conftest import SEEN, write_experiment

THEIRS = "npr"


def given(folder, detector=THEIRS):
    """Make a detector of an experiment one that was only tested, with the first seed, in every condition."""
    facts = json.loads((folder / "experiment.json").read_text())
    first = min(cell["seed"] for cell in facts["cells"])
    kept = []
    for cell in facts["cells"]:
        if cell["detector"] == detector:
            if cell["seed"] != first:
                continue
            file = folder / "cells" / cell["key"] / "cell.json"
            card = json.loads(file.read_text())
            file.write_text(json.dumps({**card, "given": True, "learned_from": ["FaceForensics++ (c23)"]}))
        kept.append(cell)
    (folder / "experiment.json").write_text(json.dumps({**facts, "cells": kept}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    strength = {(d, c): s for d, s in (("cnn", 1.0), (THEIRS, SEEN)) for c in ("with", "without")}
    made = given(write_experiment(tmp_path_factory.mktemp("elsewhere"), strength=strength))
    report(made)
    return made


def test_it_has_one_row_that_is_in_no_condition(folder):
    results = Results(folder)
    assert results.given == {THEIRS} and list(results.conditions) == ["without", "with", ELSEWHERE]
    assert [cell.condition for cell in results.cells if cell.detector == THEIRS] == [ELSEWHERE]
    assert not any(results.is_seen(ELSEWHERE, test) for test in results.tests)
    mine, theirs = heat(results, "cnn"), heat(results, THEIRS)
    assert mine.conditions == ("without", "with") and any(mine.seen[0])
    assert theirs.conditions == (ELSEWHERE,) and not any(theirs.seen[0]) and all(theirs.values[0])
    assert results.asked == ["dcgan", "web faces"]


def test_it_answers_no_question_about_training(folder):
    results = Results(folder)
    (answer,) = answers(results)
    assert [each.detector for each in answer.by_detector] == ["cnn"]
    assert any(line.name.startswith(ELSEWHERE) for panel in roc_panels(results) for line in panel.series)


def test_tables_say_elsewhere_and_no_parentheses(folder):
    latex = (folder / "results.tex").read_text()
    rows = [line for line in latex.splitlines() if line.startswith(f"{THEIRS} & {ELSEWHERE} &")]
    assert rows and not any("$(" in row for row in rows)
    assert "Elsewhere: what it learned from is known by name only" in latex
    with open(folder / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["seen"] for line in lines if line["detector"] == THEIRS} == {""}
    assert {line["seen"] for line in lines if line["detector"] == "cnn"} == {"0", "1"}


def test_methods_page_and_card_say_who_trained_it(folder):
    methods = (folder / "methods.tex").read_text()
    assert "We trained one detector: cnn" in methods and "differed by 2 conditions" in methods
    assert "Made elsewhere and only tested: npr~\\cite{" in methods
    assert "(trained on FaceForensics++ (c23)); what it learned from is known by name only" in methods
    page = (folder / "report.html").read_text()
    assert "was not trained here: what it learned from is known by name only" in page
    assert f"1 × {THEIRS} tested" in page and "n = " in page and "; one detector;" in page
    card = (folder / "cards" / f"{THEIRS}-{ELSEWHERE}.md").read_text()
    assert card.startswith(f"# {THEIRS}, trained elsewhere")
    assert "Trained elsewhere, on FaceForensics++ (c23)" in card and "own fakes" not in card
    assert "## On the tests" in card and "generators not trained on" not in card
    assert not list((folder / "cards").glob(f"{THEIRS}-with*"))


def test_a_sheet_of_scores_says_it_and_compares_it(folder):
    results = Results(folder)
    facts = {
        "name": "s",
        "resamples": 100,
        "reencode": {},
        "photos": ["real"],
        "audits": {},
        "contrasts": [],
        "conditions": [
            {k: c.get(k) for k in ("name", "about", "fakes", "synthetic", "without")}
            for c in results.conditions.values()
        ],
        "tests": [{k: results.tests[name][k] for k in ("name", "fake", "real")} for name in results.plain],
        "seen": results.experiment["seen"],
        "detector_contrasts": [[THEIRS, "cnn"]],
        "cells": [
            {
                "detector": c.detector,
                "condition": c.condition,
                "seed": c.seed,
                "key": c.key,
                "threshold": 0.0,
                "model_hash": "m",
                "train_hash": "t",
            }
            for c in results.cells
        ],
    }
    lines, columns = [], []
    for name, part, label in [("web faces", "real", 0), *((t, t, 1) for t in results.plain)]:
        labels = results.truths[name].labels
        rows = [k for k, value in enumerate(labels) if value == label]
        lines += [(part, f"{part}{k}", str(label), "x", results.truths[name].groups[k]) for k in rows]
        columns.append([[cell.scores[name][k] for k in rows] for cell in results.cells])
    text = markdown(Sheet(facts, tuple(lines), np.concatenate(columns, axis=1)))
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {THEIRS} | {ELSEWHERE} | 1 |")]
    assert "(" not in row and "Elsewhere: what it learned from" in text
    assert f"| cnn minus {THEIRS} | without |" in text and f"| cnn minus {THEIRS} | with |" in text
