"""Published detectors in the commands that take any bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from crossfake.detect.bundle.bundle import load
from crossfake.detect.cli import detect
from crossfake.detect.evaluation.overlap import seen_by
from crossfake.detect.importing.importer import import_detector
from crossfake.detect.models import create_model

ENTRY = """
{name}:
  paper: none
  licence: none
  weights: none
  trained_on: [elsewhere]
  sees: {{looks_at: {looks_at}, resize: 32, squeeze: true}}
  model: published
  options: {{architecture: test_resnet}}
"""


def _imported(folder: Path, name: str, looks_at: str = "picture", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = create_model("published", options={"architecture": "test_resnet"})
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    (folder / f"{name}.yaml").write_text(ENTRY.format(name=name, looks_at=looks_at))
    return import_detector(
        folder / f"{name}.safetensors", name, folder / f"m-{name}", folder / f"{name}.yaml"
    )


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(detect, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return _imported(tmp_path, "one"), _imported(tmp_path, "two", seed=1)


def test_it_is_calibrated_on_ones_own_images(pair: tuple[Path, Path], native: tuple[Path, Path]) -> None:
    asked = _run("calibrate", "--bundle", pair[0])
    assert asked.exit_code == 2 and "name folders of yours with --real DIR and --fake DIR" in asked.output
    found = _run(
        "calibrate", "--bundle", pair[0], "--real", native[0], "--fake", native[1], "--bootstrap", 100
    )
    assert found.exit_code == 0, found.output
    assert "no longer the authors'" in found.output
    assert "what one (published) learned from is known by name only" in found.output
    detector = load(pair[0], device="cpu")
    assert detector.published and detector.calibration.get("interval")
    assert detector.threshold_from == "from validation"
    assert seen_by(detector).by_name and seen_by(detector).blocks


def test_an_ensemble_says_what_is_not_known_of_its_members(
    pair: tuple[Path, Path], native: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = _run("ensemble", *pair, "--out", tmp_path / "e")
    assert asked.exit_code == 2 and "name folders of yours" in asked.output
    found = _run("ensemble", *pair, "--real", native[0], "--fake", native[1], "--out", tmp_path / "e")
    assert found.exit_code == 0, found.output
    for name in ("one", "two"):
        assert f"what {name} (published) learned from is known by name only" in found.output
    detector = load(tmp_path / "e", device="cpu")
    assert [each["name"] for each in detector.published] == ["one", "two"]
    assert detector.card["sources"] == ["elsewhere"]
    assert detector.card["audit"]["verdict"] == "unknown"
    members = [load(each, device="cpu") for each in pair]
    images = [np.random.default_rng(k).integers(0, 256, (40, 50, 3), np.uint8) for k in range(3)]
    logits = np.stack([each.outputs(images)[0] for each in members], 1)
    weights = [each["weight"] for each in detector.card["members"]]
    np.testing.assert_allclose(detector.outputs(images)[0], logits @ weights, atol=1e-5)


def test_it_is_evaluated_at_its_authors_threshold(
    pair: tuple[Path, Path], native: tuple[Path, Path], tmp_path: Path
) -> None:
    found = _run(
        "evaluate", "--bundle", pair[0], "--data", *native, "--out", tmp_path / "e", "--bootstrap", 20
    )
    assert found.exit_code == 0, found.output
    assert "threshold 0.500, the authors' own" in found.output
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["firewall"] == "checked"


def test_it_is_exported_as_onnx(pair: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    found = _run("export", "--bundle", pair[0])
    assert found.exit_code == 0, found.output
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    plain, onnx = (
        load(pair[0], device="cpu", backend=kind)(tmp_path / "a.png") for kind in ("torch", "onnx")
    )
    assert abs(plain - onnx) < 1e-5
