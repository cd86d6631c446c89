"""The table of quality figures: what was measured of each generator's fakes, and of the reals among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossfake.pages import number
from crossfake.synth.quality.table import counts, head_of, spread

DIGITS = {"kid": 4, "coverage": 3, "detectability": 3, "fid": 2, "swd": 1, "spectrum": 2, "lpips": 3}


def quality_table(pools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures that were measured, by generator; a column that nobody has is left out.

    A figure in other features (dims, networks) has a column of its own. The first row is what reals score among
    themselves: the best that any fakes could get.
    """
    measured = [(pool["name"], pool["quality"]) for pool in pools if pool["quality"]]
    columns = list(
        dict.fromkeys(
            (key, head_of(key, quality["details"][key]))
            for key in DIGITS
            for _, quality in measured
            if key in quality.get("details", {})
        )
    )
    rows = [
        (name, [_cell(quality, *column) for column in columns], quality["n_real"], quality["n_fake"])
        for name, quality in measured
    ]
    reals = [_of_reals(measured, *column) for column in columns]
    if any(reals):
        shown = [_with_interval(key, each) for (key, _), each in zip(columns, reals, strict=True)]
        rows.insert(0, ("reals among themselves", shown, None, None))
    return {"headings": [head[0].upper() + head[1:] for _, head in columns], "rows": rows}


def _found(quality: Mapping[str, Any], key: str, head: str) -> dict[str, Any] | None:
    detail: dict[str, Any] | None = quality.get("details", {}).get(key)
    return detail if detail and head_of(key, detail) == head else None


def _cell(quality: dict[str, Any], key: str, head: str) -> str:
    """A figure, with its own n where that is not the row's."""
    found = _found(quality, key, head)
    shown = _with_interval(key, found)
    if found and (n := counts(quality, key)) != (quality["n_real"], quality["n_fake"]):
        shown += f" (n {n[0]:,} / {n[1]:,})"
    return shown


def _of_reals(measured: Sequence[tuple[str, dict[str, Any]]], key: str, head: str) -> dict[str, Any] | None:
    """What the first generator's measurement says of the reals alone."""
    part = "real" if key == "lpips" else "baseline"
    found = ((_found(quality, key, head) or {}).get(part) for _, quality in measured)
    return next((each for each in found if each), None)


def _with_interval(key: str, found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    return number(found["value"], DIGITS[key]) + spread(found, lambda value: number(value, DIGITS[key]))
