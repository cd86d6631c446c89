import cv2
import numpy as np
import torch

from crossfake.synth.families.matching import match_spectrum
from crossfake.synth.quality.spectrum import radial_spectrum


def _photo(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    """Noise that is weaker the finer it is, as photos are."""
    rng = np.random.default_rng(seed)
    parts = [cv2.resize(rng.normal(0, 40, (8 * 2**k, 8 * 2**k, 3)), (width, height)) / 2**k for k in range(4)]
    return np.clip(128 + np.sum(parts, axis=0) + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(
        np.uint8
    )


def _decibels(image: np.ndarray) -> np.ndarray:
    return radial_spectrum(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0]


def test_a_blurred_photo_has_its_spectrum_again() -> None:
    photo = _photo(0)
    blurred = cv2.GaussianBlur(photo, (0, 0), 0.6)
    matched = match_spectrum(blurred, photo)
    before, after = (np.abs(_decibels(x) - _decibels(photo)) for x in (blurred, matched))
    strong = before < 9  # what the strongest gain reaches
    assert before[strong].max() > 4 and after[strong].max() < 1.5 and (after <= before + 0.5).all()
    assert matched.shape == photo.shape and matched.dtype == np.uint8


def test_a_sharpened_one_too_and_a_photo_stays_what_it_is() -> None:
    photo = _photo(1, 80, 112)
    assert np.array_equal(match_spectrum(photo, photo), photo)
    sharp = cv2.addWeighted(photo, 1.5, cv2.GaussianBlur(photo, (0, 0), 1.0), -0.5, 0)
    before, after = (
        np.abs(_decibels(x[:80, :80]) - _decibels(photo[:80, :80])).mean()
        for x in (sharp, match_spectrum(sharp, photo))
    )
    assert after < before / 3


def test_the_lattice_of_a_decoder_stays() -> None:
    """A peak is no matter of sharpness: the filter is smooth, and the same in all directions."""
    photo = _photo(2)
    fake = photo.astype(float) + 6 * (np.indices((96, 96)).sum(0) % 2)[..., None]
    matched = match_spectrum(np.clip(fake, 0, 255).astype(np.uint8), photo).astype(float).mean(-1)
    power = np.abs(np.fft.fft2(matched - matched.mean())) ** 2
    assert power[48, 48] > 20 * np.median(power[44:53, 44:53])


def test_flat_pictures_stay_finite() -> None:
    flat = np.full((24, 40, 3), 200, np.uint8)
    assert np.array_equal(match_spectrum(flat, flat), flat)
    assert match_spectrum(flat, _photo(3, 24, 40)).std() < 1
