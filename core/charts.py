"""Charts of lines: what one shows, and how every page draws it (``templates/chart.html``).

Figures for papers are matplotlib's drawings of the same panels. Pages have no such drawing inside: theirs takes the
reader's colours, and ``experiment verify`` compares it to the letter, whatever version of matplotlib is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIDE = 240  # of the unit square of a chart, in SVG units


@dataclass(frozen=True)
class Series:
    """One line: y over x, with a band (``low``, ``high``) or thin lines (``thin``, one per seed).

    Attributes:
        color: its place in the palette; the same condition has the same in every chart.
        dots: mark each of its points.
        joined: draw the line through them.
        symbol: of its marks: ``circle``, ``triangle`` or ``diamond``.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    thin: tuple[tuple[float, ...], ...] = ()
    color: int = 0
    dots: bool = True
    joined: bool = True
    symbol: str = "circle"


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        ticks: places and labels of the x axis.
        limits: of x and of y.
        note: a sentence below it.
        square: both axes are rates.
        y_ticks: places and labels of the y axis; round numbers unless given.
    """

    title: str
    about: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    limits: tuple[tuple[float, float], tuple[float, float]]
    note: str = ""
    square: bool = False
    y_ticks: tuple[tuple[float, str], ...] | None = None


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[tuple[float, str], ...]:
    """Round places within a range, at most ``most``.

    Example:
        >>> nice_ticks(0.0, 1.0, 3)
        ((0.0, '0'), (0.5, '0.5'), (1.0, '1'))
    """
    span = (high - low) or 1.0
    size = 10.0 ** np.floor(np.log10(span))
    steps = (scale * factor * size for scale in (0.1, 1, 10) for factor in (1, 2, 5))
    step = next(s for s in steps if np.floor(high / s + 1e-9) - np.ceil(low / s - 1e-9) < most)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return tuple((float(k * step), f"{k * step:.6g}") for k in range(first, last + 1))


def drawn(panel: Panel, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """A chart in SVG units, as the macro in ``chart.html`` takes it: paths, bands, ticks, the legend, and ``across``,
    which places a value of x.

    Args:
        size: width and height of the field; by default as suits several side by side.
    """
    width, height = size or (SIDE, SIDE if panel.square else round(0.7 * SIDE))
    (left, right), (bottom, top) = panel.limits
    margin = 0.0 if panel.square else 0.03 * (right - left or 1.0)

    def across(x: float) -> float:
        return round(width * (x - left + margin) / ((right - left or 1.0) + 2 * margin), 1)

    def down(y: float) -> float:
        return round(height * (1 - (y - bottom) / (top - bottom or 1.0)), 1)

    def path(x: Sequence[float], y: Sequence[float]) -> str:
        return "M" + "L".join(f"{across(a)} {down(b)}" for a, b in zip(x, y, strict=True))

    y_ticks = nice_ticks(bottom, top, 6) if panel.y_ticks is None else panel.y_ticks
    lines = []
    plain = not panel.series[0].low
    for line in panel.series:
        band = path(line.x + line.x[::-1], line.low + line.high[::-1]) + "Z" if line.low else ""
        lines.append(
            {
                "name": line.name,
                "color": line.color,
                "path": path(line.x, line.y) if line.joined else "",
                "symbol": line.symbol,
                "band": band,
                "main": plain or bool(line.low),
                "thin": [path(line.x, curve) for curve in line.thin],
                "dots": [(across(x), down(y)) for x, y in zip(line.x, line.y, strict=True)]
                if line.dots
                else [],
            }
        )
    return {
        "panel": panel,
        "side": width,
        "across": across,
        "lines": lines,
        "height": height,
        "x_ticks": [(across(x), label) for x, label in panel.ticks],
        "y_ticks": [(down(y), label) for y, label in y_ticks],
    }
