"""Whatever is changed after a report, whether number, score or cell, is found."""

import csv
import io
import shutil

import pytest

from crossfake.experiments.report.cards import write_cards
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.reporting import texts
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.tables import cell_rows, csv_table, write_parquet
from crossfake.experiments.report.verifying import verify

from ..conftest import write_experiment


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A report without figures: they hold no number that the tables do not."""
    strength = {("cnn", "without"): 0.5, ("cnn", "with"): 2.0}
    folder = write_experiment(tmp_path_factory.mktemp("small"), seeds=(0,), strength=strength, shards=True)
    results = Results(folder, resamples=150)
    for name, text in texts(results, answers(results)).items():
        (folder / name).write_text(text)
    write_parquet(cell_rows(results), folder / "results.parquet")
    write_cards(results, answers(results))
    return folder


@pytest.fixture
def copy(small, tmp_path):
    shutil.copytree(small, tmp_path / "x")
    return tmp_path / "x"


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_what_was_just_written_is_verified(copy):
    assert verify(copy) == []


def test_a_tampered_number_is_named(copy):
    line = (copy / "results.csv").read_text().splitlines()[3]
    row = next(csv.DictReader(io.StringIO((copy / "results.csv").read_text().splitlines()[0] + "\n" + line)))
    changed = line.replace(f",{row['auc']},", ",0.999999,")
    change(copy / "results.csv", line, changed)
    shown = next(iter(csv.reader((copy / "contrasts.csv").read_text().splitlines()[1:])))
    change(copy / "contrasts.csv", shown[8], "0.5")
    (csv_said, contrast_said) = verify(copy)
    assert csv_said == (
        f"results.csv, {row['detector']}, {row['condition']}, {row['seed']}, {row['test']}: auc is 0.999999, "
        f"the scores give {row['auc']}"
    )
    assert contrast_said.startswith(
        "contrasts.csv, with minus without, mean, mean: difference is 0.5, the scores give"
    )


def test_a_changed_score_is_found_even_where_no_figure_moves(copy):
    file = next(copy.glob("cells/*/scores/*.csv"))
    first = file.read_text().splitlines()[1]
    change(file, first, first + "0000001")
    said = verify(copy)
    assert said and all("scores_sha256 is" in each for each in said if each.startswith("results.csv"))


def test_a_missing_cell_is_named(copy):
    next(copy.glob("cells/*/cell.json")).unlink()
    said = verify(copy)
    assert said[0].startswith("cell ") and said[0].endswith("is missing")
    # four lines of the cell, and as many of the contrast that needs it
    assert sum("the scores give no such line" in each for each in said) == 8


def test_a_missing_line_is_named(copy):
    lines = (copy / "results.csv").read_text().splitlines()
    (copy / "results.csv").write_text("\n".join(lines[:-1]) + "\n")
    (said,) = verify(copy)
    assert said.startswith("results.csv, cnn, with") and said.endswith("the line is missing")


def test_a_line_that_is_there_twice_is_named(copy):
    lines = (copy / "results.csv").read_text().splitlines(keepends=True)
    (copy / "results.csv").write_text("".join([lines[0], lines[1].replace(",0.", ",0.9"), *lines[1:]]))
    assert verify(copy) == ["results.csv: 1 lines say anew what others say"]


def test_cards_are_compared(copy):
    change(copy / "croissant.json", '"sc:Dataset"', '"sc:Thing"')
    assert [each.partition(" is not")[0] for each in verify(copy)] == ["croissant.json"]
    change(copy / "cards" / "cnn-with.md", " ± ", " ± 0")
    assert [each.partition(" is not")[0] for each in verify(copy)] == ["cnn-with.md"]


def test_pages_and_tables_for_people_are_compared(copy):
    change(copy / "report.html", "<h1>Training", "<h1>Surely training")
    change(copy / "results.tex", r"\toprule", r"\hline")
    (copy / "contrasts.csv").unlink()
    said = verify(copy)
    assert len(said) == 3 and "contrasts.csv is not there" in said
    assert any(
        each.startswith("report.html is not what the scores give") and "Surely" in each for each in said
    )
    assert any(each.startswith("results.tex is not what") for each in said)


def test_pictures_may_go(copy):
    shutil.rmtree(copy / "shards")
    assert verify(copy) == []


def test_parquet_is_looked_into(copy):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(copy / "results.parquet")
    parquet.write_table(table.slice(1), copy / "results.parquet")
    assert verify(copy) == ["results.parquet has 7 lines, the scores give 8"]
    rows = table.to_pylist()
    rows[0]["ap"] = 0.123
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(rows), copy / "results.parquet")
    (said,) = verify(copy)
    assert said.startswith("results.parquet, line 1: ap is 0.123, the scores give 0.")


def test_a_report_of_an_earlier_version_is_named_as_such(copy):
    """Once, instead of every interval that has moved since."""
    rows = list(csv.DictReader(io.StringIO((copy / "results.csv").read_text())))
    fewer = [{name: value for name, value in row.items() if name != "ap_chance"} for row in rows]
    (copy / "results.csv").write_text(csv_table(fewer))
    (said,) = verify(copy)
    assert said.startswith("results.csv: the columns are not those of this version")
