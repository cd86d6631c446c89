"""A small table of scores: its figures are those of the whole scores, can be made again, and damage is found."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.errors import UserError
from crossfake.experiments.cli import experiment as group
from crossfake.experiments.report.sheet import FACTS, SCORES, TABLE, Sheet, verify_sheet
from crossfake.stats import ranking

N = {"asian faces": 40, "web faces": 60, "benign edits": 100, "swap": 30, "stylegan2": 50}
STRENGTH = {("cnn", "a"): 0.2, ("cnn", "c"): 2.0, ("npr", "a"): 0.3}


@pytest.fixture
def sheet():
    lines = [
        (name, f"{k:012x}", str(int(name in ("swap", "stylegan2"))), "toy", f"{name[:2]}{k // 2}")
        for name, count in N.items()
        for k in range(count)
    ]
    labels = np.array([int(line[2]) for line in lines])
    cells, logits = [], []
    for (detector, condition), strength in STRENGTH.items():
        for seed in (0, 1, 2):
            rng = np.random.default_rng(len(cells))
            logits.append((rng.normal(size=len(lines)) + strength * labels).round(4))
            cells.append(
                {
                    "detector": detector,
                    "condition": condition,
                    "seed": seed,
                    "key": "k",
                    "threshold": 1.0,
                    "model_hash": "m",
                    "train_hash": "t",
                }
            )
    strangers = [
        {"name": f"stylegan2 against {real}", "fake": "stylegan2", "real": real}
        for real in ("asian faces", "web faces", "benign edits")
    ]
    facts = {
        "name": "strangers",
        "resamples": 200,
        "reencode": {"jpeg": 85},
        "photos": ["asian faces", "web faces"],
        "conditions": [
            {"name": "a", "about": "swaps", "fakes": [], "synthetic": ["swap"], "without": []},
            {"name": "c", "about": "more", "fakes": [], "synthetic": ["swap"], "without": ["web faces"]},
        ],
        "tests": [{"name": n, "fake": n, "real": "real"} for n in ("swap", "stylegan2")] + strangers,
        "seen": [["a", "swap"], ["c", "swap"]],
        "contrasts": [{"name": "c minus a", "a": "a", "b": "c", "tests": ["stylegan2"]}],
        "detector_contrasts": [["cnn", "npr"]],
        "audits": {
            "stylegan2 against web faces": {
                "verdict": "warn",
                "probes": {"colour": {"auc": 0.7}, "size": {"auc": None}},
            }
        },
        "cells": cells,
    }
    return Sheet(facts, tuple(lines), np.array(logits))


def line_of(text, *start):
    return next(line for line in text.splitlines() if line.startswith(f"| {' | '.join(start)} |"))


def test_figures_are_those_of_the_scores(sheet, tmp_path):
    sheet.save(tmp_path)
    text = (tmp_path / TABLE).read_text()
    rows = np.concatenate([sheet.sets["real"], sheet.sets["stylegan2"]])
    assert len(sheet.sets["real"]) == 100, "edited reals count apart"
    labels = np.repeat([0, 1], [100, 50])
    mean = np.mean([ranking.auc(labels, sheet.logits[3 + k, rows]) for k in range(3)])
    assert f"| {mean:.3f} ± " in line_of(text, "cnn", "c", "3")
    assert line_of(text, "cnn", "a", "3").split(" | ")[3].startswith("("), "a trains on swaps"
    called = np.mean([(sheet.logits[k, sheet.sets["benign edits"]] >= 1).mean() for k in range(3)])
    assert f"| {100 * called:.1f}% ±" in text
    assert "JPEG of quality 85" in text and "| stylegan2 against web faces | warn | colour 0.70 |" in text
    assert line_of(text, "c minus a", "cnn", "stylegan2").count("**") == 2, "a difference of 0.35 shows"
    assert "[" in line_of(text, "npr minus cnn", "a", "stylegan2")
    alarms = text.split("## Reals called fake")[1]
    assert line_of(alarms, "cnn", "c").split(" | ")[3].startswith("**"), "left out of training"


def test_hits_are_counted_at_the_false_alarms_of_the_other_sources(sheet):
    test = sheet.facts["tests"][2]
    hits, alarms = sheet.hits(("cnn", "c", 0), test)
    scores = sheet.logits[3]
    others = np.sort(scores[sheet.sets["web faces"]])[::-1]
    limit = others[3]  # 3 of 60 are 5%
    assert hits.per_seed[0] == (scores[sheet.sets["stylegan2"]] > limit).mean()
    assert alarms.per_seed[0] == (scores[sheet.sets["asian faces"]] > limit).mean()
    assert hits.draws.shape == (1, 200) and hits.draws.std() > 0


def test_what_was_changed_is_found(sheet, tmp_path):
    sheet.save(tmp_path)
    assert verify_sheet(tmp_path) == []
    assert CliRunner().invoke(group, ["verify", str(tmp_path)]).exit_code == 0
    text = (tmp_path / SCORES).read_text().splitlines()
    cells = [f"{detector}|{condition}|{seed}" for detector, condition in STRENGTH for seed in (0, 1, 2)]
    assert text[0] == ",".join(["set", "id", "label", "source", "group", *cells])
    values = text[1].split(",")
    (tmp_path / SCORES).write_text(
        "\n".join([text[0], ",".join([*values[:5], "9", *values[6:]]), *text[2:], ""])
    )
    assert any("the scores give" in line for line in verify_sheet(tmp_path))
    (tmp_path / TABLE).unlink()
    assert verify_sheet(tmp_path) == [f"{TABLE} is not there"]
    facts = json.loads((tmp_path / FACTS).read_text())
    facts["cells"].pop()
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(UserError, match="are not the cells of study.json"):
        verify_sheet(tmp_path)
    with pytest.raises(UserError, match="holds no sheet of scores"):
        Sheet.load(tmp_path / "nowhere")
