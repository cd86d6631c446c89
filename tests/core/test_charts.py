"""Charts of lines, as every page draws them."""

import re

import pytest

from crossfake.charts import SIDE, Panel, Series, drawn, nice_ticks
from crossfake.pages import environment


def _panel(**changed) -> Panel:
    line = Series(
        "a <b>", (0.0, 1.0, 2.0), (0.5, 0.7, 0.6), (0.4, 0.6, 0.5), (0.6, 0.8, 0.7), ((0.5, 0.6, 0.7),)
    )
    shape = {"series": (line,), "ticks": nice_ticks(0, 2, 3), "limits": ((0.0, 2.0), (0.4, 0.8))}
    return Panel("title", "about", "x", "y", **(shape | changed))


@pytest.mark.parametrize("square", [False, True])
def test_all_that_is_drawn_is_within_the_frame(square: bool) -> None:
    chart = drawn(_panel(square=square))
    (line,) = chart["lines"]
    for path in (line["path"], line["band"].removesuffix("Z"), *line["thin"]):
        for pair in path.removeprefix("M").split("L"):
            x, y = map(float, pair.split())
            assert 0 <= x <= SIDE and 0 <= y <= chart["height"]
    assert chart["height"] == (SIDE if square else 168) and len(line["dots"]) == 3


def test_a_flat_line_of_one_value_is_drawn() -> None:
    flat = Series("flat", (0.0, 1.0), (0.3, 0.3))
    chart = drawn(_panel(series=(flat,), limits=((0.0, 1.0), (0.3, 0.3))))
    assert chart["lines"][0]["path"].count("L") == 1 and "nan" not in chart["lines"][0]["path"]


def test_ticks_are_round_unless_given() -> None:
    assert [label for _, label in drawn(_panel())["y_ticks"]] == ["0.4", "0.5", "0.6", "0.7", "0.8"]
    assert drawn(_panel(y_ticks=()))["y_ticks"] == []
    assert drawn(_panel(y_ticks=((0.6, "middle"),)))["y_ticks"] == [(84.0, "middle")]


def test_a_line_without_a_name_has_no_legend() -> None:
    chart = environment().get_template("chart.html").module.chart
    named, unnamed = (
        str(chart(drawn(_panel(series=(Series(name, (0.0, 2.0), (0.5, 0.6)),))))) for name in ("a <b>", "")
    )
    assert "a &lt;b&gt;</li>" in named and "<li " not in unnamed
    assert len(re.findall('class="curve line0', named)) == 2 and 'class="band"' not in named
