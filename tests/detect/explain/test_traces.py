import io

import numpy as np
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.explain import traces
from crossfake.detect.explain.traces import ERROR_LEVELS, NOISE, error_levels, noise, trace_maps


def test_a_place_that_was_never_compressed_stands_out_in_error_levels() -> None:
    """What the method was made for: a patch put into a picture that had been saved as JPEG before."""
    rng = np.random.default_rng(0)
    texture = (128 + 30 * rng.standard_normal((256, 256, 3))).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(texture).save(out, "JPEG", quality=traces.QUALITY)
    saved = np.asarray(Image.open(out)).copy()
    saved[96:160, 96:160] = texture[96:160, 96:160]
    found = error_levels(saved).astype(float)
    inside, outside = found[104:152, 104:152].mean(), found[:80].mean()
    assert inside > 2 * outside


def test_a_smoothed_place_is_dark_in_the_noise() -> None:
    rng = np.random.default_rng(1)
    picture = (128 + 12 * rng.standard_normal((128, 128, 3))).clip(0, 255).astype(np.uint8)
    picture[40:80, 40:80] = 128
    found = noise(picture)
    assert found.shape == (128, 128) and found[50:70, 50:70].max() < 0.1 < 2 < found[:30].mean()


def test_maps_are_small_grey_and_say_how_they_mislead() -> None:
    both = trace_maps(toyface(0, 1000))
    assert [each.name for each in both] == ["error levels", "noise"]
    for each in both:
        assert (
            each.picture is not None
            and each.picture.shape == (800, 800, 3)
            and each.picture.dtype == np.uint8
        )
        assert (each.picture[..., 0] == each.picture[..., 2]).all() and "every picture" in each.words
    assert "no sign of an edit" in ERROR_LEVELS and "asks a question" in NOISE
    black = trace_maps(np.zeros((1, 3, 3), np.uint8))
    assert all(each.picture is not None and each.picture.max() == 0 for each in black)


def test_none_of_a_huge_picture() -> None:
    assert trace_maps(np.broadcast_to(np.uint8(0), (6000, 5000, 3))) == ()
