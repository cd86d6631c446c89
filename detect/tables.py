"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as text, every column as wide as its widest cell.

    Example:
        >>> aligned([["", "AP"], ["overall", "0.9"]])
        ['         AP', 'overall  0.9']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
