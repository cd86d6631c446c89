"""The page, the CSV and the LaTeX table from a folder whose truth is known."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from crossfake.errors import UserError
from crossfake.experiments.reporting import report
from crossfake.experiments.results import Results
from crossfake.pages import duration, signed


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_experiment):
    folder = make_experiment(tmp_path_factory.mktemp("trial"))
    report(folder)
    return folder


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text()


def test_verdicts_are_those_of_the_simulation(folder):
    results = Results(folder)
    verdicts = {(c.detector, c.test): c.verdict for c in results.comparisons if c.kind == "unseen"}
    assert {v for (detector, _), v in verdicts.items() if detector == "cnn"} == {"helped"}
    assert {v for (detector, _), v in verdicts.items() if detector == "resnet_18"} == {"no difference shown"}
    assert results.overall.verdict() == "helped"
    before, after = results.mean_over("without").mean, results.mean_over("with").mean
    assert results.overall.mean == pytest.approx(after - before)


def test_worse_is_called_hurt(tmp_path, make_experiment):
    page = report(make_experiment(tmp_path / "x", swapped=True)).read_text()
    assert "<h1>Training on stylegan2 fakes hurt.</h1>" in page


def test_the_page_asks_nobody_else_for_anything(html):
    class Links(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "link", "iframe")
            self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    parser = Links()
    parser.feed(html)
    assert parser.found and all(link.startswith("data:image/png;base64,") for link in parser.found)
    assert not re.search(r"https?://|url\(|@import", html)


def test_the_page_says_what_it_must(html):
    assert "<h1>Training on stylegan2 fakes helped.</h1>" in html
    expected = [
        "simulated &lt;scores&gt;",
        "150 fakes against 120 real faces",
        "prefers-color-scheme: dark",
        "4 min 00 s",
    ]
    expected += ["no difference shown", "resamples: 200", "reals among themselves", "0.09 ± 0.01"]
    assert [text for text in expected if text not in html] == []
    assert html.count("<svg") == 4 and not re.search(r"\bnan\b", re.sub(r'"data:[^"]*"', "", html))


def test_csv_holds_every_cell_and_test_set_and_agrees_with_sklearn(folder):
    lines = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(lines) == 12 * 3
    line = next(
        x for x in lines if (x["detector"], x["arm"], x["seed"], x["test"]) == ("cnn", "with", "1", "dcgan")
    )
    with open(folder / "cells" / line["key"] / "scores.csv") as file:
        scored = [row for row in csv.DictReader(file) if row["test"] == "dcgan"]
    labels, scores = [int(row["label"]) for row in scored], np.array([float(row["score"]) for row in scored])
    assert float(line["auc"]) == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert float(line["ap"]) == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
    counts = confusion_matrix(labels, scores >= 0.5).ravel().tolist()
    assert [int(line[name]) for name in ("tn", "fp", "fn", "tp")] == counts
    assert float(line["accuracy"]) == pytest.approx((counts[0] + counts[3]) / len(labels), abs=1e-6)


def test_latex_is_whole(folder):
    text = (folder / "results.tex").read_text()
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [row for row in body.split(r"\\") if "&" in row]
    assert len(rows) == 4 and {row.count("&") for row in rows} == {1 + 2 * 4}
    assert (
        r"resnet\_18" in text
        and r"\mathbf" in rows[1]
        and r"\mathbf" not in rows[0]
        and rows[0].count(r"\pm") == 8
    )
    for opening, closing in (("{", "}"), (r"\begin", r"\end")):
        assert text.count(opening) == text.count(closing)


def test_an_unfinished_experiment_is_reported_as_far_as_it_got(tmp_path, make_experiment):
    folder = make_experiment(tmp_path / "x", failures=("broken",))
    (folder / "cells" / "cnn-with-2" / "cell.json").unlink()
    page = report(folder).read_text()
    assert "1 cell(s) have not been run yet" in page and "1 cell(s) failed" in page and "boom" in page
    assert len(Results(folder).paired("cnn")) == 2


def test_one_seed_is_admitted(tmp_path, make_experiment):
    page = report(make_experiment(tmp_path / "x", seeds=(0,))).read_text()
    assert "leaves out how much training itself varies" in page


def test_what_cannot_be_reported(tmp_path, make_experiment):
    with pytest.raises(UserError, match="holds no experiment"):
        report(tmp_path)
    folder = make_experiment(tmp_path / "x", seeds=(0,))
    for path in folder.glob("cells/*-with-*/cell.json"):
        path.unlink()
    with pytest.raises(UserError, match="no detector finished both arms"):
        report(folder)


@pytest.mark.parametrize("damage", ["cut", "no number", "other test"])
def test_a_damaged_cell_is_named(tmp_path, make_experiment, damage):
    folder = make_experiment(tmp_path / "x", seeds=(0,))
    file = folder / "cells" / "cnn-with-0" / "scores.csv"
    lines = file.read_text().splitlines()
    replaced = {
        "cut": lines[:50],
        "no number": [*lines[:-1], lines[-1] + "x"],
        "other test": [*lines, "elsewhere,0,0,a,0.5"],
    }
    file.write_text("\n".join(replaced[damage]) + "\n")
    with pytest.raises(UserError, match="cnn-with-0.*delete"):
        report(folder)


def test_without_pictures_it_still_works(tmp_path, make_experiment):
    folder = make_experiment(tmp_path / "x", seeds=(0, 1))
    (folder / "pictures" / "faces.png").unlink()
    assert "<img" not in report(folder).read_text()


def test_settings_are_not_read_from_elsewhere(folder):
    facts = json.loads((folder / "experiment.json").read_text())
    assert Results(folder).resamples == facts["config"]["resamples"] and Results(folder, 150).resamples == 150


def test_numbers_in_words():
    assert [signed(value) for value in (0.12, -0.05, 0.0, -0.0001)] == [
        "+0.120",
        "\N{MINUS SIGN}0.050",
        "0.000",
        "0.000",
    ]
    assert [duration(seconds) for seconds in (41.6, 185, 7800)] == ["42 s", "3 min 05 s", "2 h 10 min"]
