import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from crossfake.detect.bundle import bundle as bundles
from crossfake.serve.engine.facts import facts


def test_facts_from_an_evaluation(bundle: Path) -> None:
    detector = bundles.load(bundle, "cpu")
    found = facts("small", detector, False)
    told = json.loads((bundle / "evaluation" / "evaluation.json").read_text())
    (true, false), _ = told["overall"]["confusion"]
    assert found.reals == true + false == 24 and found.false_alarms == false / found.reals
    low, high = found.false_alarms_interval or (1, 0)
    assert low <= found.false_alarms <= high and high > 0.05  # few reals cannot show a small rate
    assert [name for name, _, _ in found.tested_on] == ["grid"] and found.tested_on[0][1] == 24
    assert (
        found.trained_on == ("real", "fake")
        and found.sees == "the whole picture, resampled to 16 pixels"
        and found.calibrated
    )
    assert any("24 real test pictures" in words for words in found.words)
    assert "does not know was never measured" in " ".join(found.words)  # it has one source of reals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_hash": "other"}, "other weights"),
        ({"threshold": 0.123}, "before its last calibration"),
        ({"overall": {}}, "cannot be read"),
        ({"firewall": "not kept"}, "may be among those that it, or its generators, learned from"),
        (None, "not evaluated"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_not_quoted(
    change: dict[str, object] | None, reason: str, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "evaluation.json"
    if change is None:
        file.unlink()
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    found = facts("small", bundles.load(tmp_path / "run", "cpu"), False)
    assert found.false_alarms is None and not found.reals and reason in " ".join(found.words)


def test_a_detector_made_elsewhere_is_said_to_be(bundle: Path) -> None:
    detector = bundles.load(bundle, "cpu")
    told = {"name": "meso", "paper": "Afchar et al. 2018", "licence": "Apache-2.0"}
    card = {**detector.card, "published": told, "sources": ["FaceForensics"]}
    found = facts("meso", dataclasses.replace(detector, card=card), True)
    assert found.trained_on == ("FaceForensics",)
    assert found.words[-1].startswith(
        "meso was made elsewhere (Afchar et al. 2018): of what it was trained on only"
    )
    assert "Licence of its weights: Apache-2.0." in found.words[-1]
