"""CSV, Parquet and LaTeX against scikit-learn, against each other, and against pdflatex."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from crossfake.errors import MissingDependency
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.methods import methods
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.tables import CONTRAST_COLUMNS, csv_table, latex_tables, tex, write_parquet

from ..conftest import write_experiment


@pytest.fixture(scope="module")
def lines(reported):
    return list(csv.DictReader(io.StringIO((reported / "results.csv").read_text())))


def test_csv_holds_every_cell_and_test_and_agrees_with_sklearn(reported, lines):
    assert len(lines) == 12 * 4
    place = ("cnn", "with", "1", "dcgan")
    line = next(x for x in lines if (x["detector"], x["condition"], x["seed"], x["test"]) == place)
    with open(reported / "cells" / line["key"] / line["scores"]) as file:
        scored = list(csv.DictReader(file))
    labels, scores = [int(row["label"]) for row in scored], np.array([float(row["score"]) for row in scored])
    assert float(line["auc"]) == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert float(line["ap"]) == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
    counts = confusion_matrix(labels, scores >= 0.5).ravel().tolist()
    assert [int(line[name]) for name in ("tn", "fp", "fn", "tp")] == counts
    assert float(line["accuracy"]) == pytest.approx((counts[0] + counts[3]) / len(labels), abs=1e-6)
    assert float(line["ap_chance"]) == pytest.approx(np.mean(labels), abs=1e-6)
    assert {x["seen"] for x in lines if x["test"] == "splice"} == {"1"} and line["seen"] == "0"


def test_contrasts_are_there_with_their_corrections(reported):
    rows = list(csv.DictReader(io.StringIO((reported / "contrasts.csv").read_text())))
    assert len(rows) == 1 + 2 + 4
    assert [(row["detector"], row["test"]) for row in rows[:3]] == [("", ""), ("cnn", ""), ("resnet_18", "")]
    for row in rows:
        assert float(row["p"]) <= float(row["p_holm"]) and float(row["low"]) <= float(row["high"])
        assert float(row["difference"]) == pytest.approx(float(row["after"]) - float(row["before"]), abs=2e-6)
    assert csv_table([], CONTRAST_COLUMNS).count("\n") == 1
    # the two tests have reals of their own
    assert [(row["n_real"], row["n_fake"]) for row in rows[:1] + rows[3:5]] == [
        ("240", "280"),
        ("120", "130"),
        ("120", "150"),
    ]


def test_parquet_holds_the_same(reported, lines):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(reported / "results.parquet")
    assert table.num_rows == len(lines) and table.column_names == list(lines[0])
    assert table["auc"].to_pylist() == pytest.approx([float(line["auc"]) for line in lines])
    assert table["strength"].null_count == table.num_rows


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"\.\[parquet\]"):
        write_parquet([{"a": 1}], tmp_path / "x.parquet")


def test_latex_marks_the_best_the_seen_and_the_significant(reported):
    text = (reported / "results.tex").read_text()
    auc = text.split(r"\label{tab:auc}")[1].split(r"\end{table}")[0]
    rows = [row for row in re.split(r"\\\\", auc) if r"\pm" in row]
    assert len(rows) == 4 and {row.count("&") for row in rows} == {1 + 4 + 1}
    assert r"resnet\_18" in auc and r"\mathbf" in rows[1] and r"\mathbf" not in rows[0]
    entries = [
        entry.strip() for entry in rows[1].split("&")
    ]  # cnn, with; splice, stylegan2, dcgan, web faces
    assert entries[2].startswith("$(") and entries[3].startswith("$(")
    assert re.fullmatch(r"\$\\mathbf\{0\.\d{3}\}\^\{\*+\}_\{\\pm 0\.\d{3}\}\$", entries[4]), entries[4]
    assert r"^{*" not in rows[2] + rows[3]  # resnet_18 showed no difference
    captions = re.findall(r"\\caption\{(.*?)\}\n", text)
    sizes = "n: splice, stylegan2 90 fakes, 120 reals; dcgan 130 fakes, 120 reals; web faces 150 fakes, 120 reals."
    assert all(sizes in caption for caption in captions[:4])
    assert all(r"$\pm$ is half of the 95\% interval" in caption for caption in captions[:4])
    assert "Chance: 0.500." in captions[0] and "Chance: 0.429 to 0.556, the share of fakes." in captions[1]
    assert "Chance: 0.520 to 0.571, the larger class's share." in captions[3].replace("’", "'")
    assert "$280/240$" in text and "chance: 0.5" in captions[4]
    assert r"\label{tab:contrasts}" in text and r"\toprule" in text
    for opening, closing in (("{", "}"), (r"\begin", r"\end")):
        assert text.count(opening) == text.count(closing)


def test_text_is_escaped():
    assert tex("50% of a_b & {c} #1 $x ~^\\") == (
        r"50\% of a\_b \& \{c\} \#1 \$x \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert tex("“a” – 3×, 漢") == r"``a'' -- 3$\times$, ?"


def test_no_table_is_shrunk_and_captions_say_what_brackets_are(reported):
    text = (reported / "results.tex").read_text()
    assert "resizebox" not in text and "graphicx" not in text
    captions = re.findall(r"\\caption\{(.*?)\}\n", text)
    assert all("In parentheses: trained on this generator" in caption for caption in captions[:4])
    assert r"in brackets the 95\% interval" in captions[4]


def test_a_table_of_many_tests_is_in_panels(tmp_path):
    results = Results(write_experiment(tmp_path / "x", "matrix", seeds=(0, 1)))
    auc = latex_tables(results, []).split(r"\label{tab:auc}")[1].split(r"\end{table}")[0]
    heads = re.findall(r"\\toprule\n(.*?) \\\\", auc)
    columns = [head.split(" & ")[2:] for head in heads]
    assert [len(each) for each in columns] == [3, 3]
    assert sum(columns, []) == [*results.tests, "Mean, unseen"]
    for panel in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", auc, re.S):
        rows = [line for line in panel.splitlines() if "$" in line]
        assert len(rows) == 5 and {row.count("&") for row in rows} == {4}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
@pytest.mark.parametrize("design", ["ablation", "matrix", "robustness"])
def test_latex_compiles_and_fits_the_line(tmp_path, design):
    folder = write_experiment(tmp_path / "x", design, seeds=(0, 1))
    results = Results(folder)
    _compile(tmp_path, results)
    assert "Overfull" not in (tmp_path / "paper.log").read_text(errors="replace")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
@pytest.mark.parametrize("design", ["ablation", "matrix"])
def test_awkward_names_compile(tmp_path, design):
    folder = write_experiment(tmp_path / "x", design, seeds=(0, 1))
    file = folder / "experiment.json"
    awkward = file.read_text().replace('"dcgan"', '"dc_gan 50% & {#1} $x^2 <漢>"')
    file.write_text(awkward)
    _compile(tmp_path, Results(folder))


def _compile(folder, results):
    found = answers(results)
    (folder / "results.tex").write_text(latex_tables(results, found))
    for name, text in methods(results, found).items():
        (folder / name).write_text(text)
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{methods}\\input{results}"
        "\\bibliographystyle{plain}\\bibliography{references}\\end{document}"
    )
    latex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    for command in (latex, ["bibtex", "paper"], latex, latex):
        run = subprocess.run(command, cwd=folder, capture_output=True)
        assert run.returncode == 0, run.stdout[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 1000
    log = (folder / "paper.log").read_text(errors="replace")
    assert "undefined" not in log and "Warning--" not in (folder / "paper.blg").read_text()
