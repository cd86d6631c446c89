import numpy as np

from crossfake.detect.evaluation.sheets import Judged, mistakes_sheet, predictions_sheet


def _judged(labels: list[int], scores: list[float], read: list[int] | None = None) -> Judged:
    def picture(place: int) -> np.ndarray:
        if read is not None:
            read.append(place)
        return np.full((40, 30, 3), place, np.uint8)

    names = np.array([f"a very long name of a source {k}" for k in range(len(labels))])
    return Judged(np.array(labels), np.array(scores), names, 0.5, picture)


def test_the_most_confident_mistakes_come_first_and_only_they_are_opened() -> None:
    opened: list[int] = []
    judged = _judged([0, 0, 0, 0, 1, 1, 1], [0.6, 0.9, 0.1, 0.5, 0.4, 0.2, 0.8], opened)
    assert judged.mistakes(0).tolist() == [1, 0, 3] and judged.mistakes(1).tolist() == [5, 4]
    sheet = mistakes_sheet(judged, most=2)
    assert sheet is not None and sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert opened == [1, 0, 5, 4]


def test_without_mistakes_there_is_no_sheet() -> None:
    assert mistakes_sheet(_judged([0, 1], [0.1, 0.9])) is None
    assert mistakes_sheet(_judged([0, 0], [0.1, 0.9])) is not None  # one class only


def test_the_random_sheet_is_the_same_for_the_same_seed() -> None:
    judged = _judged([0] * 20 + [1] * 3, [0.3] * 23)
    sheet = predictions_sheet(judged, most=8, seed=1)
    assert (sheet == predictions_sheet(judged, most=8, seed=1)).all()
    assert not np.array_equal(sheet, predictions_sheet(judged, most=8, seed=2))
    opened: list[int] = []
    predictions_sheet(_judged([0] * 20 + [1] * 3, [0.3] * 23, opened), most=8)
    assert len(opened) == 7 and sum(place >= 20 for place in opened) == 3


def test_mistakes_are_framed_on_the_random_sheet() -> None:
    right, wrong = (predictions_sheet(_judged([0], [score])) for score in (0.4, 0.6))
    assert (right[29 + 2, 4 + 40] == 255).all() or (wrong[29, 4 + 40] < 40).all()
    assert (wrong[29, 10:120] < 40).all() and not (right[29, 10:120] < 40).all(axis=-1).all()
