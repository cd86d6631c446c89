from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from crossfake.datasets import blending
from crossfake.datasets.blending import aligned_face, change, face_mask, landmarks, outline
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.synth.families.blend import SelfBlendedFaces, Swapped
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.photos import Photos
from crossfake.synth.settings import GenerateSettings
from crossfake.weights import find_weights

SIZE = 64
FACE = aligned_face(SIZE)


def _faces(first: int, count: int) -> np.ndarray:
    return np.stack([toyface(number, SIZE) for number in range(first, first + count)])


@pytest.fixture
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are where an aligned crop has them."""
    monkeypatch.setattr("crossfake.synth.families.blend.find_weights", lambda name: Path("unused"))
    monkeypatch.setattr(blending, "find_faces", lambda image, model: [])


@pytest.mark.parametrize("kind", [SelfBlendedFaces, Swapped])
def test_an_image_is_the_same_alone_and_in_company(kind: Any, no_detector: None) -> None:
    photos, partners = _faces(0, 4), _faces(10, 4)
    vectors = torch.randn(4, kind.latent_dim, generator=torch.Generator().manual_seed(0))
    made = np.stack(kind(SIZE).edit(photos, partners, vectors, torch.float32))
    assert made.shape == photos.shape and made.dtype == np.uint8
    alone = kind(SIZE).edit(photos[2:3], partners[2:3], vectors[2:3], torch.float32)
    assert np.array_equal(alone, made[2:3])
    assert all(not np.array_equal(a, b) for a, b in zip(made, photos, strict=True))


def test_a_swap_changes_the_face_and_nothing_else(no_detector: None) -> None:
    photo, partner = _faces(0, 1)[0], np.full((SIZE, SIZE, 3), 128, np.uint8)
    partner[::4] = 30  # a pattern that no face has
    made = Swapped(SIZE).one(photo, partner, FACE, FACE, np.full(32, 0.5))
    inside = face_mask(outline(FACE), SIZE, SIZE) > 0
    difference = np.abs(made.astype(int) - photo).max(axis=2)
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert difference[~near].max() <= 1 and difference[inside].mean() > 5


def test_outside_the_mask_a_self_blend_is_the_photo_or_its_changed_copy(no_detector: None) -> None:
    photo = _faces(3, 1)[0]
    u = np.random.default_rng(0).random(32)
    for side in (0.2, 0.8):  # whichever of the two is the target
        u[9] = side
        made = SelfBlendedFaces(SIZE).one(photo, photo, FACE, FACE, u)
        target = photo if side < 0.5 else change(photo, u[:9])
        assert np.array_equal(made[:3], target[:3]) and not np.array_equal(made, target)


@pytest.mark.parametrize("family", ["blend", "swap"])
def test_fakes_of_photos_keep_their_people_and_splits(family: str, no_detector: None, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "photos", SIZE, attributes={"crop": {"policy": "face"}}) as writer:
        for number in range(12):
            split = "train" if number < 8 else "test"
            row = Row(0, "x", split=split, group=f"person {number // 2}", origin=f"{number}.png")
            writer.append(toyface(number, SIZE), row)
    options: dict[str, Any] = {"family": family, "photos": tmp_path / "photos"}
    out = generate(GenerateSettings(10, out=tmp_path / "out", **options))
    made = ShardSet(out)
    assert set(made.columns["generator"]) == {family} and set(made.columns["split"]) == {"train"}
    assert made.columns["group"].tolist() == [f"person {k % 8 // 2}" for k in range(10)]
    assert made.columns["parent"].tolist() == [f"x/{k % 8}.png" for k in range(10)]
    assert made.attributes["crop"] == {"policy": "face"} and made.columns["label"].tolist() == [1] * 10
    test = ShardSet(generate(GenerateSettings(4, out=tmp_path / "test", split="test", **options)))
    assert set(test.columns["group"]) == {"person 4", "person 5"}
    with pytest.raises(UserError, match="--photos and --out"):
        generate(GenerateSettings(4, family=family, out=tmp_path / "x"))
    with pytest.raises(UserError, match="trained or imported first"):
        generate(GenerateSettings(4, out=tmp_path / "x", family="stylegan2", photos=tmp_path / "photos"))


@pytest.mark.parametrize("family", ["blend", "swap"])
def test_native_photos_keep_their_shapes(family: str, no_detector: None, tmp_path: Path) -> None:
    crop = {"policy": "face", "pixels": "native"}
    with ShardWriter(tmp_path / "photos", None, attributes={"crop": crop}) as writer:
        for number in range(9):
            photo = toyface(number, 48 + 4 * number)[: 48 + number]
            split = ("train", "val", "test")[number // 3]
            writer.append(photo, Row(0, "x", split=split, group=f"g{number}", origin=f"{number}.png"))
    photos = ShardSet(tmp_path / "photos")
    settings = GenerateSettings(family=family, photos=tmp_path / "photos", out=tmp_path / "out")
    made = ShardSet(generate(settings))
    assert np.array_equal(made.shapes, photos.shapes) and made.attributes["crop"] == crop
    assert made.columns["parent"].tolist() == photos.ids().tolist()
    assert made.columns["split"].tolist() == photos.columns["split"].tolist()
    assert all(not np.array_equal(made.read(row), photos.read(row)) for row in range(9))
    of_all = Photos(tmp_path / "photos", None, 0, partnered=True)
    partners = [of_all.partner(number, 0) for number in range(9)]
    assert [partner // 3 for partner in partners] == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # of the same split


def test_real_faces_are_found_and_swapped(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import PrepareSettings

    source = str(real_data / "all-age-faces")
    prepare(PrepareSettings(source, tmp_path / "photos", SIZE, limit=12, split="1/0/0", workers=1))
    photos = ShardSet(tmp_path / "photos")
    eyes = np.stack([landmarks(photos.read(row), find_weights("yunet"))[:2] for row in range(8)])
    assert np.abs(eyes - FACE[:2]).max() < 8  # they lie where an aligned crop has them
    made = ShardSet(
        generate(GenerateSettings(8, out=tmp_path / "o", family="swap", photos=tmp_path / "photos"))
    )
    assert np.abs(made.read_many(range(8)).astype(int) - photos.read_many(range(8))).mean() > 1
