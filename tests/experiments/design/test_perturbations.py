"""Perturbations: no strength changes nothing, more is further, and neither the batch nor a label matters."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.experiments.design.perturbations import P3, PERTURBATIONS, check, describe, grid, perturb

NAMES = [name for name in PERTURBATIONS.names() if name != "pgd"]
GRADED = [name for name in NAMES if name != "benign"]
NEUTRAL = {"benign": 0, "resize": 1, "blur": 0, "noise": 0, "crop": 1, "social": 0, "screenshot": 0}


@pytest.fixture(scope="module")
def smooth():
    """Eight coloured waves of 64 pixels: nothing in them is near the edge of what a change keeps."""
    y, x = np.mgrid[:64, :64] / 63
    waves = [
        np.stack([np.sin(3 * x + phase), np.cos(2 * y + phase), np.sin(2 * x + 2 * y + phase)], -1)
        for phase in range(8)
    ]
    return np.clip(128 + 90 * np.array(waves), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces():
    return np.stack([toyface(seed, 32) for seed in range(6)])


def _psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_the_protocol_has_all_that_was_asked_for():
    assert {"jpeg", "webp", "resize", "blur", "noise", "crop", "colour", "social", "screenshot"} == set(
        GRADED
    )
    assert all(describe(name) and len(grid(name)) >= 4 for name in [*GRADED, "pgd"])
    assert grid("benign") == (1.0,), "an edit is there or not"


@pytest.mark.parametrize("name", GRADED)
def test_stronger_is_further_from_the_original(name, smooth):
    psnr = [_psnr(smooth, perturb(smooth, name, strength)) for strength in grid(name)]
    assert all(b < a for a, b in zip(psnr, psnr[1:], strict=False)), psnr
    assert 10 < psnr[-1] < psnr[0] < 70


@pytest.mark.parametrize("name", NAMES)
def test_no_strength_is_the_identity(name, faces):
    same = perturb(faces, name, None)
    assert np.array_equal(same, faces) and same is not faces
    if name in NEUTRAL:
        assert np.array_equal(perturb(faces, name, NEUTRAL[name]), faces)


def test_no_change_of_colours_is_the_identity_up_to_rounding(faces):
    assert np.abs(perturb(faces, "colour", 0.0).astype(int) - faces).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_depends_on_itself_and_its_number_alone(name, faces):
    before = faces.copy()
    strength = grid(name)[-1]
    whole = perturb(faces, name, strength, seed=5)
    assert whole.shape == faces.shape and whole.dtype == np.uint8 and np.array_equal(faces, before)
    assert np.array_equal(whole, perturb(faces, name, strength, seed=5))
    assert np.array_equal(whole[2:4], perturb(faces[2:4], name, strength, seed=7))
    drawn = name in ("benign", "noise", "crop", "colour", "social", "screenshot")
    assert np.array_equal(whole, perturb(faces, name, strength, seed=6)) is not drawn


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_compression_is_that_of_real_encoders(codec, faces):
    buffer = io.BytesIO()
    Image.fromarray(faces[0]).save(buffer, codec, quality=50, **({"method": 0} if codec == "webp" else {}))
    assert np.array_equal(perturb(faces[:1], codec, 50)[0], np.asarray(Image.open(buffer).convert("RGB")))


def test_noise_and_blur_are_as_strong_as_they_say():
    flat = np.full((4, 64, 64, 3), 128, np.uint8)
    assert perturb(flat, "noise", 10).astype(float).std() == pytest.approx(10, rel=0.05)
    point = np.zeros((1, 33, 33, 3), np.uint8)
    point[0, 16, 16] = 255
    weights = perturb(point, "blur", 1.5)[0, :, :, 0].astype(float)
    spread = (weights.sum(0) * (np.arange(33) - 16) ** 2).sum() / weights.sum()
    assert spread**0.5 == pytest.approx(1.5, rel=0.1)


def test_a_crop_is_part_of_the_picture():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None] * 4, (20, 64, 64, 3)).copy()
    cut = perturb(ramp, "crop", 0.5)[:, 32, :, 0].astype(float)
    assert (cut[:, -8] - cut[:, 8]) == pytest.approx(np.full(20, 48 * 4 * 0.5), abs=4)  # twice as large
    assert len(np.unique(cut[:, 0])) > 5  # not always the same part


def test_colours_of_a_lost_profile_are_those_of_the_primaries():
    """P3 from its definition: chromaticities of both sets of primaries, and D65."""

    def to_xyz(primaries):
        xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return xyz * np.linalg.solve(xyz, white)

    srgb = to_xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])
    display = to_xyz([(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)])
    assert np.linalg.inv(display) @ srgb == pytest.approx(P3, abs=2e-5)
    grey = np.full((1, 32, 32, 3), 128, np.uint8)
    shot = perturb(grey, "screenshot", 1.0, seed=3).astype(int)
    assert np.ptp(shot) <= 2  # grey stays grey, whatever the gamma


def test_hue_turns_by_a_tenth_at_most():
    red = np.zeros((40, 16, 16, 3), np.uint8)
    red[..., 0], red[..., 1:] = 160, 40
    hues = [cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[0, 0, 0] * 2.0 for image in perturb(red, "colour", 1.0)]
    turned = np.minimum(hues, 360 - np.array(hues))
    assert 15 < turned.max() <= 38


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("jpg", 50, "did you mean 'jpeg'"),
        ("jpeg", 20, "strength 20: give a whole number from 30 to 100"),
        ("jpeg", 50.5, "strength 50.5: give a whole number"),
        ("noise", float("nan"), "strength nan"),
        ("social", 1.5, "whole number"),
        ("pgd", 2, "pgd asks the detector"),
    ],
)
def test_what_there_is_not_is_refused(name, strength, expected, faces):
    with pytest.raises(UserError, match=expected):
        perturb(faces, name, strength)
    if name != "pgd":
        with pytest.raises(UserError, match=expected):
            check(name, strength)


@pytest.mark.parametrize("images", [np.zeros((2, 16, 16, 3)), np.zeros((2, 16, 12, 3), np.uint8)])
def test_pictures_of_another_kind_are_refused(images):
    with pytest.raises(UserError, match="square uint8 pictures"):
        perturb(images, "blur", 1)


def test_native_pictures_come_back_in_their_own_shapes():
    pictures = [np.random.default_rng(k).integers(0, 255, (24 + k, 40, 3), np.uint8) for k in range(2)]
    for name in NAMES:
        changed = perturb(pictures, name, grid(name)[-1])
        assert [image.shape for image in changed] == [(24, 40, 3), (25, 40, 3)], name
        assert all(image.dtype == np.uint8 for image in changed)
    assert np.array_equal(perturb(pictures, "jpeg", None)[1], pictures[1])
