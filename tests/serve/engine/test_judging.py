from pathlib import Path

import numpy as np
import pytest

from crossfake.detect.prediction.media import Input, Look, Media
from crossfake.detect.verdict import Verdict
from crossfake.errors import UserError
from crossfake.serve.engine.judging import limited, load_detectors, same_face, side_by_side, together
from crossfake.serve.engine.results import ENSEMBLE


def said(
    verdict: str, probability: float, low: float | None = 0.1, high: float | None = 0.9, *codes: str
) -> Verdict:
    return Verdict(probability, probability, low, high, verdict, probability, codes)


def test_the_ensemble_is_the_mean() -> None:
    found = together(
        [said("fake", 0.9, 0.8, 1.0, "blurred"), said("fake", 0.7, 0.5, 0.8, "blurred")], [0.5, 0.6]
    )
    assert (found.probability, found.low, found.high) == pytest.approx((0.8, 0.65, 0.9))
    assert found.verdict == "fake" and found.reasons == ("blurred",) and found.novelty == 0.9


@pytest.mark.parametrize(
    ("opinions", "verdict"),
    [
        ([said("fake", 0.9), said("real", 0.3)], "uncertain"),
        ([said("fake", 0.9), said("uncertain", 0.8)], "uncertain"),
        ([said("fake", 0.9), said("fake", 0.9), said("uncertain", 0.5)], "fake"),
        ([said("real", 0.4), said("uncertain", 0.9), said("real", 0.4)], "uncertain"),  # mean 0.57
        ([said("real", 0.1), said("real", 0.2)], "real"),
    ],
)
def test_the_ensemble_abstains_when_torn(opinions: list[Verdict], verdict: str) -> None:
    found = together(opinions, [0.5] * len(opinions))
    assert found.verdict == verdict
    assert ("detectors-disagree" in found.reasons) == (
        {"real", "fake"} <= {each.verdict for each in opinions}
    )


def test_an_uncalibrated_member_leaves_no_interval() -> None:
    assert together([said("real", 0.1), said("real", 0.1, None, None)], [0.5, 0.5]).low is None


def test_faces_are_known_again() -> None:
    boxes = [(0, 0, 10, 10), (50, 50, 10, 10)]
    assert same_face((51, 50, 10, 10), boxes) == 1 and same_face((20, 20, 10, 10), boxes) is None
    assert (
        same_face(None, boxes) == 0 and same_face((9, 9, 9, 9), [None]) == 0 and same_face(None, []) is None
    )


def test_no_more_faces_than_the_limit() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    media = Media(Input("x"), looks=tuple(Look(pixel, (n, 0, 5, 5), person=n) for n in range(5)))
    kept = limited(media, 3)
    assert [look.person for look in kept.looks] == [0, 1, 2] and len(kept.missed) == 2
    assert limited(media, 5) is media
    people = [0, 1, 1, 2, 2, 2]
    video = Media(Input("x"), "video", looks=tuple(Look(pixel, None, n, p) for n, p in enumerate(people)))
    assert [look.person for look in limited(video, 2).looks] == [1, 1, 2, 2, 2]


def test_names_are_of_runs_and_differ(bundle: Path, second: Path) -> None:
    made = load_detectors([bundle, bundle / "model", second], "cpu", None)
    assert [seat.name for seat in made] == ["small", "small-2", "other"]
    assert list(side_by_side({"small": said("real", 0.1)}, made)) == ["small", ENSEMBLE]
    assert list(side_by_side({"small": said("real", 0.1)}, made[:1])) == ["small"]
    with pytest.raises(UserError, match="no detector"):
        load_detectors([], "cpu", None)
