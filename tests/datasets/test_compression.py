import io

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.compression import Jpeg, as_jpeg, find_jpeg
from crossfake.datasets.types import Pixels


def _photo(seed: int, height: int = 168, width: int = 184) -> Pixels:
    """Noise that is weaker the finer it is, as photos are."""
    rng = np.random.default_rng(seed)
    parts = [cv2.resize(rng.normal(0, 40, (8 * 2**k, 8 * 2**k, 3)), (width, height)) / 2**k for k in range(5)]
    return np.clip(128 + np.sum(parts, axis=0), 0, 255).astype(np.uint8)


def _saved(image: Pixels, quality: int, subsampling: int = 2) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize(
    ("quality", "top", "left"), [(35, 0, 0), (50, 3, 9), (60, 15, 1), (75, 8, 0), (75, 5, 12), (86, 0, 7)]
)
def test_quality_and_blocks_of_a_cropped_jpeg_are_found(quality: int, top: int, left: int) -> None:
    for seed in range(3):
        part = np.ascontiguousarray(_saved(_photo(seed), quality)[top:, left:])
        found = find_jpeg(part)
        assert found is not None and abs(found.quality - quality) <= 1
        assert (found.top, found.left) == (-top % 16, -left % 16)


def test_what_was_no_jpeg_or_was_resized_since_has_none() -> None:
    photo = _photo(0)
    assert find_jpeg(photo) is None
    assert find_jpeg(cv2.resize(_saved(photo, 75), None, fx=0.8, fy=0.8)) is None
    assert find_jpeg(np.full((64, 64, 3), 90, np.uint8)) is None
    assert find_jpeg(photo[:30, :30]) is None


def test_a_picture_as_if_it_were_that_jpeg_has_it_and_one_that_was_stays_nearly_itself() -> None:
    jpeg = Jpeg(70, 5, 11)
    made = as_jpeg(_photo(1), jpeg)
    assert made.shape == (168, 184, 3) and made.dtype == np.uint8 and find_jpeg(made) == jpeg
    assert np.abs(as_jpeg(made, jpeg).astype(int) - made)[16:, 16:].mean() < 0.5
    whole = _photo(2)
    assert np.array_equal(as_jpeg(whole, Jpeg(80, 0, 0)), _saved(whole, 80))
    assert np.array_equal(as_jpeg(whole[..., 0], Jpeg(80, 0, 0)), _saved(whole[..., 0], 80, 0))
