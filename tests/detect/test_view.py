from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.shards import ShardSet
from crossfake.detect.view import ALIGNED, View, Windows, joined
from crossfake.errors import UserError


def test_places_are_a_fixed_grid_from_the_middle_outwards() -> None:
    view = View("native", 16, 5)
    places = view.places((64, 48, 3))
    assert places[0].tolist() == [24, 16] and len(places) == 5
    assert np.array_equal(places, view.places((64, 48)))
    nine = view.places((64, 48), 9)
    assert {tuple(place) for place in nine.tolist()} == {(y, x) for y in (0, 24, 48) for x in (0, 16, 32)}
    assert np.array_equal(nine[:5], places)
    assert (view.places((64, 48), 25).max(0) == [48, 32]).all() and len(view.places((64, 48), 25)) == 25


def test_places_that_would_be_the_same_are_one() -> None:
    view = View("native", 16, 5)
    assert view.places((16, 16)).tolist() == [[0, 0]]
    assert view.places((16, 17), 9).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(UserError, match="15×40 is smaller than the window of 16"):
        view.places((15, 40))


def test_windows_are_averaged_by_image() -> None:
    windows = View("native", 16).cut([np.full((16, 16, 3), 7, np.uint8), np.zeros((32, 40, 3), np.uint8)], 3)
    assert windows.counts.tolist() == [1, 3] and windows.images.shape == (4, 16, 16, 3) and len(windows) == 2
    values = np.array([5.0, 1.0, 2.0, 6.0])
    assert windows.mean(values).tolist() == [5, 3]
    assert windows.error(values)[0] == 0 and windows.error(values)[1] == pytest.approx(
        np.std([1, 2, 6], ddof=1) / np.sqrt(3)
    )
    assert windows.mean(np.stack([values, values], 1)).shape == (2, 2)
    second = windows[1:2]
    assert len(second) == 1 and np.array_equal(second.images, windows.images[1:])
    both = joined([second, windows])
    assert isinstance(both, Windows) and both.counts.tolist() == [3, 1, 3]
    assert len(windows[:0]) == 0 and windows[:0].mean(np.empty(0)).shape == (0,)


def test_a_view_reads_windows_as_they_are_in_the_rows(native: tuple[Path, Path]) -> None:
    shards = ShardSet(native[0])
    view = View("native", 16, 5)
    windows, rows, damaged = view.read(shards, np.array([3, 8]))
    assert isinstance(windows, Windows) and rows.tolist() == [3, 8] and not damaged
    assert np.array_equal(windows.images, view.cut(shards.read_each([3, 8])).images)


def test_views_that_do_not_fit_are_one_line(native: tuple[Path, Path], real: Path) -> None:
    photos = ShardSet(native[0])
    with pytest.raises(UserError, match="native pixels, which an aligned view"):
        ALIGNED.check(photos)
    with pytest.raises(UserError, match="resized: a native view"):
        View("native", 16).check(ShardSet(real))
    count = int((photos.shapes.min(1) < 30).sum())
    with pytest.raises(
        UserError, match=rf"{count} images of .* are smaller than the window of 30.*--min-size 30"
    ):
        View("native", 30).check(photos)
    View("native", 30).check(photos, np.flatnonzero(photos.shapes.min(1) >= 30))
    with pytest.raises(UserError, match="no view 'nativ'"):
        View("nativ")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is damaged"):
        View.of_card({"view": {"pixel": "native"}})
    with pytest.raises(UserError, match=r"takes uint8 images \[H, W, 3\]"):
        View("native", 16).cut([np.zeros((20, 20), np.uint8)])
