"""The result of an evaluation as lines of text."""

from __future__ import annotations

from typing import Any

_HEADS = {
    "fid": "FID",
    "lpips": "LPIPS diversity",
    "swd": "sliced Wasserstein ×10³",
    "spectrum": "power spectrum, dB",
}


def format_table(result: dict[str, Any]) -> str:
    """What :func:`crossfake.synth.evaluation.evaluate` returned, with n, standard errors, gaps and warnings."""
    rows: list[tuple[str, str, str]] = []
    for name, detail in result["details"].items():
        kind = {"fid": f", dims {detail.get('dims')}", "lpips": f", {detail.get('net')}"}.get(name, "")
        reals = detail.get("baseline") or detail.get("real") or {}
        rows.append((_HEADS[name] + kind, _with_error(detail), _with_error(reals)))
        if "debiased" in detail:
            rows.append(
                ("  less small-sample bias", _rounded(detail["debiased"]), _rounded(reals.get("debiased")))
            )
        for level, value in detail.get("levels", {}).items():
            rows.append((f"  {level}×{level}", _rounded(value), _rounded(reals.get("levels", {}).get(level))))
    rows.insert(0, ("", "fakes", "reals alone" if any(right for _, _, right in rows) else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    size = result["real"]["size"]
    lines.append(f"n: {result['n_real']:,} real, {result['n_fake']:,} fake, {size}×{size}")
    lines += [f"{name} left out: {why}" for name, why in result["skipped"].items()]
    lines += [f"note: {text}" for text in result["warnings"]]
    return "\n".join(lines)


def _with_error(figure: dict[str, Any]) -> str:
    error = figure.get("standard_error")
    return _rounded(figure.get("value")) + ("" if error is None else f" ± {_rounded(error)}")


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
