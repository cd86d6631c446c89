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
            fakes, alone = (with_error(side | {"value": side.get("debiased")}) for side in (detail, reals))
            rows.append(("  less small-sample bias", fakes, alone))
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
    return "\n".join([*lines, *(f"note: {text}" for text in notes(result))])


def notes(result: dict[str, Any]) -> list[str]:
    """What to know before quoting: figures left out, those of fewer images than the rest, warnings."""
    found = [f"{name} left out: {why}" for name, why in result["skipped"].items()]
    fewer: dict[tuple[int, int], list[str]] = {}
    halves = set()
    for name, detail in result["details"].items():
        real, fake = detail.get("n") or (result["n_real"], result["n_fake"])
        if (real, fake) != (result["n_real"], result["n_fake"]):
            fewer.setdefault((real, fake), []).append(HEADS.get(name, name))
        halves |= {tuple(detail["baseline"]["n"])} if "n" in detail.get("baseline", {}) else set()
    found += [
        f"of {real:,} reals and {fake:,} fakes only: {', '.join(heads)}"
        for (real, fake), heads in fewer.items()
    ]
    for one, other in sorted(halves, reverse=True)[:1]:
        found.append(
            f"reals alone: {one:,} of them against {other:,} others; FID falls with n, so compare it at equal "
            "numbers, or less small-sample bias"
        )
    return [*found, *result["warnings"]]


def with_error(figure: dict[str, Any]) -> str:
    """The value, with its standard error where it has one."""
    error = figure.get("standard_error")
    value = rounded(figure.get("value"))
    return value + (f" ± {rounded(error)}" if value and error is not None else "")


def rounded(value: float | None) -> str:
    """As many digits as say something; nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.5f}"
