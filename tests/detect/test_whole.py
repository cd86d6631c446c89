"""Whole pictures by a detector's own resize: as Pillow, torchvision and OpenCV do it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector, load
from crossfake.detect.importing.importer import import_detector
from crossfake.detect.models import create_model
from crossfake.detect.prediction.predict import plan, predict
from crossfake.detect.view import View
from crossfake.detect.whole import Whole
from crossfake.errors import UserError


def _picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(90, 61), (40, 200), (33, 33), (20, 24)])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_resize_and_crop_are_torchvisions(shape: tuple[int, int], kind: str) -> None:
    image = _picture(*shape)
    theirs = CenterCrop(32)(Resize(40, InterpolationMode(kind))(Image.fromarray(image)))
    found = Whole("whole", 32, resize=40, crop=32, interpolation=kind).fit(image)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, np.asarray(theirs))


@pytest.mark.parametrize("shape", [(20, 50), (31, 33), (32, 32)])
def test_the_middle_of_a_small_picture_is_torchvisions(shape: tuple[int, int]) -> None:
    image = _picture(*shape)
    theirs = np.asarray(CenterCrop(32)(Image.fromarray(image)))
    np.testing.assert_array_equal(Whole("whole", 32, crop=32).fit(image), theirs)


def test_squeezing_is_opencvs() -> None:
    image = _picture(40, 70)
    view = Whole("whole", 32, resize=32, squeeze=True, interpolation="opencv-cubic")
    np.testing.assert_array_equal(view.fit(image), cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC))


def test_a_card_gives_the_view_back() -> None:
    view = Whole("whole", 32, resize=40, crop=32, interpolation="nearest")
    assert View.of_card({"view": view.describe()}) == view
    with pytest.raises(UserError, match="no interpolation"):
        View.of_card({"view": {**view.describe(), "interpolation": "cubic"}})


TABLE = """
sized:
  paper: none
  licence: none
  weights: none
  trained_on: [nothing]
  sees: {looks_at: picture, resize: 32, squeeze: true}
  model: published
  options: {architecture: test_resnet}
free:
  paper: none
  licence: none
  weights: none
  trained_on: [nothing]
  sees: {looks_at: picture}
  model: published
  options: {architecture: test_resnet}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    save_file(
        create_model("published", options={"architecture": "test_resnet"}).state_dict(),
        path / "w.safetensors",
    )
    (path / "t.yaml").write_text(TABLE)
    for name in ("sized", "free"):
        import_detector(path / "w.safetensors", name, path / name, path / "t.yaml")
    return path


@pytest.fixture(params=["sized", "free"])
def detector(request: pytest.FixtureRequest, folder: Path) -> Detector:
    return load(folder / request.param, device="cpu")


def test_a_score_does_not_depend_on_company(detector: Detector) -> None:
    pictures = [_picture(40 + 9 * k, 64, k) for k in range(5)]
    together = detector.score(pictures)
    alone = [float(detector.score([each])[0]) for each in pictures]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_of_any_size_the_network_sees_the_picture_itself(folder: Path) -> None:
    detector, image = load(folder / "free", device="cpu"), _picture(50, 64)
    with torch.inference_mode():
        wanted = detector.network(torch.from_numpy(image)[None].permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(detector.outputs([image])[0], wanted.numpy(), rtol=1e-5)


def test_no_face_is_searched(detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(_picture(70, 50)).save(tmp_path / "a.png")
    assert not plan(detector).cropper.finds_faces
    found = next(iter(predict([tmp_path / "a.png"], detector)))
    assert found.judged and found.faces[0].box is None
    assert found.probability is None and found.verdict == "no reliable answer"  # no test on strangers
    np.testing.assert_allclose(found.faces[0].score, detector(tmp_path / "a.png"), atol=1e-6)


def test_windows_are_none_of_it(folder: Path) -> None:
    with pytest.raises(UserError, match="sees whole images"):
        load(folder / "sized", device="cpu", windows=3)


def test_the_card_says_what_is_known(detector: Detector) -> None:
    from crossfake.detect.evaluation.overlap import seen_by

    assert seen_by(detector).by_name and not seen_by(detector).blocks
    assert detector.card["published"]["licence"] == "none"
    assert "not audited" in detector.card["audit"]["summary"]


def test_it_is_exported_and_explained_as_the_network_sees_it(folder: Path, tmp_path: Path) -> None:
    from crossfake.detect.bundle.export import export
    from crossfake.detect.explain.explaining import explain
    from crossfake.detect.settings import ExplainSettings, ExportSettings

    found = export(ExportSettings(folder / "sized", "torchscript", tmp_path / "m.torchscript"))
    assert found["deviation"] < 1e-4 and "driver" not in found
    with pytest.raises(UserError, match="pictures of any size"):
        export(ExportSettings(folder / "free", "torchscript", tmp_path / "f.torchscript"))
    Image.fromarray(_picture(70, 50)).save(tmp_path / "a.png")
    said = explain(ExplainSettings(folder / "sized", (tmp_path / "a.png",), "occlusion", tmp_path / "out"))
    assert said["explained"][0].picture
