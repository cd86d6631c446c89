"""The result of an evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossfake.detect.tables import aligned

_WIDTH = 138  # columns of text
_ROWS = 12  # of a kind; the rest is in evaluation.json
_BARE = ("eer", "ece")  # shown without their intervals, which the JSON has
HEADS = {
    "auc": "AUC", "ap": "AP", "tpr_at_1%_fpr": "TPR at 1% FPR", "accuracy": "accuracy", "eer": "EER", "ece": "ECE"
}  # fmt: skip
POOLED = {"by_group": "group", "by_video": "video"}


def format_table(result: dict[str, Any]) -> str:
    """Overall, per source, per generator, per group and video; figures with their intervals, ``-`` where undefined."""
    lines = [["", "reals + fakes", *HEADS.values()]]
    hidden = 0
    for title, parts in _kinds(result):
        # the worst come first where there are more than fit
        names = sorted(parts, key=lambda name: _rank(parts[name])) if len(parts) > _ROWS else list(parts)
        hidden += len(names[_ROWS:])
        for name in names[:_ROWS]:
            part = parts[name]
            count = f"{part['n_real']:,} + {part['n_fake']:,}"
            lines.append([title + name, count, *(_cell(part, figure) for figure in HEADS)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[0] = min(widths[0], max(10, _WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    for line in lines:
        if len(line[0]) > widths[0]:
            line[0] = line[0][: widths[0] - 1] + "…"
    text = aligned(lines)
    if hidden:
        text.append(f"… and {hidden:,} more, which did better, in evaluation.json")
    return "\n".join(text)


def worst_lines(result: dict[str, Any]) -> Iterator[str]:
    """A line for each of the worst source and generator."""
    for kind, worst in result["worst"].items():
        interval = worst["interval"]
        given = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        figure = {"auc": "AUC"}.get(worst["figure"], worst["figure"].replace("_", " "))
        yield (
            f"worst {kind}: {worst['name']}, {figure} {worst['value']:.3f}{given} "
            f"({worst['n_real']:,} reals, {worst['n_fake']:,} fakes)"
        )


def _kinds(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", {"overall": result["overall"]}
    yield "source ", result["by_source"]
    yield "vs ", result["by_generator"]
    for key, unit in POOLED.items():
        yield f"per {unit}, ", result[key]


def _rank(part: dict[str, Any]) -> float:
    return float(part["auc"] if part["auc"] is not None else part["accuracy"])


def _cell(part: dict[str, Any], name: str) -> str:
    if part[name] is None:
        return "-"
    interval = None if name in _BARE else part["intervals"].get(name)
    return f"{part[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
