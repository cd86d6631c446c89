"""Published detectors of faces that are turned upright: the same frame in predict, in a set's rows and on the page."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from crossfake.datasets.faces import Face
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.template import Template, similarity
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector, load
from crossfake.detect.bundle.export import export
from crossfake.detect.cli import detect
from crossfake.detect.importing.importer import import_detector
from crossfake.detect.models import create_model
from crossfake.detect.prediction.predict import plan, predict
from crossfake.detect.settings import ExportSettings

POINTS = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]])
TABLE = f"""
upright:
  paper: none
  licence: none
  weights: none
  trained_on: [elsewhere]
  sees: {{looks_at: face, template: {POINTS.tolist()}, margin: 1.3, frame: 48, resize: 32, squeeze: true}}
  model: published
  options: {{architecture: test_resnet}}
"""


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    network = create_model("published", options={"architecture": "test_resnet"})
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "t.yaml").write_text(TABLE)
    path = import_detector(tmp_path / "w.safetensors", "upright", tmp_path / "m", tmp_path / "t.yaml")
    return load(path, device="cpu")


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A face is wherever five dots of pure colours are; of each the middle is known to a pixel."""

    def find(image: Pixels, model: Path, threshold: float = 0.6, **_: object) -> list[Face]:
        places = [np.argwhere((image == color).all(axis=2)) for color in _COLORS]
        if any(not len(place) for place in places):
            return []
        points = np.array([place.mean(axis=0)[::-1] for place in places])
        low, high = points.min(axis=0) - 10, points.max(axis=0) + 10
        return [Face(points, (*low, *(high - low)))]

    (tmp_path / "yunet.onnx").write_bytes(b"a model")
    monkeypatch.setattr("crossfake.datasets.crops.find_faces", find)
    monkeypatch.setattr("crossfake.detect.prediction.predict.find_faces", find)
    monkeypatch.setattr("crossfake.datasets.crops.find_weights", lambda *_: tmp_path / "yunet.onnx")


_COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def _photo(degrees: float, seed: int = 0) -> tuple[Pixels, np.ndarray]:
    """Noise with the five dots of a turned face, and where they are."""
    image = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (200, 220, 3), np.uint8), (0, 0), 2)
    turn = cv2.getRotationMatrix2D((0.5, 0.6), degrees, 60)
    points = np.rint(POINTS @ turn[:, :2].T + turn[:, 2] + [110, 100])
    for (x, y), color in zip(points.astype(int), _COLORS, strict=True):
        image[y - 1 : y + 2, x - 1 : x + 2] = color
    return image, points


def _wanted(image: Pixels, points: np.ndarray) -> Pixels:
    """The frame by OpenCV alone: margin 1.3, 48 pixels."""
    matrix = similarity(points, (POINTS + 0.15) / 1.3 * 48)
    return np.asarray(cv2.warpAffine(image, matrix, (48, 48)))


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(detect, [str(each) for each in arguments])


def _set(folder: Path, rows: list[Pixels], label: int, policy: str = "square", split: str = "test") -> Path:
    with ShardWriter(
        folder, attributes={"crop": {"policy": policy, "margin": 2.0, "pixels": "native"}}
    ) as writer:
        for number, image in enumerate(rows):
            writer.append(
                image, Row(label, folder.name, "gan" if label else "", split, f"{folder.name}{number}")
            )
    return folder


@pytest.mark.parametrize("degrees", [0, 25, -70])
def test_a_picture_is_turned_and_a_row_of_it_too(detector: Detector, tmp_path: Path, degrees: float) -> None:
    image, points = _photo(degrees)
    Image.fromarray(image).save(tmp_path / "a.png")
    crop = plan(detector).cropper(image)
    np.testing.assert_array_equal(crop, _wanted(image, points))
    found = next(iter(predict([tmp_path / "a.png"], detector)))
    assert len(found.faces) == 1 and found.faces[0].box is not None
    np.testing.assert_allclose(found.faces[0].score, detector.score([crop])[0], atol=1e-6)
    left, top, right, bottom = 20, 10, 210, 190
    row = _set(tmp_path / "rows", [image[top:bottom, left:right]], 0)
    windows, whole, damaged = detector.view.read(ShardSet(row), np.array([0]))
    assert whole.tolist() == [0] and not damaged
    np.testing.assert_allclose(detector.score(windows)[0], found.faces[0].score, atol=1e-6)


