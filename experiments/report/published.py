"""Figures that others published for a protocol, to stand beside one's own; ``published.yaml`` holds them.

They were measured on other pictures and other trainings than one's own, so they say where a method stands, not which
of two is better. Each names its source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from crossfake.detect.evaluation import metrics
from crossfake.errors import UserError
from crossfake.registry import unknown
from crossfake.stats import ranking

FIGURES = Path(__file__).with_name("published.yaml")
_TEXTS = ("method", "figure", "paper", "table", "licence", "read")
_KNOWN = (*ranking.RANKING, *metrics.AT_THRESHOLD)

Rows = list[dict[str, Any]]


def published(name: str) -> Rows:
    """The published figures of a protocol.

    Args:
        name: ``wang2020``, ``universal-fake-detect``, ``deepfakebench-cross`` or ``chronological``.

    Returns:
        One row a figure: ``method``, ``test``, ``figure`` (as in :func:`~crossfake.detect.evaluation.metrics.summary`),
        ``value`` in [0, 1], and ``source``: paper, table, licence of that page, and its address.

    Raises:
        UserError: nothing goes by that name.

    Example:
        >>> row = published("wang2020")[1]
        >>> row["test"], row["figure"], row["value"]
        ('StyleGAN', 'ap', 0.985)
    """
    found = load(FIGURES)
    if name not in found:
        raise unknown("set of published figures", name, sorted(found))
    return found[name]


def load(path: Path) -> dict[str, Rows]:
    """All rows of a file such as ``published.yaml``, by protocol.

    Raises:
        UserError: it cannot be read, or an entry lacks something; the entry is named.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason})", hint="correct the file") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise UserError(
            f"{path} holds no published figures", hint="give a list of entries under each protocol's name"
        )
    found: dict[str, Rows] = {}
    for name, entries in content.items():
        rows = [
            row for number, entry in enumerate(entries, 1) for row in _rows(path, f"{name}, {number}", entry)
        ]
        marks = [(row["method"], row["test"], row["figure"]) for row in rows]
        twice = [mark for mark in marks if marks.count(mark) > 1]
        if twice:
            raise UserError(f"{path}, {name}: {', '.join(twice[0])} is given twice", hint="keep one of them")
        found[name] = rows
    return found


def _rows(path: Path, place: str, entry: Any) -> Rows:
    """The rows of one entry: one row of a published table."""

    def mistake(what: str, hint: str) -> UserError:
        return UserError(f"{path}, entry {place}: {what}", hint=hint)

    if not isinstance(entry, dict) or set(entry) != {*_TEXTS, "values"}:
        raise mistake("its keys do not fit", f"give {', '.join(_TEXTS)} and values, and nothing else")
    for key in _TEXTS:
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise mistake(f"{key} is {entry[key]!r}", "write it in words")
    if entry["figure"] not in _KNOWN:
        raise mistake(f"there is no figure {entry['figure']!r}", f"choose one of {', '.join(_KNOWN)}")
    if not entry["read"].startswith("https://"):
        raise mistake(f"{entry['read']} is no address", "say where the table was read, https://…")
    if not isinstance(entry["values"], dict) or not entry["values"]:
        raise mistake("it has no values", "give values: {test: 0.9}")
    for test, value in entry["values"].items():
        if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value <= 1:
            raise mistake(f"{test} is {value!r}", "give a number from 0 to 1, so 0.985 for 98.5%")
    source = f"{entry['paper']}; {entry['table']}; licence {entry['licence']}; {entry['read']}"
    common = {"method": entry["method"], "figure": entry["figure"], "source": source}
    return [{**common, "test": str(test), "value": float(value)} for test, value in entry["values"].items()]
