"""Pictures judged by a detector of native pixels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.cli import main
from crossfake.datasets.crops import Cropper
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.prediction.predict import plan, predict
from crossfake.detect.settings import PredictSettings
from crossfake.detect.view import View


@pytest.fixture
def pictures(native: tuple[Path, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(ShardSet(native[1]).read_each(range(48, 60))):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


def test_pictures_are_judged_by_windows_of_their_own_pixels(
    fit_native: Path, native: tuple[Path, Path], pictures: Path
) -> None:
    detector = bundle.load(fit_native, "cpu")
    found = list(predict([pictures], detector))
    judged = detector.judge(ShardSet(native[1]).read_each(range(48, 60)))
    assert [each.probability for each in found] == pytest.approx([j.probability for j in judged])
    assert all(each.faces[0].box is None for each in found)
    again = list(predict([pictures], detector, PredictSettings(workers=2)))
    assert [each.probability for each in again] == [each.probability for each in found]
    few = list(predict([pictures], bundle.load(fit_native, "cpu", windows=1)))
    assert [each.probability for each in few] != [each.probability for each in found]


def test_a_picture_smaller_than_a_window_is_told_and_not_enlarged(fit_native: Path, pictures: Path) -> None:
    Image.fromarray(np.zeros((40, 15, 3), np.uint8)).save(pictures / "small.png")
    found = list(predict([pictures], bundle.load(fit_native, "cpu")))
    assert not found[-1].judged and found[-1].problem == "smaller than 16 pixels"
    assert all(each.judged for each in found[:-1])


def test_the_document_says_what_was_seen(fit_native: Path, pictures: Path) -> None:
    result = CliRunner().invoke(
        main, ["detect", "predict", str(pictures), "--bundle", str(fit_native), "--windows", "3", "--json"]
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["detector"]["view"] == {"pixels": "native", "window": 16, "windows": 3}


def test_whole_pictures_are_seen_through_windows(fit_native: Path) -> None:
    detector = bundle.load(fit_native, "cpu")
    cropper = plan(detector, "whole").cropper
    assert cropper.native and cropper.min_size == 16 and cropper.policy == "none"
    assert detector.view == View("native", 16, 5)


def test_faces_of_photos_are_cut_without_resampling_and_judged_as_one_by_one(
    fit_native: Path, real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    bundle_folder = Path(shutil.copytree(fit_native / "model", tmp_path / "bundle"))
    card = json.loads((bundle_folder / "bundle.json").read_text())
    crop = {**Cropper(0, "face", pixels="native").description(), "min_size": 16}
    (bundle_folder / "bundle.json").write_text(json.dumps({**card, "crop": crop}))
    detector = bundle.load(bundle_folder, "cpu")
    photos = sorted((real_data / "all-age-faces").glob("*.jpg"))[:3]
    found = list(predict(photos, detector))
    assert [each.probability for each in found] == pytest.approx([detector(photo) for photo in photos])
    assert all(each.faces[0].box for each in found)
    small = tmp_path / "small.png"
    Image.open(photos[0]).resize((14, 16)).save(small)
    (one,) = predict([small], detector)
    assert not one.judged and one.problem in ("smaller than 16 pixels", "no face")
