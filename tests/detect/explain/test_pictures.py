import numpy as np
import pytest

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.explain.pictures import overlay, spectrum_panels, strengths
from crossfake.detect.explain.spectrum import log_spectrum


@pytest.mark.parametrize("kind", ["signed", "positive", "attention"])
def test_an_overlay_colours_what_speaks_for_fake(kind: str) -> None:
    face = toyface(0, 32)
    chart = np.zeros((32, 32), np.float32)
    chart[:16] = 2
    if kind == "signed":
        chart[16:] = -2
    laid = overlay(face, chart, kind)
    assert laid.shape == face.shape and laid.dtype == np.uint8
    numbers = strengths(chart, kind)
    assert numbers.max() == 1 and numbers.min() == (-1 if kind == "signed" else 0)
    if kind != "attention":  # orange above; below purple, or the grey face
        assert (laid[:16, :, 0] > laid[:16, :, 2]).all()
        gray = laid[16:].astype(int)
        assert (gray[..., 2] > gray[..., 1]).all() if kind == "signed" else (gray.max(2) == gray.min(2)).all()


def test_a_map_of_nothing_is_the_grey_face() -> None:
    laid = overlay(toyface(0, 32), np.zeros((32, 32), np.float32), "signed")
    assert (laid.max(2) == laid.min(2)).all()
    assert not strengths(np.zeros((32, 32), np.float32), "signed").any()


def test_spectrum_panels() -> None:
    spectrum = log_spectrum(toyface(0, 32))
    assert spectrum_panels(spectrum).shape == (32, 32, 3)
    both = spectrum_panels(spectrum, np.full((32, 32), 4.0))
    assert both.shape == (32, 66, 3) and (both[:, :32] == spectrum_panels(spectrum)).all()
    assert (both[:, 34:, 0] > both[:, 34:, 2]).all()
    assert spectrum_panels(np.zeros((32, 32))).shape == (32, 32, 3)
