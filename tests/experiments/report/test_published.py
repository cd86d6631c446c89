"""Published figures: complete, in range, each with its source; and errors that name the entry."""

import numpy as np
import pytest
import yaml

from crossfake.detect.evaluation import metrics
from crossfake.errors import UserError
from crossfake.experiments.report.published import FIGURES, load, published

NAMES = ["chronological", "deepfakebench-cross", "universal-fake-detect", "wang2020"]
ENTRY = {
    "method": "m",
    "figure": "ap",
    "paper": "P 2020",
    "table": "table 1",
    "licence": "MIT",
    "read": "https://example.org/p",
    "values": {"a": 0.5},
}


def test_every_row_has_a_value_in_range_and_a_source():
    found = load(FIGURES)
    assert sorted(found) == NAMES
    for rows in found.values():
        assert rows
        for row in rows:
            assert set(row) == {"method", "test", "figure", "value", "source"}
            assert 0 <= row["value"] <= 1 and row["figure"] in metrics.summary([0, 1], [0.0, 1.0])
            paper, table, licence, address = row["source"].rsplit("; ", 3)
            assert " 20" in paper and table and address.startswith("https://")
            assert licence.startswith("licence ")


@pytest.mark.parametrize(
    ("name", "method", "tests", "mean"),
    [  # the means that the tables print beside the figures
        ("deepfakebench-cross", "Meso4", 8, 0.6551),
        ("deepfakebench-cross", "Xception", 8, 0.7718),
        ("deepfakebench-cross", "Face X-ray", 8, 0.6985),
        ("deepfakebench-cross", "UCF", 8, 0.7801),
        ("deepfakebench-cross", "SPSL", 8, 0.7875),
    ],
)
def test_means_are_those_that_the_source_gives(name, method, tests, mean):
    values = [row["value"] for row in published(name) if row["method"] == method]
    assert len(values) == tests and np.mean(values) == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(
    ("row", "table", "mean"),
    [
        ("UnivFD", "ForenSynths", 0.8066),
        ("CNNSpot", "ForenSynths", 0.8296),
        ("UnivFD", "DM Based", 0.8215),
        ("CNNSpot", "DM Based", 0.5923),
    ],
)
def test_what_others_measured_says_so(row, table, mean):
    rows = [
        r for r in published("universal-fake-detect") if f"row {row}" in r["source"] and table in r["source"]
    ]
    assert np.mean([r["value"] for r in rows]) == pytest.approx(mean, abs=1e-4)
    assert all("re-measured" in r["method"] and "not the authors' own" in r["source"] for r in rows)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'wang2020'"):
        published("wang2002")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"values": {"a": 98.5}}, "a is 98.5: give a number from 0 to 1"),
        ({"values": {"a": True}}, "a is True"),
        ({"values": {"a": "0.5"}}, "a is '0.5'"),
        ({"values": {}}, "no values"),
        ({"figure": "auroc"}, "no figure 'auroc'"),
        ({"paper": ""}, "paper is ''"),
        ({"read": "from memory"}, "from memory is no address"),
        ({"note": "x"}, "its keys do not fit"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, expected):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"mine": [ENTRY, {**ENTRY, "method": "n", **change}]}))
    with pytest.raises(UserError, match=f"entry mine, 2: .*{expected}"):
        load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [", "cannot be read"), ("- 1", "holds no published figures"), ("a: {b: 1}", "holds no published")],
)
def test_a_file_of_another_kind(tmp_path, text, expected):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        load(path)


def test_a_figure_is_given_once(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"mine": [ENTRY, ENTRY]}))
    with pytest.raises(UserError, match="mine: m, a, ap is given twice"):
        load(path)
    path.write_text(yaml.safe_dump({"mine": [ENTRY]}))
    assert load(path)["mine"][0]["source"] == "P 2020; table 1; licence MIT; https://example.org/p"
