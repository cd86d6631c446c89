from pathlib import Path

import numpy as np
import pytest

from crossfake.detect.prediction.media import Input, Look, Media
from crossfake.errors import UserError
from crossfake.serve.engine.judging import limited, load_detectors, same_face


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
    assert [each.name for each in made] == ["small", "small-2", "other"]
    with pytest.raises(UserError, match="no detector"):
        load_detectors([], "cpu", None)
