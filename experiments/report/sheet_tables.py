"""Figures of a :mod:`~crossfake.experiments.report.sheet` as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfake.experiments.design.protocols import BENIGN, ELSEWHERE, REAL
from crossfake.experiments.report.comparing import LEVEL
from crossfake.experiments.report.results import NOT_KNOWN
from crossfake.experiments.report.sheet import RATE, Sheet
from crossfake.experiments.report.tables import p_value
from crossfake.pages import HALF_INTERVAL, number, percent, signed
from crossfake.stats.bootstrap import Measured, together
from crossfake.stats.intervals import Estimate, estimate
from crossfake.stats.significance import bootstrap_p, detectable, holm


def markdown(sheet: Sheet) -> str:
    """``results.md``: tables of AUC, of hits, of false alarms, of differences and of audits."""
    facts = sheet.facts
    apart = facts["photos"] != [REAL]
    parts = [f"# {facts['name']}", _about(sheet), _aucs(sheet)]
    strangers = list(dict.fromkeys(t["fake"] for t in facts["tests"] if t["real"] in facts["photos"]))
    parts += [_hits(sheet, fake) for fake in strangers if apart and len(facts["photos"]) > 1]
    parts += [_alarms(sheet), _differences(sheet), _audits(sheet)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(sheet: Sheet) -> str:
    facts = sheet.facts
    coded = ", ".join(f"{name.upper()} of quality {value:g}" for name, value in facts["reencode"].items())
    said = [
        f"Made from `scores.csv` and `study.json` alone; intervals are 95% ones of pictures (by group, "
        f"{facts['resamples']:,} resamples) and seeds, {HALF_INTERVAL}.",
        f"All test pictures were coded as {coded} before they were judged." if coded else "",
    ]
    conditions = "\n".join(
        f"- **{c['name']}**: {c['about']}"
        + (f"; without {', '.join(c['without'])}" if c.get("without") else "")
        for c in facts["conditions"]
    )
    return f"{' '.join(filter(None, said))}\n\n{conditions}"


def _aucs(sheet: Sheet) -> str:
    tests = [t for t in sheet.facts["tests"] if t["real"] not in sheet.facts["photos"] or t["real"] == REAL]
    tests = [t for t in tests if t["real"] != BENIGN]
    rows = []
    for detector, condition in sheet.rows:
        values = []
        for test in tests:
            found = estimate(together(sheet.over_seeds(detector, condition, sheet.auc, test)))
            text = _value(found)
            values.append(f"({text})" if sheet.is_seen(condition, test["name"]) else text)
        rows.append([detector, condition, str(len(sheet.seeds(detector, condition))), *values])
    heads = ["Detector", "Trained on", "Seeds", *(_sized(sheet, t["fake"]) for t in tests)]
    return (
        f"## AUC against all {len(sheet.sets[REAL]):,} reals\n\n{_table(heads, rows)}\n\n"
        "In parentheses: the condition trained on fakes of that generator."
        + (f" {ELSEWHERE.capitalize()}: {NOT_KNOWN}." if any(c == ELSEWHERE for _, c in sheet.rows) else "")
    )


def _hits(sheet: Sheet, fake: str) -> str:
    tests = [t for t in sheet.facts["tests"] if t["fake"] == fake and t["real"] in sheet.facts["photos"]]
    rows = []
    for detector, condition in sheet.rows:
        line = [detector, condition]
        for test in tests:
            auc = estimate(together(sheet.over_seeds(detector, condition, sheet.auc, test)))
            both = sheet.over_seeds(detector, condition, sheet.hits, test)
            hit, alarm = (estimate(together([pair[k] for pair in both])) for k in (0, 1))
            line.append(f"{_value(auc)}; {percent(hit.mean)} at {percent(alarm.mean)}")
        rows.append(line)
    heads = ["Detector", "Trained on", *(_sized(sheet, t["real"]) for t in tests)]
    return (
        f"## {fake} against each source of reals\n\n{_table(heads, rows)}\n\n"
        f"AUC; then the share of fakes found at the threshold with {percent(RATE)} false alarms of the *other* "
        "sources, and the false alarms of this one there."
    )


def _alarms(sheet: Sheet) -> str:
    facts = sheet.facts
    names = [*facts["photos"], *([BENIGN] if BENIGN in sheet.sets else [])]
    without = {c["name"]: c.get("without") or [] for c in facts["conditions"]}
    rows = []
    for detector, condition in sheet.rows:
        line = [detector, condition]
        for name in names:
            found = estimate(together(sheet.over_seeds(detector, condition, sheet.alarms, name)))
            text = f"{100 * found.mean:.1f}% ± {100 * found.half_width:.1f}"
            line.append(f"**{text}**" if name in without[condition] else text)
        rows.append(line)
    heads = ["Detector", "Trained on", *(_sized(sheet, name) for name in names)]
    return (
        f"## Reals called fake at the threshold from validation\n\n{_table(heads, rows)}\n\n"
        "Bold: a source that the condition left out of training."
    )


def _differences(sheet: Sheet) -> str:
    """Between conditions, and between detectors, Holm's correction over all of them (1979)."""
    tests = {t["name"]: t for t in sheet.facts["tests"]}
    detectors = list(dict.fromkeys(detector for detector, _ in sheet.rows))
    found: list[tuple[str, str, str, Measured]] = []
    for contrast in sheet.facts["contrasts"]:
        chosen = [tests[name] for name in contrast["tests"]]
        for detector in detectors:
            a, b = contrast["a"], contrast["b"]
            if seeds := sheet.seeds(detector, a, b):
                before, after = (sheet.mean_auc(detector, c, chosen, seeds) for c in (a, b))
                found.append((contrast["name"], detector, _names(chosen), after - before))
    for a, b in sheet.facts["detector_contrasts"]:
        for one, other in _beside(sheet, a, b):
            condition = other if one == ELSEWHERE else one
            chosen = [t for t in _strangers(sheet) if not sheet.is_seen(condition, t["name"])]
            seeds = sorted(set(sheet.seeds(a, one)) & set(sheet.seeds(b, other)))
            if chosen and seeds:
                before, after = (sheet.mean_auc(d, c, chosen, seeds) for d, c in ((a, one), (b, other)))
                found.append((f"{b} minus {a}", condition, _names(chosen), after - before))
    if not found:
        return ""
    adjusted = holm([bootstrap_p(difference) for *_, difference in found])
    rows = []
    for (name, of, on, difference), p in zip(found, adjusted.tolist(), strict=True):
        each = estimate(difference, bounds=(-1, 1))
        shown = (each.low > 0 or each.high < 0) and p < LEVEL
        text = f"{signed(each.mean)} [{signed(each.low)}, {signed(each.high)}]"
        rows.append([name, of, on, f"**{text}**" if shown else text, p_value(p), number(detectable(each))])
    heads = ["Difference", "Of", "Mean over", "AUC", "p (Holm)", "Detectable"]
    return (
        f"## Differences\n\n{_table(heads, rows)}\n\nBold: shown after Holm's correction over all lines. "
        "Detectable: the true difference that would be found four times in five."
    )


