"""Model cards in Markdown, and the data card through mlcroissant's own validation."""

import csv
import json

import pytest

from crossfake.experiments.report.cards import card_name


def test_there_is_a_card_per_detector_and_condition(reported):
    names = {path.name for path in (reported / "cards").iterdir()}
    assert names == {card_name(d, c) for d in ("cnn", "resnet_18") for c in ("with", "without")}


def test_a_model_card_says_what_a_user_must_know(reported):
    text = (reported / "cards" / "cnn-with.md").read_text()
    for heading in ("Intended use", "Training data", "On generators not trained on", "Limits", "Cells"):
        assert f"\n## {heading}\n" in text
    line = next(line for line in text.splitlines() if line.startswith("| dcgan |"))
    assert line.count("±") == 4 and "120 / 130" in line and "| 0.500 / 0.520 / 0.500 / 0.520 |" in line
    assert (
        "± is half of the 95% interval" in text
        and "knowing nothing gives for AUC / AP / EER / Accuracy" in text
    )
    assert "with minus without: better" in text and "0123abc" in text and "nan" not in text
    assert "| stylegan2 | own fakes |" in text


def test_the_data_card_is_valid_croissant(reported):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(reported / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors, issues.report()
    with open(reported / "results.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    records = list(dataset.records("results"))
    assert len(records) == len(expected)
    assert float(records[0]["results/auc"]) == pytest.approx(float(expected[0]["auc"]))
    pools = list(dataset.records("pools"))
    assert {record["pools/name"] for record in pools} >= {b"real", b"dcgan"} or {
        record["pools/name"] for record in pools
    } >= {"real", "dcgan"}


def test_the_data_card_has_hashes_and_no_path_of_this_machine(reported):
    text = (reported / "croissant.json").read_text()
    card = json.loads(text)
    assert all(len(file["sha256"]) == 64 for file in card["distribution"])
    assert str(reported) not in text and card["datePublished"] == "2030-01-01"