def test_rows_without_a_face_are_left_out_and_told(detector: Detector, tmp_path: Path) -> None:
    blank = np.full((90, 90, 3), 128, np.uint8)
    real = _set(tmp_path / "real", [_photo(k, k)[0] for k in range(6)], 0)
    fake = _set(tmp_path / "fake", [*(_photo(k, k)[0] for k in range(10, 16)), blank], 1)
    found = _run(
        "evaluate", "--bundle", detector.path, "--data", real, fake, "--out", tmp_path / "e", "--bootstrap", 0
    )
    assert found.exit_code == 0, found.output
    assert "1 image left out" in found.output and "no face to turn upright" in found.output
    assert len((tmp_path / "e" / "scores.csv").read_text().splitlines()) == 13


def test_pictures_that_are_forced_are_taken_as_they_are(detector: Detector, tmp_path: Path) -> None:
    frames = [_wanted(*_photo(10 * k, k)) for k in range(2)]
    shards = _set(tmp_path / "frames", frames, 0, "none")
    refused = _run("evaluate", "--bundle", detector.path, "--data", shards)
    assert refused.exit_code == 2 and "holds pictures as they are" in refused.output
    windows, _, _ = detector.view.read(ShardSet(shards), np.arange(2))
    np.testing.assert_allclose(detector.score(windows), detector.score(frames), atol=1e-6)


def test_the_card_and_the_exported_file_know_it(detector: Detector, tmp_path: Path) -> None:
    assert detector.crop.template == Template(tuple(map(tuple, POINTS.tolist())), 48)
    assert "upright" not in detector.view.describe()
    assert (
        "turned upright by five landmarks, 1.3 times a template, 48×48"
        in detector.card["published"]["looks at"]
    )
    rows = _set(tmp_path / "real", [_photo(k, k)[0] for k in range(3)], 0, split="val")
    report = export(ExportSettings(detector.path, "torchscript", tmp_path / "m.torchscript", images=(rows,)))
    assert report["deviation"] < 1e-4 and report["checked"] == 3


def test_the_face_is_explained_upright(detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(_photo(30)[0]).save(tmp_path / "a.png")
    found = _run(
        "explain", "--bundle", detector.path, tmp_path / "a.png", "--method", "occlusion", "--out", tmp_path
    )
    assert found.exit_code == 0 and (tmp_path / "a.png").is_file(), found.output


def test_a_networks_numbers_do_not_change_with_the_turn(detector: Detector) -> None:
    """One picture, turned by quarters without loss, gives one score."""
    image, _ = _photo(0)
    scores = [detector(np.ascontiguousarray(np.rot90(image, k))) for k in range(4)]
    np.testing.assert_allclose(scores, scores[0], atol=2e-3)
    assert torch.isfinite(torch.tensor(scores)).all()


def test_an_experiments_rows_and_edited_ones_are_turned(detector: Detector, tmp_path: Path) -> None:
    from crossfake.experiments.run.cells import score_rows

    photos = [_photo(20 * k, k)[0] for k in range(3)]
    blank = np.full((90, 80, 3), 128, np.uint8)
    shards = ShardSet(_set(tmp_path / "rows", [*photos, blank], 0))
    found = score_rows(detector, shards, np.arange(4))
    np.testing.assert_allclose(found, detector.score([*map(detector.crop, photos), blank]), atol=1e-6)
    windows, _, _ = detector.view.read(shards, np.arange(3))
    np.testing.assert_allclose(found[:3], detector.score(windows), atol=1e-6)
    frames = ShardSet(_set(tmp_path / "frames", photos, 0, "none"))
    np.testing.assert_allclose(score_rows(detector, frames, np.arange(3)), detector.score(photos), atol=1e-6)