def _beside(sheet: Sheet, a: str, b: str) -> list[tuple[str, str]]:
    """Conditions of two detectors that are compared: the same; one trained elsewhere beside all of the other's."""
    mine, theirs = ([c for d, c in sheet.rows if d == name] for name in (a, b))
    alike = [(c, c) for c in mine if c in theirs]
    return alike or [(one, other) for one in mine for other in theirs if ELSEWHERE in (one, other)]


def _strangers(sheet: Sheet) -> list[dict[str, Any]]:
    """Tests of generators that are not one's own, against all reals."""
    own = {name for c in sheet.facts["conditions"] for name in c["synthetic"]}
    return [t for t in sheet.facts["tests"] if t["real"] == REAL and t["fake"] not in own]


def _audits(sheet: Sheet) -> str:
    rows = []
    for name, audit in sheet.facts["audits"].items():
        probes = {probe: p["auc"] for probe, p in audit.get("probes", {}).items() if p["auc"] is not None}
        worst = max(probes, key=lambda probe: probes[probe], default="")
        said = f"{worst} {number(probes[worst], 2)}" if worst else ""
        rows.append([name, audit["verdict"], said])
    if not rows:
        return ""
    table = _table(["Test", "Verdict", "Strongest probe, AUC"], rows)
    return f"## What tells the classes of a test apart besides forgery\n\n{table}"


def _names(tests: Sequence[dict[str, Any]]) -> str:
    return ", ".join(test["fake"] for test in tests)


def _sized(sheet: Sheet, name: str) -> str:
    return f"{name} ({len(sheet.sets[name]):,})"


def _value(found: Estimate) -> str:
    return f"{number(found.mean)} ± {number(found.half_width)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
