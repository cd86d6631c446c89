"""The result of an evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossfake.detect.tables import aligned
from crossfake.pages import TERMINAL

_ROWS = 12  # of a kind; the rest is in evaluation.json
_INTERVALS = ("auc",)  # shown with their intervals; those of the others are on the page and in the JSON
HEADS = {
    "auc": "AUC",
    "ap": "AP",
    "tpr_at_1%_fpr": "TPR at 1%",
    "accuracy": "accuracy",
    "eer": "EER",
    "ece": "ECE",
}
POOLED = {"by_group": "group", "by_video": "video"}


def format_table(result: dict[str, Any]) -> str:
    """Overall, per source, per generator, per group and video; ``-`` where a figure is undefined.

    A part that is all there is, such as the only source, is named below in place of a row that says the same again.
    """
    lines = [["", "reals + fakes", *HEADS.values()]]
    hidden, same = 0, []
    for title, parts in _kinds(result):
        # the worst come first where there are more than fit
        names = sorted(parts, key=lambda name: _rank(parts[name])) if len(parts) > _ROWS else list(parts)
        hidden += len(names[_ROWS:])
        for name in names[:_ROWS]:
            part = parts[name]
            count = f"{part['n_real']:,} + {part['n_fake']:,}"
            line = [title + name, count, *(_cell(part, figure) for figure in HEADS)]
            if len(lines) > 1 and line[1:] == lines[1][1:]:
                same.append(line[0])
            else:
                lines.append(line)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[0] = min(widths[0], max(10, TERMINAL - sum(widths[1:]) - 2 * (len(widths) - 1)))
    for line in lines:
        if len(line[0]) > widths[0]:
            line[0] = line[0][: widths[0] - 1] + "…"
    text = aligned(lines)
    if same:
        text.append(f"the same as overall: {', '.join(same)}")
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
    interval = part["intervals"].get(name) if name in _INTERVALS else None
    return f"{part[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
