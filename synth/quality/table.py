"""The result of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from crossfake.pages import HALF_INTERVAL
from crossfake.stats.intervals import Z

USUAL_DIMS = 2048  # of Inception's features: what papers mean by FID
_HEADS = {
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
    "detectability": "detectability, AP (chance: 0.5)",
}
ORDER = list(_HEADS)  # in which figures stand; Fréchet distances in other networks come last
_PUBLISHED = ("fid", "mifid", "kid")  # known by these names with features of 2048 dims
_DIFFERING = ("limit", "seed", "resize", "precision", "trunc")  # settings that move a figure


def head_of(name: str, detail: Mapping[str, Any] | None = None) -> str:
    """A figure's name for readers. One that is not what papers mean by the name says so.

    Args:
        name: as in ``quality.json``.
        detail: what stands there under ``details``; its ``dims`` and ``net`` belong to the name.

    Example:
        >>> head_of("fid", {"dims": 2048}), head_of("fid", {"dims": 768})
        ('FID', 'FID (768-d, not comparable with FID)')
    """
    detail = detail or {}
    if name not in _HEADS:
        return name.replace("fd-", "Fréchet distance, ")
    head = _HEADS[name]
    if "net" in detail:
        return f"{head}, {detail['net']}"
    if (dims := detail.get("dims", USUAL_DIMS)) != USUAL_DIMS:
        return head + (f" ({dims}-d, not comparable with {head})" if name in _PUBLISHED else f" ({dims}-d)")
    return head


def format_table(result: dict[str, Any]) -> str:
    """What :func:`crossfake.synth.quality.evaluate.evaluate` returned, with n, intervals, gaps and warnings."""
    rows: list[tuple[str, str, str]] = []
    for name, detail in result["details"].items():
        for key, head, fakes, reals in figures(name, detail):
            rows.append((head if key == name else f"  {head}", with_interval(fakes), with_interval(reals)))
        if "subsets" in detail:
            subsets = detail["subsets"]
            mean = f"{rounded(subsets['mean'])} (deviation {rounded(subsets['deviation'])})"
            rows.append((f"  {subsets['n']} subsets of {subsets['size']:,}", mean, ""))
        alone = detail.get("baseline", {}).get("levels", {})
        levels = detail.get("levels", {})
        for level, value in levels.items() if len(levels) > 1 else ():  # a lone one is the mean itself
            rows.append((f"  {level}×{level}", rounded(value), rounded(alone.get(level))))
    rows.insert(0, ("", "fakes", "reals alone" if any(right for _, _, right in rows) else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    size = result["real"]["size"]
    half = f"; {HALF_INTERVAL}" if any("±" in line for line in lines) else ""
    lines.append(f"n: {result['n_real']:,} real, {result['n_fake']:,} fake, {size}×{size}{half}")
    return "\n".join([*lines, *(f"note: {text}" for text in notes(result))])


def figures(name: str, detail: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """A figure and what is made of it: key, head, what it is for the fakes, and for reals alone."""
    reals = detail.get("baseline") or detail.get("real") or {}
    yield name, head_of(name, detail), detail, reals
    if "debiased" in detail:
        fakes, alone = (
            side | {"value": side.get("debiased"), "interval": side.get("debiased_interval")}
            for side in (detail, reals)
        )
        yield "debiased", "less small-sample bias", fakes, alone
    if "infinity" in detail:
        usual = head_of(name, detail) == _HEADS["fid"]
        yield "infinity", "endless fakes" + (" (FID∞)" if usual else ""), detail["infinity"], {}


def counts(result: dict[str, Any], name: str) -> tuple[int, int]:
    """How many reals and fakes a figure is of."""
    if n := result["details"][name].get("n"):
        return int(n[0]), int(n[1])
    run = next((kept for kept in result.get("kept", ()) if name in kept["figures"]), result)
    return run["n_real"], run["n_fake"]


def notes(result: dict[str, Any]) -> list[str]:
    """What to know before quoting: figures of an earlier evaluation or of fewer images, those left out, warnings."""
    reasons: dict[str, list[str]] = {}
    for name, why in result["skipped"].items():
        reasons.setdefault(why, []).append(name)
    details = result["details"]
    found = [f"{', '.join(names)} left out: {why}" for why, names in reasons.items()]
    fewer: dict[tuple[int, int], list[str]] = {}
    earlier = {name for kept in result.get("kept", ()) for name in kept["figures"]}  # they say it below
    for name, detail in details.items():
        if name not in earlier and (n := counts(result, name)) != (result["n_real"], result["n_fake"]):
            fewer.setdefault(n, []).append(head_of(name, detail))
    found += [
        f"of {real:,} reals and {fake:,} fakes only: {', '.join(heads)}"
        for (real, fake), heads in fewer.items()
    ]
    baselines = (detail.get("baseline", {}).get("n") for detail in details.values())
    if halves := max(filter(None, baselines), default=None):
        found.append(
            f"reals alone: {halves[0]:,} of them against {halves[1]:,} others; FID falls with n, so compare it at "
            "equal numbers, or less small-sample bias"
        )
    for kept in result.get("kept", ()):
        heads = ", ".join(head_of(name, details.get(name)) for name in kept["figures"])
        now = result["settings"]
        other = [
            f"{key} {kept['settings'][key] or 'not given'} (now {now[key] or 'not given'})"
            for key in _DIFFERING
            if key in kept["settings"] and kept["settings"][key] != now[key]
        ]
        said = f", measured with {', '.join(other)}" if other else ""
        when = kept["date"][:16].replace("T", " ")
        found.append(
            f"kept from {when}, of {kept['n_real']:,} reals and {kept['n_fake']:,} fakes: {heads}{said}"
        )
        found += [f"said then: {text}" for text in kept["warnings"]]
    return [*found, *result["warnings"]]


def spread(figure: Mapping[str, Any], shown: Callable[[float], str]) -> str:
    """What to write behind a value: ± half of its 95% interval, or both ends of a lopsided one, as shares have.

    Args:
        figure: ``value``, and ``interval`` or ``standard_error`` where the error is known.
        shown: a number as text.
    """
    value, interval, error = (figure.get(key) for key in ("value", "interval", "standard_error"))
    if interval is None and error is not None:
        interval = [value - Z * error, value + Z * error]
    if interval is None or value is None:
        return ""
    low, high = interval
    if abs(low + high - 2 * value) > 0.1 * (high - low):
        return f" ({shown(low)} to {shown(high)})"
    return f" ± {shown((high - low) / 2)}"


def with_interval(figure: Mapping[str, Any]) -> str:
    """A value and its interval, where they are known."""
    return rounded(figure.get("value")) + spread(figure, rounded)


def rounded(value: float | None) -> str:
    """As many digits as say something; nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.5f}"
