"""Are the tables still what the stored scores give? Everything is computed again and compared with what lies there."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

from crossfake.experiments.report import cards
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.reporting import texts
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.sheet import TABLE

_KEYS = {
    "results.csv": ("detector", "condition", "seed", "test"),
    "contrasts.csv": ("contrast", "detector", "test"),
}
_SLACK = 2e-6  # figures are written to six digits
# What depends on more than scores: pictures, which may have gone since.
MISTAKES = re.compile(r"<section id=\"mistakes\">.*?</section>", re.DOTALL)
_PICTURES = re.compile(MISTAKES.pattern + r"|\"data:[^\"]*\"", re.DOTALL)


def verify(folder: str | Path) -> list[str]:
    """Recompute the tables of an experiment from its stored scores, and say what differs.

    Looked at are ``results.csv`` and ``contrasts.csv`` line by line, ``results.parquet`` if it is there and pyarrow is,
    ``results.tex``, ``methods.tex``, ``references.bib``, ``results.md``, ``report.html`` and the cards; not the
    figures. ``results.csv`` holds the hash of every score file, so a changed score is found even where no figure moved.

    Args:
        folder: an experiment that ``experiment report`` was run on.

    Returns:
        One sentence per difference; nothing when all is as it should be.

    Raises:
        UserError: the folder holds no experiment, or a score file is damaged.

    Example:
        >>> verify("runs/demo")  # doctest: +SKIP
        []
    """
    folder = Path(folder)
    results = Results(folder, resamples_of(folder))
    said = [
        f"cell {entry['key']} ({entry['detector']}, {entry['condition']}, seed {entry['seed']}) is missing"
        for entry in results.pending
    ]
    found = answers(results)
    fresh = texts(results, found)
    if older := [name for name in _KEYS if _of_another_version(_text(folder / name), fresh[name])]:
        return [
            *said,
            f"{' and '.join(older)}: the columns are not those of this version, whose intervals differ, too; "
            "'crossfake experiment report' writes all of it anew from the same scores",
        ]
    for name, keys in _KEYS.items():
        said += _compare_tables(folder / name, fresh[name], keys)
    said += _compare_parquet(folder / "results.parquet", fresh["results.csv"])
    for name in ("results.tex", "methods.tex", "references.bib", TABLE, "report.html"):
        if name not in fresh:
            continue
        said += _compare_texts(folder / name, fresh[name])
    for name, text in cards.model_cards(results, found).items():
        said += _compare_texts(folder / "cards" / name, text)
    if not said:  # it holds the tables' hashes, so whatever is wrong with them would be said again
        said += _compare_texts(folder / "croissant.json", cards.data_card_text(results))
    return said


def resamples_of(folder: Path) -> int | None:
    """As many as the report was made with, which need not be the configuration's."""
    rows = _rows(_text(folder / "results.csv") or "")
    value = rows[0].get("resamples", "") if rows else ""
    return int(value) if value.isdigit() and int(value) >= 1 else None


def _of_another_version(text: str | None, fresh: str) -> bool:
    """Whether a table lacks columns that are written now."""
    here, now = ((each or fresh).partition("\n")[0].split(",") for each in (text, fresh))
    return not set(now) <= set(here)


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _rows(text: str) -> list[dict[str, str]]:
    return [{k or "": v or "" for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _compare_tables(file: Path, fresh: str, keys: tuple[str, ...]) -> list[str]:
    text = _text(file)
    if text is None:
        return [f"{file.name} is not there"]
    lines = _rows(text)
    here, there = ({tuple(r.get(key, "") for key in keys): r for r in rows} for rows in (lines, _rows(fresh)))

    def called(place: tuple[str, ...]) -> str:
        return f"{file.name}, {', '.join(part or 'mean' for part in place)}"

    said = (
        [f"{file.name}: {len(lines) - len(here)} lines say anew what others say"]
        if len(lines) > len(here)
        else []
    )
    said += [f"{called(place)}: the line is missing" for place in there if place not in here]
    said += [f"{called(place)}: the scores give no such line" for place in here if place not in there]
    for place, row in there.items():
        for column, value in row.items():
            found = here.get(place, row).get(column, "")
            if not _same(found, value):
                said.append(
                    f"{called(place)}: {column} is {found or 'empty'}, the scores give {value or 'nothing'}"
                )
    return said


def _same(a: str, b: str) -> bool:
    if a == b:
        return True
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=_SLACK)
    except ValueError:
        return False


def _compare_parquet(file: Path, fresh: str) -> list[str]:
    try:
        import pyarrow.parquet
    except ImportError:
        return []
    if not file.exists():
        return []
    try:
        table: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        return [f"{file.name} cannot be read ({error})"]
    rows = _rows(fresh)
    if len(table) != len(rows):
        return [f"{file.name} has {len(table)} lines, the scores give {len(rows)}"]
    return [
        f"{file.name}, line {number}: {column} is {found}, the scores give {row[column] or 'nothing'}"
        for number, (line, row) in enumerate(zip(table, rows, strict=True), 1)
        for column, found in line.items()
        if not _same("" if found is None else str(found), row.get(column, ""))
    ]


def _compare_texts(file: Path, fresh: str) -> list[str]:
    """The first line that differs; pictures do not count."""
    text = _text(file)
    if text is None:
        return [f"{file.name} is not there"]
    here, there = (_PICTURES.sub("", t).splitlines() for t in (text, fresh))
    if here == there:
        return []
    first = next((a for a, b in zip(here, there, strict=False) if a != b), "its end")
    return [f"{file.name} is not what the scores give, first at “{first.strip()[:120]}”"]
