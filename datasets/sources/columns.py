"""What the columns of a table say of a file, under the names that published tables have for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfake.datasets.sources import is_there
from crossfake.datasets.sources.folder import slashed
from crossfake.datasets.sources.naming import label_of
from crossfake.errors import UserError

FILES = ("file", "file_name", "filename", "image_path", "filepath", "file_path", "path", "image")
LABELS = ("label", "labels", "label_str", "class", "target", "is_fake", "fake", "is_real", "real")
GENERATORS = ("generator", "model", "source_model")
GROUPS = ("group", "original")
_UPSIDE_DOWN = ("is_real", "real")  # where 1 is real
_MANY = range(
    7
)  # ArtiFact's ``target``: 0 is real, the others are ways to make a fake, named by ``category``


@dataclass(frozen=True)
class Class:
    """What a row says of its file.

    Attributes:
        label: 0 real, 1 fake, or what the user says; None where the cell is empty or there is no column for it.
        generator: what made a fake.
        stated: whether there is a column for the label.
    """

    label: int | None
    generator: str = ""
    stated: bool = True


class NoClass(ValueError):
    """The word in a label's cell says neither real nor fake."""


def class_of(row: Mapping[str, Any], labels: Mapping[str, int], names: Sequence[str] | None = None) -> Class:
    """Label and generator that a row gives.

    Args:
        row: column names, as :func:`rows` cleans them, to values.
        labels: of the user's, from a value to its label.
        names: of the classes, where the label is a number.

    Raises:
        NoClass: the value says neither real nor fake.

    Example:
        >>> class_of({"label": "FAKE", "model": "sd"}, {}), class_of({"target": "4", "category": "glide"}, {})
        (Class(label=1, generator='sd', stated=True), Class(label=1, generator='glide', stated=True))
        >>> [class_of(row, {}).label for row in ({"is_real": "1"}, {"label": ""}, {"caption": "a cat"})]
        [0, None, None]
    """
    generator = next((str(row[name]).strip() for name in GENERATORS if row.get(name)), "")
    column = next((name for name in LABELS if name in row), None)
    if column is None:
        return Class(None, generator, stated=False)
    word = _word(row[column])
    named = names[int(word)] if names and word.isdecimal() and int(word) < len(names) else word
    given = next((labels[each] for each in (named, word) if each in labels), None)
    if given is not None:
        return Class(given, generator)
    if word in ("", "-1", "None", "nan"):
        return Class(None, generator)
    if names and named != word and label_of(named) is None and _one_is_real(names):
        return Class(1, generator or named)  # one class is called real, so the others are generators
    if column == "target" and "category" in row and word.isdecimal() and int(word) in _MANY:
        return Class(int(word != "0"), _word(row["category"]))
    label = {"0": 0, "1": 1, "false": 0, "true": 1}.get(named.lower(), label_of(named))
    if label is None:
        raise NoClass(named)
    return Class(1 - label if column in _UPSIDE_DOWN else label, generator)


def _word(value: object) -> str:
    if isinstance(value, bool) or isinstance(value, float) and value.is_integer():
        value = int(value)
    return str("" if value is None else value).strip()


def _one_is_real(names: Sequence[str]) -> bool:
    known = [label_of(name) for name in names]
    return known.count(0) == 1 and 1 not in known


def file_of(row: Mapping[str, Any], folder: Path) -> str:
    """The file that a row is about, below ``folder``: of several columns the one that is there; empty for none.

    Windows may have written it, or blanks stand around it.
    """
    named = [str(row[name]) for name in FILES if row.get(name)]
    tried = [each for name in named for each in dict.fromkeys([name, name.strip(), slashed(name.strip())])]
    return next((name for name in tried if is_there(folder / name)), tried[0] if tried else "")


def group_of(row: Mapping[str, Any], name: str) -> str:
    """What must stay with the file: its group, or the original that it was made from: a real one is that itself."""
    column = next((each for each in GROUPS if each in row), None)
    group = str(row.get(column) or "").strip() if column else ""
    return group or (name if column == "original" else "")


def rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a ``.csv``, ``.tsv`` or ``.jsonl`` with their numbers; column names in small letters, without blanks.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            if table.suffix.lower() in (".csv", ".tsv"):
                first = file.readline()
                file.seek(0)
                reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count))
                for row in reader:
                    yield reader.line_num, {_clean(name): value for name, value in row.items()}
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    found = json.loads(line)
                    if not isinstance(found, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, {_clean(name): value for name, value in found.items()}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{table} cannot be read ({error})", mend="one JSON object a line, or a CSV with a header"
        ) from error


def _clean(name: object) -> str:
    return str(name or "").strip().lower()
