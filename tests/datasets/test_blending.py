from pathlib import Path

import cv2
import numpy as np
import pytest

from crossfake.datasets import blending
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError

SIZE = 64
FACE = blending.aligned_face(SIZE)


def test_masks_say_where_a_fake_differs_from_its_photo() -> None:
    photo, partner = toyface(3, SIZE), toyface(4, SIZE)
    u = np.random.default_rng(0).random(32)
    u[9] = 0.8  # the photo is what lies over its changed copy
    for fake, mask, target in (
        (*blending.self_blended(photo, FACE, u), blending.change(photo, u[:9])),
        (*blending.swapped(photo, partner, FACE, FACE, u), photo),
    ):
        difference = np.abs(fake.astype(int) - target).max(axis=2)
        near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert difference[~near].max() <= 1 and difference[mask > 0.5].mean() > 2


def test_masks_stay_within_their_bounds() -> None:
    mask = blending.face_mask(blending.outline(FACE), SIZE, SIZE)
    assert 0.1 < mask.mean() < 0.6 and mask.max() == 1
    rng = np.random.default_rng(0)
    for _ in range(10):
        soft = blending.softened(blending.deformed(mask, rng.random(4)), rng.random(), rng.random())
        assert soft.shape == mask.shape and soft.min() >= 0 and soft.max() <= 1 and soft[[0, -1]].max() < 0.2


@pytest.mark.parametrize("part", [2, 3, 12])
def test_small_faces_are_blended_too(part: int) -> None:
    photo, center = toyface(5, SIZE), np.float32((SIZE - 1) / 2)
    face = (FACE - center) / np.float32(part) + center
    rng = np.random.default_rng(0)
    for _ in range(50):
        fake, mask = blending.self_blended(photo, face, rng.random(32))
        assert mask.max() > 0.1 and not np.array_equal(fake, photo)


@pytest.mark.parametrize("size", [16, 64, 224, 299])
def test_an_aligned_face_is_blended_at_the_scale_of_its_picture(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, face, u = toyface(5, size), blending.aligned_face(size), np.random.default_rng(1).random(32)
    made, mask = blending.self_blended(photo, face, u)
    monkeypatch.setattr(blending, "_extent", lambda around, size: size)
    plain, whole = blending.self_blended(photo, face, u)
    assert np.array_equal(made, plain) and np.array_equal(mask, whole)
    soft = blending.softened(
        blending.deformed(blending.face_mask(blending.outline(face), size, size), u[13:17]), u[17], u[18]
    )
    assert np.array_equal(mask > 0, soft > 0)


def test_faces_are_where_aligned_crops_have_them_and_elsewhere_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photos, center = np.stack([toyface(n, SIZE) for n in range(2)]), (SIZE - 1) / 2
    monkeypatch.setattr(blending, "landmarks", lambda image, model: (image.shape, model))
    for face in blending.faces_of(photos, {"policy": "face", "margin": 1.3}):
        np.testing.assert_array_equal(face, FACE)
    (wide,) = blending.faces_of(photos[:1], {"policy": "face", "margin": 2.6})
    np.testing.assert_allclose(wide - center, (FACE - center) / 2, rtol=1e-5)
    (tmp_path / "yunet.onnx").touch()
    for crop in ({"policy": "center"}, {}, None):
        found = blending.faces_of(photos, crop, tmp_path / "yunet.onnx")
        assert found == [((SIZE, SIZE, 3), tmp_path / "yunet.onnx")] * 2
    with pytest.raises(UserError, match="are not there"):
        blending.faces_of(photos, None, tmp_path / "none.onnx")


def test_bending_moves_landmarks_onto_others() -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    points = np.array([[20, 20], [44, 22], [32, 34], [24, 44], [40, 46]], np.float32)
    onto = points + np.array([[3, 2], [-2, 1], [1, -3], [2, 2], [-3, -1]], np.float32)
    for (x, y), value in zip(points.astype(int), (50, 100, 150, 200, 250), strict=True):
        image[y - 1 : y + 2, x - 1 : x + 2] = value
    bent = blending.bend(image, points, onto)
    for (x, y), value in zip(onto.astype(int), (50, 100, 150, 200, 250), strict=True):
        assert abs(int(bent[y, x, 0]) - value) < 60
    same = blending.bend(image, points, points)
    assert np.abs(same.astype(int) - image).max() <= 1


def test_colours_become_those_of_the_other_picture() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal((150, 120, 100), 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    like = np.clip(rng.normal((90, 100, 130), 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    mask = blending.face_mask(blending.outline(FACE), SIZE, SIZE)
    inside = mask > 0.5
    ours, theirs = (
        cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[inside]
        for each in (blending.recoloured(image, like, mask), like)
    )
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 1
    assert np.abs(ours.std(axis=0) - theirs.std(axis=0)).max() < 1
    assert np.array_equal(blending.recoloured(image, like, np.zeros_like(mask)), image)


def test_where_poisson_has_no_solution_the_edge_is_soft() -> None:
    source, target = np.full((SIZE, SIZE, 3), 200, np.uint8), np.full((SIZE, SIZE, 3), 50, np.uint8)
    tiny = np.zeros((SIZE, SIZE), np.float32)
    tiny[30:32, 30:32] = 1
    made = blending.seamless(source, target, tiny, 0.02)
    assert 50 < made[31, 31, 0] < 200 and made[0, 0, 0] == 50


@pytest.mark.parametrize("shape", [(90, 64), (64, 100)])
def test_photos_of_any_shape_are_blended_and_swapped(shape: tuple[int, int], tmp_path: Path) -> None:
    height, width = shape
    photo = cv2.copyMakeBorder(
        toyface(3, 64), 0, height - 64, 0, width - 64, cv2.BORDER_REFLECT_101
    )  # the face in the first 64 rows and columns
    partner = np.asarray(cv2.resize(toyface(4, SIZE), (70, 110)), np.uint8)
    other = FACE * np.float32([70 / SIZE, 110 / SIZE])
    rng = np.random.default_rng(0)
    for _ in range(20):
        u = rng.random(32)
        for fake, mask in (
            blending.self_blended(photo, FACE, u),
            blending.swapped(photo, partner, FACE, other, u),
        ):
            assert fake.shape == photo.shape and fake.dtype == np.uint8 and mask.shape == shape
            assert mask.max() > 0.1 and not np.array_equal(fake, photo)
        assert (
            np.abs(fake.astype(int) - photo).max(2)[:, 70:].max(initial=0) <= 1
        )  # the rest of a swap's photo stays


def test_native_crops_have_no_place_for_the_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"a model")
    monkeypatch.setattr(blending, "find_faces", lambda image, model: [])
    crop = {"policy": "face", "margin": 1.3, "pixels": "native"}
    (face,) = blending.faces_of([np.zeros((80, 100, 3), np.uint8)], crop, tmp_path / "yunet.onnx")
    assert np.allclose(
        face, blending.aligned_face(80) + (10, 0)
    )  # in the central square, where none is found
