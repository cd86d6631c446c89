"""The table of quality figures: what was measured of each generator's fakes, and of the reals among themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfake.pages import number

QUALITY = {"fid": ("FID", 2), "swd": ("Sliced Wasserstein ×10³", 1), "spectrum": ("Power spectrum, dB", 2),
           "lpips": ("LPIPS diversity", 3)}  # fmt: skip


def quality_table(pools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that were measured, by generator; a column that nobody has is left out.

    The first row is what reals score among themselves: the best that any fakes could get.
    """
    measured = [(pool["name"], pool["quality"]) for pool in pools if pool["quality"]]
    keys = [key for key in QUALITY if any(key in quality for _, quality in measured)]
    rows = []
    for name, quality in measured:
        details = quality.get("details", {})
        rows.append(
            (name, [_with_error(key, details.get(key)) for key in keys], quality["n_real"], quality["n_fake"])
        )
    reals = [_of_reals(key, measured) for key in keys]
    if any(reals):
        rows.insert(
            0,
            (
                "reals among themselves",
                [_with_error(*each) for each in zip(keys, reals, strict=True)],
                None,
                None,
            ),
        )
    return {"headings": [_quality_heading(key, measured) for key in keys], "rows": rows}


def _of_reals(key: str, measured: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """What the first generator's measurement says of the reals alone."""
    part = "real" if key == "lpips" else "baseline"
    found = (quality.get("details", {}).get(key, {}).get(part) for _, quality in measured)
    return next((each for each in found if each), None)


def _quality_heading(key: str, measured: Sequence[tuple[str, dict[str, Any]]]) -> str:
    details = next(quality["details"][key] for _, quality in measured if key in quality)
    kind = {"fid": f", {details.get('dims')} dims", "lpips": f", {details.get('net')}"}.get(key, "")
    return QUALITY[key][0] + kind


def _with_error(key: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    value, error, digits = found["value"], found.get("standard_error"), QUALITY[key][1]
    return number(value, digits) + (f" ± {number(error, digits)}" if error is not None else "")
