import io

import cv2
import numpy as np
import pytest
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training.augmentation import (
    blurred,
    coded,
    cropped,
    mirrored,
    noised,
    resampled,
    rescaled,
    shared,
    sharpened,
    window_coded,
)


def _image(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 2.0])
def test_blur_equals_kornias(sigma: float) -> None:
    image = _image()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = gaussian_blur2d(tensor, (13, 13), (sigma, sigma))[0].permute(1, 2, 0).round().numpy()
    assert np.abs(blurred(image, sigma, strongest=2.0).astype(float) - theirs).max() <= 1


def test_jpeg_is_a_real_jpeg() -> None:
    buffer = io.BytesIO()
    Image.fromarray(_image()).save(buffer, "JPEG", quality=60)
    assert np.array_equal(coded(_image(), "JPEG", 60), np.asarray(Image.open(buffer)))
    for codec in ("JPEG", "WEBP"):
        errors = [np.abs(coded(_image(), codec, q).astype(float) - _image()).mean() for q in (30, 60, 95)]
        assert errors[0] > errors[1] > errors[2]


def test_mirrored_and_cropped_take_what_they_are_told() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    out = mirrored(images, np.array([True, False]))
    assert np.array_equal(out[0], images[0, :, ::-1]) and np.array_equal(out[1], images[1])
    cut = cropped(images, 2, np.array([[0.0, 0.0], [0.999, 1.0]]))
    assert np.array_equal(cut[0], images[0, :2, :2]) and np.array_equal(cut[1], images[1, 2:, 2:])


def test_resampling_loses_detail_and_noise_and_sharpening_add_some() -> None:
    face = toyface(3, 64)

    def rough(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(float), axis=1)).mean())

    assert all(rough(resampled(face, 0.4, way)) < rough(face) for way in (0.0, 0.4, 0.999))
    assert np.array_equal(resampled(face, 1.0, 0.0), face)
    assert rough(sharpened(face, 0.5)) > rough(face)
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert abs(noised(flat, 8.0, 1).astype(float).std() - 8.0) < 0.3
    assert np.array_equal(noised(flat, 8.0, 1), noised(flat, 8.0, 1))
    assert not np.array_equal(noised(flat, 8.0, 1), noised(flat, 8.0, 2))


def test_the_chain_of_a_social_network_keeps_the_picture_recognisable() -> None:
    face = toyface(5, 64)
    for seed in range(5):
        out = shared(face, np.random.default_rng(seed).random(5))
        assert out.shape == face.shape and out.dtype == np.uint8
        assert 0.2 < np.abs(out.astype(float) - face).mean() < 12


def test_a_window_is_rescaled_without_changing_its_size_and_cut_where_it_is_told() -> None:
    face = toyface(2, 64)
    assert rescaled(face, 1.0, np.zeros(3)) is face
    for scale in (0.6, 0.8, 1.25, 1.5):
        corners = [rescaled(face, scale, np.array([0.5, *place])) for place in ((0, 0), (0.999, 1.0))]
        whole = cv2.resize(face, (round(64 * scale),) * 2, interpolation=cv2.INTER_LINEAR)
        n = min(64, len(whole))
        assert corners[0].shape == face.shape and corners[0].dtype == np.uint8
        assert np.array_equal(corners[0][:n, :n], whole[:n, :n])
        assert np.array_equal(corners[1][-n:, -n:], whole[-n:, -n:])


def test_the_grid_of_a_window_that_was_compressed_begins_where_it_is_told() -> None:
    face = toyface(4, 64)
    assert np.array_equal(window_coded(face, "JPEG", 60, 0, np.zeros(2)), coded(face, "JPEG", 60, 0))
    shifted = window_coded(face, "JPEG", 60, 0, np.array([3.5, 5.5]) / 16)
    larger = cv2.copyMakeBorder(face, 3, 0, 5, 0, cv2.BORDER_REFLECT_101)
    assert shifted.shape == face.shape
    assert np.array_equal(shifted, coded(np.asarray(larger), "JPEG", 60, 0)[3:, 5:])
    colours = [coded(face, "JPEG", 90, way).astype(float) for way in (0, 2)]
    assert np.abs(colours[0] - face).mean() < np.abs(colours[1] - face).mean()
