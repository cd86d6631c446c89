import numpy as np
import pytest

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training import benign
from crossfake.detect.training.benign import KINDS, RANDOMS, Kind, edit, edited


def _face(size: int = 64, noise: float = 4.0) -> np.ndarray:
    face = toyface(3, size).astype(float) + noise * np.random.default_rng(0).standard_normal((size, size, 3))
    return np.clip(np.rint(face), 0, 255).astype(np.uint8)


def _rough(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [False, True])
def test_an_edit_changes_a_picture_and_leaves_it_recognisable(kind: Kind, whole: bool) -> None:
    face = _face()
    before = face.copy()
    for ends in (np.zeros(RANDOMS), np.full(RANDOMS, 1 - 1e-9)):
        out = edit(face, kind, ends, whole=whole)
        assert out.shape == face.shape and out.dtype == np.uint8
        change = out.astype(float) - face
        # curves may move all levels: what is left beside a shift of each channel's mean has to be small
        rest = change - change.mean((0, 1)) if kind == "tone" else change
        assert np.abs(change).mean() > 0.1 and np.abs(rest).mean() < 20
    assert np.array_equal(face, before)


def test_smoothing_takes_roughness_and_sharpening_adds_some() -> None:
    face, u = _face(), np.full(RANDOMS, 0.5)
    assert _rough(edit(face, "denoise", u)) < _rough(face)
    assert _rough(edit(face, "beautify", u)) < _rough(face)
    assert _rough(edit(face, "sharpen", u)) > _rough(face)


def test_tone_curves_rise_and_keep_black() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(50):
        out = edit(ramp, "tone", np.random.default_rng(seed).random(RANDOMS)).astype(int)
        assert (np.diff(out, axis=1) >= 0).all() and not out[0, 0].any() and out[0, -1].min() >= 239


def test_a_messenger_makes_photos_smaller_but_no_parts_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = np.zeros((300, 2000, 3), np.uint8)
    sides = {edit(photo, "messenger", np.full(RANDOMS, v), whole=True).shape for v in (0.0, 0.4, 0.9)}
    assert sides == {(240, 1600, 3), (192, 1280, 3), (144, 960, 3)}
    assert edit(photo, "messenger", np.zeros(RANDOMS)).shape == photo.shape
    qualities: list[int] = []
    monkeypatch.setattr(benign, "window_coded", lambda image, codec, q, *_: (qualities.append(q), image)[1])
    edit(photo, "messenger", np.zeros(RANDOMS))
    edit(photo, "messenger", np.full(RANDOMS, 1 - 1e-9))
    assert qualities == [70, 70, 85]  # forwarded, and not


def test_a_batch_and_its_partners_are_edited_alike() -> None:
    images = np.stack([_face(noise=4 + n) for n in range(12)])
    one, two = (edited(images, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, two) and one.shape == images.shape and one.dtype == np.uint8
    assert all(not np.array_equal(a, b) for a, b in zip(one, images, strict=True))
    same = np.repeat(images[:1], 2, axis=0)
    partner = edited(np.stack([images[3], images[0]]), np.random.default_rng(5))
    assert np.array_equal(edited(same, np.random.default_rng(5))[1], partner[1])
    photo = images[0, :48]
    assert edited(photo, np.random.default_rng(1)).shape == photo.shape
