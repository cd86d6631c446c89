import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.prediction.media import Input, Look, Media, open_picture
from crossfake.detect.verdict import Verdict
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.results import FaceAnalysis, StabilityPoint
from crossfake.serve.engine.stability import (
    STEPS,
    Step,
    changed,
    is_unstable,
    least_side,
    steady_words,
    strips,
)

PICTURE = toyface(3, 64)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_steps_are_what_they_say(step: Step) -> None:
    image, out = Image.fromarray(PICTURE), io.BytesIO()
    if step.transform in ("JPEG", "WebP"):
        image.save(out, step.transform, quality=int(step.strength))
        expected = np.asarray(Image.open(out).convert("RGB"))
    elif step.transform == "resize":
        side = round(64 * step.strength)
        expected = np.asarray(
            image.resize((side, side), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
        )
    else:
        expected = np.asarray(image.filter(ImageFilter.GaussianBlur(step.strength)))
    found = decode_image(changed(PICTURE, step))
    assert found.shape == PICTURE.shape and (found == expected).all() and (found != PICTURE).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2)])
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    assert all(decode_image(changed(picture, step)).shape == picture.shape for step in STEPS)


def test_a_strip_is_what_each_file_would_score(both: Analyser) -> None:
    loaded = both._loaded
    crop = np.zeros((16, 16, 3), np.uint8)
    names = [each.name for each in loaded]
    face = FaceAnalysis(0, None, {name: Verdict(0.5, 0.5, None, None, "real") for name in names}, crop)
    said: list[float] = []

    def cut(content: bytes, cropper: Cropper) -> Media:
        return open_picture(Input("x"), content, cropper)

    strip = strips(PICTURE, [face], loaded, cut, lambda share, what: said.append(share))[0]
    assert [point.transform for point in strip] == ["as sent", *(step.transform for step in STEPS)]
    detector = loaded[0].detector
    for point, step in zip(strip[1:], STEPS, strict=True):
        crop = detector.crop(decode_image(changed(PICTURE, step)))
        (expected,) = detector.say(detector.judge(crop[None]))
        assert point.per_detector == dict.fromkeys(names, pytest.approx(expected.probability))
        assert point.probability == pytest.approx(expected.probability) and point.score is not None
        assert point.verdict == expected.verdict
    assert said == sorted(said)


def test_a_face_that_is_lost_has_no_point(both: Analyser) -> None:
    face = FaceAnalysis(0, (0, 0, 9, 9), {"small": Verdict(0.5, 0.5, None, None, "real")}, PICTURE)
    strip = strips(PICTURE, [face], both._loaded, lambda *_: Media(Input("x")), lambda *_: None)[0]
    assert all(point.probability is None and point.verdict == "not judged" for point in strip[1:])
    assert is_unstable(strip)


def test_unstable_is_a_mild_change_that_makes_another_answer() -> None:
    def strip(sent: str = "fake", **turned: str) -> list[StabilityPoint]:
        points = [
            StabilityPoint(
                s.transform, s.strength, 0.9, verdict=turned.get(f"{s.transform}{s.strength:g}", sent)
            )
            for s in STEPS
        ]
        return [StabilityPoint("as sent", 0, 0.9, verdict=sent), *points]

    assert not is_unstable(strip()) and "stays the same" in steady_words(strip())
    turned, mild = strip(JPEG85="uncertain"), strip(JPEG30="real", blur1="uncertain")
    assert is_unstable(turned) and "does not hold: it is another after JPEG 85" in steady_words(turned)
    assert not is_unstable(mild) and "holds after mild changes" in steady_words(mild)
    unsure = strip("uncertain", JPEG30="fake")
    assert not is_unstable(unsure) and "no answer to hold" in steady_words(unsure)
    assert "turn it into fake" in steady_words(unsure) and "holds" not in steady_words(unsure)
    assert steady_words(strip("no reliable answer")) == "" == steady_words([])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_of_a_large_picture_each_face_is_tested_with_its_surroundings(both: Analyser, scale: float) -> None:
    """The files that are judged are small, and the faces are found where they are."""
    boxes = [(300.0, 200.0, 240.0, 240.0), (2000.0, 1000.0, 900.0, 900.0)]
    picture = np.zeros((round(2400 * scale), round(4000 * scale), 3), np.uint8)
    for x, y, w, h in boxes:
        picture[round(y * scale) : round((y + h) * scale), round(x * scale) : round((x + w) * scale)] = 200
    sides: list[tuple[int, int]] = []

    def cut(content: bytes, cropper: Cropper) -> Media:
        found = decode_image(content)
        sides.append(found.shape[:2])
        rows, columns = (np.flatnonzero((found[..., 0] > 100).any(axis)) for axis in (1, 0))
        box = (float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
        return Media(Input("x"), looks=(Look(np.zeros((16, 16, 3), np.uint8), box),))

    opinions = {each.name: Verdict(0.5, 0.5, None, None, "real") for each in both._loaded}
    faces = [FaceAnalysis(n, box, opinions, np.zeros((16, 16, 3), np.uint8)) for n, box in enumerate(boxes)]
    if scale < 1:  # 2.4 megapixels: all of it, once
        whole = strips(picture, faces[1:], both._loaded, cut, lambda *_: None, scale)
        assert set(sides) == {picture.shape[:2]} and len(whole) == 1
        return
    found = strips(picture, faces, both._loaded, cut, lambda *_: None, scale)
    assert all(point.probability is not None for strip in found for point in strip)
    assert max(map(max, sides)) <= 1024


def test_a_copy_is_large_enough_for_the_smallest_face() -> None:
    assert least_side((8000, 6000), [(0, 0, 3000, 4000)], 96) == 768  # the face keeps 384 pixels
    assert (
        least_side((8000, 6000), [(0, 0, 3000, 4000), (0, 0, 300, 200)], 96) == 11520
    )  # more than there are
    assert least_side((8000, 6000), [None], 224) == 896
    assert least_side((8000, 6000), [(0, 0, 5000, 5000)], 16) == 512
