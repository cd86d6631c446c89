from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.synth.families import blend
from crossfake.synth.families.blend import SelfBlended, Swapped
from crossfake.synth.generation import GenerateSettings, generate
from crossfake.weights import find_weights

SIZE = 64
FACE = np.array(blend._ALIGNED, np.float32) * SIZE


def _faces(first: int, count: int) -> np.ndarray:
    return np.stack([toyface(number, SIZE) for number in range(first, first + count)])


@pytest.fixture
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are where an aligned crop has them."""
    monkeypatch.setattr(blend, "find_weights", lambda name: Path("unused"))
    monkeypatch.setattr(blend, "find_faces", lambda image, model: [])


@pytest.mark.parametrize("kind", [SelfBlended, Swapped])
def test_an_image_is_the_same_alone_and_in_company(kind: Any, no_detector: None) -> None:
    photos, partners = _faces(0, 4), _faces(10, 4)
    vectors = torch.randn(4, kind.randoms, generator=torch.Generator().manual_seed(0))
    made = kind(SIZE).edit(photos, partners, vectors)
    assert made.shape == photos.shape and made.dtype == np.uint8
    assert np.array_equal(kind(SIZE).edit(photos[2:3], partners[2:3], vectors[2:3]), made[2:3])
    assert all(not np.array_equal(a, b) for a, b in zip(made, photos, strict=True))


def test_a_swap_changes_the_face_and_nothing_else(no_detector: None) -> None:
    photo, partner = _faces(0, 1)[0], np.full((SIZE, SIZE, 3), 128, np.uint8)
    partner[::4] = 30  # a pattern that no face has
    made = Swapped(SIZE).one(photo, partner, FACE, FACE, np.full(32, 0.5))
    inside = blend.face_mask(blend.outline(FACE), SIZE) > 0
    difference = np.abs(made.astype(int) - photo).max(axis=2)
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert difference[~near].max() <= 1 and difference[inside].mean() > 5


def test_outside_the_mask_a_self_blend_is_the_photo_or_its_changed_copy(no_detector: None) -> None:
    photo = _faces(3, 1)[0]
    u = np.random.default_rng(0).random(32)
    for side in (0.2, 0.8):  # whichever of the two is the target
        u[9] = side
        made = SelfBlended(SIZE).one(photo, photo, FACE, FACE, u)
        target = photo if side < 0.5 else blend.change(photo, u[:9])
        assert np.array_equal(made[:3], target[:3]) and not np.array_equal(made, target)


def test_masks_stay_within_their_bounds() -> None:
    mask = blend.face_mask(blend.outline(FACE), SIZE)
    assert 0.1 < mask.mean() < 0.6 and mask.max() == 1
    rng = np.random.default_rng(0)
    for _ in range(10):
        soft = blend.softened(blend.deformed(mask, rng.random(4)), rng.random(), rng.random())
        assert soft.shape == mask.shape and soft.min() >= 0 and soft.max() <= 1 and soft[[0, -1]].max() < 0.2


def test_bending_moves_landmarks_onto_others() -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    points = np.array([[20, 20], [44, 22], [32, 34], [24, 44], [40, 46]], np.float32)
    onto = points + np.array([[3, 2], [-2, 1], [1, -3], [2, 2], [-3, -1]], np.float32)
    for (x, y), value in zip(points.astype(int), (50, 100, 150, 200, 250), strict=True):
        image[y - 1 : y + 2, x - 1 : x + 2] = value
    bent = blend.bend(image, points, onto)
    for (x, y), value in zip(onto.astype(int), (50, 100, 150, 200, 250), strict=True):
        assert abs(int(bent[y, x, 0]) - value) < 60
    same = blend.bend(image, points, points)
    assert np.abs(same.astype(int) - image).max() <= 1


def test_colours_become_those_of_the_other_picture() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal((150, 120, 100), 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    like = np.clip(rng.normal((90, 100, 130), 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    mask = blend.face_mask(blend.outline(FACE), SIZE)
    inside = mask > 0.5
    ours, theirs = (
        cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[inside]
        for each in (blend.recoloured(image, like, mask), like)
    )
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 1
    assert np.abs(ours.std(axis=0) - theirs.std(axis=0)).max() < 1
    assert np.array_equal(blend.recoloured(image, like, np.zeros_like(mask)), image)


def test_where_poisson_has_no_solution_the_edge_is_soft() -> None:
    source, target = np.full((SIZE, SIZE, 3), 200, np.uint8), np.full((SIZE, SIZE, 3), 50, np.uint8)
    tiny = np.zeros((SIZE, SIZE), np.float32)
    tiny[30:32, 30:32] = 1
    made = blend.seamless(source, target, tiny, 0.02)
    assert 50 < made[31, 31, 0] < 200 and made[0, 0, 0] == 50


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
    assert made.attributes["crop"] == {"policy": "face"} and made.columns["label"].tolist() == [1] * 10
    test = ShardSet(generate(GenerateSettings(4, out=tmp_path / "test", split="test", **options)))
    assert set(test.columns["group"]) == {"person 4", "person 5"}
    with pytest.raises(UserError, match="--photos and --out"):
        generate(GenerateSettings(4, family=family, out=tmp_path / "x"))
    with pytest.raises(UserError, match="trained or imported first"):
        generate(GenerateSettings(4, out=tmp_path / "x", family="stylegan2", photos=tmp_path / "photos"))


def test_real_faces_are_found_and_swapped(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    from crossfake.datasets.prepare import PrepareSettings, prepare

    source = str(real_data / "all-age-faces")
    prepare(PrepareSettings(source, tmp_path / "photos", SIZE, limit=12, split="1/0/0", workers=1))
    photos = ShardSet(tmp_path / "photos")
    eyes = np.stack([blend.landmarks(photos.read(row), find_weights("yunet"))[:2] for row in range(8)])
    assert np.abs(eyes - FACE[:2]).max() < 8  # they lie where an aligned crop has them
    made = ShardSet(
        generate(GenerateSettings(8, out=tmp_path / "o", family="swap", photos=tmp_path / "photos"))
    )
    assert np.abs(made.read_many(range(8)).astype(int) - photos.read_many(range(8))).mean() > 1
