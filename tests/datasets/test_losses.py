import csv
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.geometry import TOO_CLOSE
from crossfake.datasets.losses import (
    COLUMNS,
    Loss,
    differ,
    keeping_margin,
    losses_of,
    read_skipped,
    shares,
    warnings_of,
)
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet


def shards(
    folder: Path, kept: list[tuple[str, int]], lines: list[list[object]], **attributes: object
) -> ShardSet:
    with ShardWriter(folder, 8, attributes=attributes) as writer:
        for origin, label in kept:
            writer.append(np.zeros((8, 8, 3), np.uint8), Row(label, "x", origin=origin))
    if lines:
        with open(folder / "skipped.csv", "w", newline="") as file:
            csv.writer(file).writerows(lines)
    return ShardSet(folder)


def test_losses_are_counted_by_class_and_picture(tmp_path: Path) -> None:
    kept = [("a.png", 0), ("b.png", 0), ("v.mp4#frame=000001", 1), ("v.mp4#frame=000009#face=1", 1)]
    lines = [
        list(COLUMNS),
        ["c.png", TOO_CLOSE, "", "real", 0.9],
        ["d.png", "no face", "", "real", ""],
        ["v.mp4#frame=000005", TOO_CLOSE, "", "fake", 1.2],
        ["w.mp4", "unreadable", "cut short", "fake", ""],
        ["x.png", "unreadable", "", "", "no number"],
    ]
    found = losses_of(shards(tmp_path / "set", kept, lines))
    assert found is not None
    assert (found["real"].records, found["real"].lost, found["real"].margins) == (4, 2, (0.9,))
    # a third of one video's frames, and the whole of the other
    assert found["fake"].records == 2 and found["fake"].lost == pytest.approx(1 / 3 + 1)
    assert (found[""].records, found[""].lost) == (1, 1)
    assert found["fake"].reasons == {TOO_CLOSE: 1, "unreadable": 1}
    assert losses_of(shards(tmp_path / "made", kept, [])) is None  # nobody kept count


def test_lists_of_before_there_were_classes_count_where_there_is_one(tmp_path: Path) -> None:
    old = [["file", "reason", "detail"], ["c.png", TOO_CLOSE, ""], ["d.png", "no face", ""], ["e.png", "no"]]
    one = shards(tmp_path / "one", [("a.png", 1)], old)
    assert read_skipped(one.path) == [["c.png", TOO_CLOSE, "", "", ""], ["d.png", "no face", "", "", ""]]
    assert losses_of(one)["fake"].share == pytest.approx(2 / 3)  # type: ignore[index]
    both = losses_of(shards(tmp_path / "both", [("a.png", 1), ("b.png", 0)], old))
    assert both is not None and both["real"].lost == both["fake"].lost == 0 and both[""].lost == 2


def test_shards_made_of_shards_inherit_what_was_lost(tmp_path: Path) -> None:
    kept = [(f"{number}.png", 0) for number in range(10)]
    lines = [list(COLUMNS), *([f"gone {number}", "no face", "", "real", ""] for number in range(30))]
    first = losses_of(shards(tmp_path / "a", kept, lines))
    assert shares(first) == {"real": 0.75}
    again = losses_of(shards(tmp_path / "b", kept, lines[:11], lost=shares(first)))
    assert again is not None and again["real"].share == pytest.approx(1 - 0.25 * 0.5)
    assert shares(None) == {}


def test_the_margin_named_keeps_nineteen_of_twenty() -> None:
    margins = np.linspace(0.5, 1.29, 100)
    named = keeping_margin(list(margins))
    assert named == 0.5 and (margins >= named).mean() >= 0.95
    assert keeping_margin([0.7, 0.95] + [1.2] * 98) == 1.2
    assert keeping_margin([]) is None and keeping_margin([0.2] * 9) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((589, 573), (700, 0), True),
        ((1000, 60), (1000, 20), False),
        ((5, 1), (5, 0), False),
        ((9, 9), (0, 0), False),
    ],
)
def test_classes_differ_by_more_than_a_twentieth_and_chance(
    one: tuple[int, int], other: tuple[int, int], expected: bool
) -> None:
    assert differ(Loss(*one), Loss(*other)) == differ(Loss(*other), Loss(*one)) == expected


def test_what_is_said(tmp_path: Path) -> None:
    kept = [(f"{number}.png", number % 2) for number in range(40)]
    lost = [[f"gone {number}", TOO_CLOSE, "", "real", 0.93] for number in range(20)]
    said = warnings_of(losses_of(shards(tmp_path / "a", kept, [list(COLUMNS), *lost])) or {})
    assert said[0] == f'warning: 50% of the reals and 0% of the fakes were left out, mostly for "{TOO_CLOSE}"'
    assert "--margin 0.9 would keep 95% of these 20" in said[-1] and "--edge reflect" in said[-1]
    one = shards(tmp_path / "b", kept[::2], [list(COLUMNS), *[["x", "no face", "", "real", ""]] * 3])
    assert warnings_of(losses_of(one) or {}) == []  # three lines of one picture
    lines = [list(COLUMNS), *([f"x{number}", "no face", "", "real", ""] for number in range(3))]
    said = warnings_of(losses_of(shards(tmp_path / "c", kept[::2], lines)) or {})
    assert said[0].startswith("warning: 13% of the source was left out") and "margin" not in " ".join(said)
    assert warnings_of({}) == []
