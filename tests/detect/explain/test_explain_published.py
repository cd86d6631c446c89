"""Explanations of published detectors, and whether these are true."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector, load
from crossfake.detect.cli import detect
from crossfake.detect.explain.checks import alike
from crossfake.detect.explain.windows import maps_of, middle
from crossfake.detect.importing.importer import import_detector
from crossfake.detect.models import create_model
from crossfake.detect.whole import Whole

TABLE = """
squeezed: &base
  paper: none
  licence: none
  weights: none
  trained_on: [nothing]
  sees: {looks_at: face, resize: 32, squeeze: true}
  model: published
  options: {architecture: test_resnet}
cropped: {<<: *base, sees: {looks_at: picture, resize: 40, crop: 32}}
free: {<<: *base, sees: {looks_at: picture}}
"""
KINDS = ("squeezed", "cropped", "free")


def _rows(folder: Path, label: int, masks: bool = False) -> Path:
    rng = np.random.default_rng(label)
    with ShardWriter(
        folder, attributes={"crop": {"policy": "square", "margin": 1.3, "pixels": "native"}}
    ) as writer:
        for number in range(12):
            height, width = rng.integers(44, 60, 2)
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            split = "val" if number % 2 else "train"
            writer.append(
                image, Row(label, folder.name, "gan" if label else "", split, f"{folder.name}{number}")
            )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    network = create_model("published", options={"architecture": "test_resnet"})
    save_file(network.state_dict(), path / "w.safetensors")
    (path / "t.yaml").write_text(TABLE)
    for name in KINDS:
        import_detector(path / "w.safetensors", name, path / name, path / "t.yaml")
    _rows(path / "real", 0)
    _rows(path / "fake", 1)
    return path


@pytest.fixture(params=KINDS)
def detector(request: pytest.FixtureRequest, folder: Path) -> Detector:
    return load(folder / request.param, device="cpu")


@pytest.fixture(autouse=True)
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five landmarks in the middle of any picture: no weights of a face detector are needed."""

    def found(images: list[Pixels], *_: object) -> list[np.ndarray]:
        points = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]], np.float32)
        return [points * image.shape[1::-1] for image in images]

    monkeypatch.setattr("crossfake.detect.explain.checks.faces_of", found)


def _explain(*arguments: object) -> Result:
    return CliRunner().invoke(detect, ["explain", *map(str, arguments)])


@pytest.mark.parametrize("method", ["gradcam", "integrated-gradients"])
def test_its_maps_are_checked(detector: Detector, folder: Path, tmp_path: Path, method: str) -> None:
    found = _explain(
        "--check",
        "--bundle",
        detector.path,
        "--data",
        folder / "real",
        folder / "fake",
        "--method",
        method,
        "--images",
        4,
        "--out",
        tmp_path,
    )
    assert found.exit_code == 0, found.output
    result = json.loads((tmp_path / "check.json").read_text())
    assert set(result["pointing"]) == {"self-blended", "swapped"}
    assert all(
        part["hit"]["n"] == 4 and part["called_fake"]["n"] == 4 for part in result["pointing"].values()
    )
    assert len(result["randomisation"]) > 1 and (tmp_path / "check.png").is_file()


def test_what_is_checked_is_what_the_network_sees(folder: Path) -> None:
    from crossfake.datasets.shards import ShardSet
    from crossfake.detect.explain.checks import _read, _scores

    for name in KINDS[:2]:
        detector = load(folder / name, device="cpu")
        sets = ShardSet(folder / "fake")
        rows = sets.select(split="val")
        sample = _read([(sets, rows)], detector.view)
        assert sample is not None and sample.images.shape == (6, 32, 32, 3)
        scores = detector.score([sets.read(int(row)) for row in rows])
        np.testing.assert_allclose(_scores(detector, sample.images), scores, atol=1e-6)


def test_pictures_of_any_size_are_checked_in_their_middle() -> None:
    images = [np.full((50, 40, 3), k, np.uint8) for k in range(2)]
    assert [each.shape for each in alike(images)] == [(50, 40, 3)] * 2
    assert {each.shape for each in alike([*images, np.zeros((300, 60, 3), np.uint8)])} == {(40, 40, 3)}
    assert alike([np.zeros((900, 800, 3), np.uint8), np.zeros((700, 800, 3), np.uint8)])[0].shape == (
        224,
        224,
        3,
    )


def test_a_mask_goes_where_its_picture_goes() -> None:
    mask = np.zeros((60, 90), bool)
    mask[20:40, 40:60] = True
    image = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    for view in (
        Whole("whole", 32, resize=32, squeeze=True),
        Whole("whole", 32, resize=40, crop=32),
        Whole("whole", 224),
    ):
        seen, where = view.with_mask(image, mask)
        assert seen.shape[:2] == where.shape and where.any()
        np.testing.assert_array_equal(seen[..., 0] > 127, where)


def test_a_map_is_of_what_the_network_sees(detector: Detector) -> None:
    """A trace outside the top left corner is found: a map once was of that corner alone."""
    image = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
    seen = middle(detector.view, image)
    (chart,) = maps_of(detector.network, detector.view, [seen], "occlusion")
    assert chart.shape == seen.shape[:2]


def test_spectra_need_one_size_and_say_so(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)).save(tmp_path / "a.png")
    data = ("--data", folder / "real", folder / "fake", "--out", tmp_path / "out")
    refused = _explain(tmp_path / "a.png", "--bundle", folder / "free", "--method", "spectrum", *data)
    assert refused.exit_code == 2 and "sees each picture at its own" in refused.output
    for name, method in (("cropped", "spectrum"), ("cropped", "prototypes"), ("free", "prototypes")):
        found = _explain(tmp_path / "a.png", "--bundle", folder / name, "--method", method, *data)
        assert found.exit_code == 0, found.output
        assert (tmp_path / "out" / "a.png").is_file()
