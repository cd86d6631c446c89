"""The result of an evaluation as lines of text."""

from __future__ import annotations

from typing import Any

HEADS = {
    "fid": "FID",
    "mifid": "MiFID",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "lpips": "LPIPS diversity",
    "memory": "LPIPS to nearest real",
    "swd": "sliced Wasserstein ×10³",
    "spectrum": "power spectrum, dB",
    "detectability": "detectability, AP",
}


def format_table(result: dict[str, Any]) -> str:
    """What :func:`crossfake.synth.evaluation.evaluate` returned, with n, standard errors, gaps and warnings."""
    rows: list[tuple[str, str, str]] = []
    for name, detail in result["details"].items():
        kind = (
            f", dims {detail['dims']}" if name == "fid" else f", {detail['net']}" if "net" in detail else ""
        )
        reals = detail.get("baseline") or detail.get("real") or {}
        head = HEADS.get(name, name.replace("fd-", "Fréchet distance, "))
        rows.append((head + kind, with_error(detail), with_error(reals)))
        if "debiased" in detail:
            rows.append(
                ("  less small-sample bias", rounded(detail["debiased"]), rounded(reals.get("debiased")))
            )
        if "infinity" in detail:
            rows.append(("  endless fakes (FID∞)", with_error(detail["infinity"]), ""))
        if "subsets" in detail:
            subsets = detail["subsets"]
            spread = f"{rounded(subsets['mean'])} ± {rounded(subsets['deviation'])}"
            rows.append((f"  {subsets['n']} subsets of {subsets['size']:,}", spread, ""))
        for level, value in detail.get("levels", {}).items():
            rows.append((f"  {level}×{level}", rounded(value), rounded(reals.get("levels", {}).get(level))))
    rows.insert(0, ("", "fakes", "reals alone" if any(right for _, _, right in rows) else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    size = result["real"]["size"]
    lines.append(f"n: {result['n_real']:,} real, {result['n_fake']:,} fake, {size}×{size}")
    lines += [f"{name} left out: {why}" for name, why in result["skipped"].items()]
    lines += [f"note: {text}" for text in result["warnings"]]
    return "\n".join(lines)


def with_error(figure: dict[str, Any]) -> str:
    """The value, with its standard error where it has one."""
    error = figure.get("standard_error")
    return rounded(figure.get("value")) + ("" if error is None else f" ± {rounded(error)}")


def rounded(value: float | None) -> str:
    """As many digits as say something; nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.5f}"
