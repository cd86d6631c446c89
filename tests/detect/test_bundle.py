import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import load
from crossfake.errors import UserError


def test_a_score_does_not_depend_on_the_images_beside_it(trained: Path, fake: Path) -> None:
    detector = load(trained, device="cpu")
    images = ShardSet(fake).read_many(range(9))
    together = detector.score(images)
    assert together.dtype == np.float64 and ((together >= 0) & (together <= 1)).all()
    assert np.array_equal(together, np.concatenate([detector.score(image[None]) for image in images]))
    assert detector.score(images[:0]).shape == (0,)


def test_loading_twice_gives_the_same_scores(trained: Path, fake: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained / "model", tmp_path / "bundle")
    images = ShardSet(fake).read_many(range(4))
    assert np.array_equal(load(trained, device="cpu").score(images), load(copy, device="cpu").score(images))


def test_a_picture_file_is_cropped_and_scored(trained: Path, fake: Path, tmp_path: Path) -> None:
    image = ShardSet(fake).read(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    detector = load(trained, device="cpu")
    assert detector(tmp_path / "a.png") == detector(image) == detector.score(image[None])[0]
    Image.fromarray(image.repeat(3, 0).repeat(2, 1)).save(tmp_path / "b.png")
    assert 0 <= detector(str(tmp_path / "b.png")) <= 1


def test_wrong_size_or_type_is_one_line(trained: Path) -> None:
    detector = load(trained, device="cpu")
    for images in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 16, 16, 3), np.float32)):
        with pytest.raises(UserError, match="takes uint8 images of 16×16"):
            detector.score(images)


def test_damaged_bundles_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no detector"):
        load(tmp_path)
    copy = shutil.copytree(trained / "model", tmp_path / "bundle")
    (copy / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="is damaged"):
        load(copy)
    shutil.copy(trained / "model" / "model.safetensors", copy)
    (copy / "bundle.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        load(copy)
