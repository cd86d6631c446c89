import cv2
import numpy as np

from crossfake.datasets import blending
from crossfake.datasets.toyfaces import toyface

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
    mask = blending.face_mask(blending.outline(FACE), SIZE)
    assert 0.1 < mask.mean() < 0.6 and mask.max() == 1
    rng = np.random.default_rng(0)
    for _ in range(10):
        soft = blending.softened(blending.deformed(mask, rng.random(4)), rng.random(), rng.random())
        assert soft.shape == mask.shape and soft.min() >= 0 and soft.max() <= 1 and soft[[0, -1]].max() < 0.2


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
    mask = blending.face_mask(blending.outline(FACE), SIZE)
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
