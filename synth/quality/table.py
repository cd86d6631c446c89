"""The result of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HEADS = {
    "fid": "FID",
    "debiased": "less small-sample bias",
    "infinity": "endless fakes (FID∞)",
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
        for key, fakes, reals in figures(name, detail):
            head = head_of(key) + kind if key == name else f"  {head_of(key)}"
            rows.append((head, with_error(fakes), with_error(reals)))
        if "subsets" in detail:
            subsets = detail["subsets"]
            spread = f"{rounded(subsets['mean'])} ± {rounded(subsets['deviation'])}"
            rows.append((f"  {subsets['n']} subsets of {subsets['size']:,}", spread, ""))
        alone = detail.get("baseline", {}).get("levels", {})
        levels = detail.get("levels", {})
        for level, value in levels.items() if len(levels) > 1 else ():  # a lone one is the mean itself
            rows.append((f"  {level}×{level}", rounded(value), rounded(alone.get(level))))
    rows.insert(0, ("", "fakes", "reals alone" if any(right for _, _, right in rows) else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    size = result["real"]["size"]
    lines.append(f"n: {result['n_real']:,} real, {result['n_fake']:,} fake, {size}×{size}")
    return "\n".join([*lines, *(f"note: {text}" for text in notes(result))])


def figures(name: str, detail: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A figure and what is made of it: name, that of the fakes, and that of reals alone."""
    reals = detail.get("baseline") or detail.get("real") or {}
    yield name, detail, reals
    if "debiased" in detail:
        fakes, alone = (
            side | {"value": side.get("debiased"), "interval": side.get("debiased_interval")}
            for side in (detail, reals)
        )
        yield "debiased", fakes, alone
    if "infinity" in detail:
        yield "infinity", detail["infinity"], {}


def head_of(name: str) -> str:
    """A figure's name for readers."""
    return _HEADS.get(name, name.replace("fd-", "Fréchet distance, "))


def notes(result: dict[str, Any]) -> list[str]:
    """What to know before quoting: figures left out, those of fewer images than the rest, warnings."""
    reasons: dict[str, list[str]] = {}
    for name, why in result["skipped"].items():
        reasons.setdefault(why, []).append(name)
    found = [f"{', '.join(names)} left out: {why}" for why, names in reasons.items()]
    fewer: dict[tuple[int, int], list[str]] = {}
    for name, detail in result["details"].items():
        real, fake = detail.get("n") or (result["n_real"], result["n_fake"])
        if (real, fake) != (result["n_real"], result["n_fake"]):
            fewer.setdefault((real, fake), []).append(head_of(name))
    found += [
        f"of {real:,} reals and {fake:,} fakes only: {', '.join(heads)}"
        for (real, fake), heads in fewer.items()
    ]
    baselines = (detail.get("baseline", {}).get("n") for detail in result["details"].values())
    if halves := max(filter(None, baselines), default=None):
        found.append(
            f"reals alone: {halves[0]:,} of them against {halves[1]:,} others; FID falls with n, so compare it at "
            "equal numbers, or less small-sample bias"
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
