"""Published detectors in the commands that take any bundle."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from scipy.special import expit

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


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        picture = np.random.default_rng(number).integers(0, 256, (40, 50 + number, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "x.png").write_text("broken")
    return folder


def test_several_detectors_are_told_side_by_side(
    pair: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    folder, csv_file = _pictures(tmp_path / "in"), tmp_path / "x.csv"
    bundles = [argument for path in (*pair, trained) for argument in ("--bundle", path)]
    found = _run("predict", folder, *bundles, "--device", "cpu", "--csv", csv_file, "--workers", 1)
    assert found.exit_code == 0, found.output
    assert "m-one     none   no          the whole picture, resized to 32×32 (bilinear)" in found.stdout
    lines = [line for line in found.stdout.splitlines() if f"{folder}/0.png" in line]
    assert len(lines) == 3 and all("  picture  " in line for line in lines)
    assert "m-two: 2 judged, 1 could not be (listed above)" in found.stdout
    with open(csv_file) as file:
        rows = list(csv.DictReader(file))
    assert [row["detector"] for row in rows] == ["m-one", "m-two", trained.name] * 3
    for path, name in zip(pair, ("m-one", "m-two"), strict=True):
        own = next(r for r in rows if r["detector"] == name and r["path"].endswith("/1.png"))
        assert own["looked_at"] == "picture"
        assert own["verdict"] == "no reliable answer" and own["probability"] == ""
        logit = load(path, device="cpu").outputs(load(path, device="cpu").crop.open(folder / "1.png")[None])[
            0
        ]
        assert float(own["score"]) == pytest.approx(float(expit(logit[0])), abs=1e-5)


def test_several_detectors_as_json(pair: tuple[Path, Path], tmp_path: Path) -> None:
    bundles = ("--bundle", pair[0], "--bundle", pair[1], "--device", "cpu", "--workers", 1)
    found = json.loads(_run("predict", _pictures(tmp_path / "in"), *bundles, "--json").stdout)
    assert set(found["detectors"]) == {"m-one", "m-two"} and not found["detectors"]["m-one"]["calibrated"]
    assert [each["detector"] for each in found["files"]] == ["m-one", "m-two"] * 3
    assert {each["looked_at"] for each in found["files"]} == {"picture", None}
    verdicts = [{each["verdict"] for each in found["files"][k : k + 2]} for k in (0, 2)]
    assert found["summary"]["differently"] == sum(len(each) > 1 for each in verdicts)
    assert found["summary"]["m-one"]["judged"] == 2


def test_several_detectors_take_a_list_and_draw_each_its_own(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder, marked = _pictures(tmp_path / "in"), tmp_path / "in" / "marked"
    bundles = [str(each) for path in pair for each in ("--bundle", path)]
    options = ["--device", "cpu", "--workers", "1", "--annotate", str(marked), "--json"]
    lines = f"{folder}\n{folder}/1.png\n"
    found = CliRunner().invoke(detect, ["predict", "-", *bundles, *options], input=lines)
    assert found.exit_code == 0, found.output
    files = json.loads(found.stdout)["files"]
    assert len(files) == 2 * 4 and [each["detector"] for each in files] == ["m-one", "m-two"] * 4
    assert sorted(path.name for path in marked.iterdir()) == ["m-one", "m-two"]
    drawn = [each["annotated"] for each in files if each["annotated"]]
    assert len(drawn) == len(set(drawn)) == 6 and all(Path(path).is_file() for path in drawn)
    again = CliRunner().invoke(detect, ["predict", str(folder), *bundles, *options])
    assert again.exit_code == 2 and "holds files already" in again.output


def test_the_same_detector_twice_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "in")
    found = CliRunner().invoke(
        detect, ["predict", str(folder), "--bundle", str(pair[0]), "--bundle", str(pair[0])]
    )
    assert found.exit_code == 2 and "named twice" in found.output and "verdict " not in found.output
