"""What the columns of a table say of a file, under the names that published tables have for them."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfake.datasets import remote
from crossfake.datasets.sources.base import is_there, is_url
from crossfake.datasets.sources.folder import slashed
from crossfake.datasets.sources.naming import label_of
from crossfake.errors import UserError

FILES = ("file", "file_name", "filename", "image_path", "filepath", "file_path", "path", "image")
LABELS = ("label", "labels", "label_str", "class", "target", "is_fake", "fake", "is_real", "real")
GENERATORS = ("generator", "model", "source_model")
GROUPS = ("group", "original")
_ASKING = {"is_fake": 1, "fake": 1, "is_real": 0, "real": 0}  # columns whose 1 is that class, beyond doubt
_TRUTH = {"0": False, "1": True, "false": False, "true": True}
_NOTHING = ("", "-1", "none", "nan", "null", "n/a", "<na>")
_BLOCK = 4 << 20  # bytes that are fetched of a file in a store at once
_MANY = range(7)  # ArtiFact's ``target``: 0 is real, the others ways to make a fake, named by ``category``


@dataclass(frozen=True)
class Class:
    """What a row says of its file.

    Attributes:
        label: 0 real, 1 fake, or what the user says; None where the cell is empty or there is no column for it.
        generator: what made a fake.
        stated: whether there is a column for the label.
        matched: the user's own word by which it got its label.
    """

    label: int | None
    generator: str = ""
    stated: bool = True
    matched: str = field(default="", repr=False)


class NoClass(ValueError):
    """A row says neither real nor fake, or both; its text says so."""


def class_of(row: Mapping[str, Any], labels: Mapping[str, int], names: Sequence[str] | None = None) -> Class:
    """Label and generator that a row gives.

    A word, or a column that asks for one class, counts more than a number: in some tables 1 is real.

    Args:
        row: column names, by :func:`clean`, to values.
        labels: of the user's, from a value to its label.
        names: of the classes, where the first column's label is a number.

    Raises:
        NoClass: no value says real or fake, or they contradict each other or the file's folder.

    Example:
        >>> class_of({"label": "FAKE", "model": "sd"}, {}), class_of({"target": "4", "category": "glide"}, {})
        (Class(label=1, generator='sd', stated=True), Class(label=1, generator='glide', stated=True))
        >>> [class_of(row, {}).label for row in ({"is_real": "1"}, {"label": ""}, {"caption": "a cat"})]
        [0, None, None]
        >>> class_of({"label": "1", "label_str": "real"}, {}).label
        0
    """
    generator = next((str(row[name]).strip() for name in GENERATORS if row.get(name)), "")
    cells = {column: _word(row[column]) for column in LABELS if column in row}
    if not cells:
        return Class(None, generator, stated=False)
    column = next(iter(cells))
    number = cells[column]
    if names and number.isdecimal() and int(number) < len(names):
        cells[column] = names[int(number)]
    matched = next((each for each in (*cells.values(), number) if each in labels), None)
    if matched is not None:
        return Class(labels[matched], generator, matched=matched)
    cells = {column: word for column, word in cells.items() if word.lower() not in _NOTHING}
    if not cells:
        return Class(None, generator)
    if (
        names
        and number != cells.get(column, number)
        and label_of(cells[column]) is None
        and _one_is_real(names)
    ):
        return Class(1, generator or cells[column])  # one class is called real, so the others are generators
    if column == "target" and "category" in row and number.isdecimal() and int(number) in _MANY:
        return Class(int(number != "0"), _word(row["category"]))
    sure = {column: label for column, word in cells.items() if (label := _sure(column, word)) is not None}
    counted = {column: int(_TRUTH[word.lower()]) for column, word in cells.items() if word.lower() in _TRUTH}
    label = next(iter([*sure.values(), *counted.values()]), None)
    if label is None:
        raise NoClass(f"{next(iter(cells.values()))!r} says neither real nor fake")
    if len(set(sure.values())) > 1:
        raise NoClass(" but ".join(f"{column} says {cells[column]!r}" for column in sure))
    if not sure and (folder := _folders_label(row)) not in (None, label):
        column = next(iter(counted))
        raise NoClass(f"{column} says {cells[column]}, its folder {('real', 'fake')[folder or 0]}")
    return Class(label, generator)


def _sure(column: str, word: str) -> int | None:
    """The label that a cell gives in words, or by the name of its column."""
    if column in _ASKING and word.lower() in _TRUTH:
        return _ASKING[column] if _TRUTH[word.lower()] else 1 - _ASKING[column]
    return label_of(word)


def _folders_label(row: Mapping[str, Any]) -> int | None:
    paths = (slashed(str(row[name])).split("/")[:-1] for name in FILES if row.get(name))
    return next(
        (label for parts in paths for name in reversed(parts) if (label := label_of(name)) is not None), None
    )


def _word(value: object) -> str:
    if isinstance(value, bool) or isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"^(\d+)\.0+$", r"\1", str("" if value is None else value).strip())


def _one_is_real(names: Sequence[str]) -> bool:
    known = [label_of(name) for name in names]
    return known.count(0) == 1 and 1 not in known


def file_of(row: Mapping[str, Any], folder: Path | str) -> str:
    """The file that a row is about, below ``folder``: of several columns the one that is there; empty for none.

    Windows may have written it, or blanks stand around it. In a store nobody looks: the first column counts.
    """
    named = [str(row[name]) for name in FILES if row.get(name)]
    if isinstance(folder, str) or named and is_url(named[0].strip()):
        return named[0].strip() if named else ""
    tried = [each for name in named for each in dict.fromkeys([name, name.strip(), slashed(name.strip())])]
    return next((name for name in tried if is_there(folder / name)), tried[0] if tried else "")


def group_of(row: Mapping[str, Any], name: str) -> str:
    """What must stay with the file: its group, or the original that it was made from: a real one is that itself."""
    column = next((each for each in GROUPS if each in row), None)
    group = str(row.get(column) or "").strip() if column else ""
    return group or (name if column == "original" else "")


def rows(table: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a ``.csv``, ``.tsv`` or ``.jsonl`` with their numbers; column names in small letters, without blanks.

    Args:
        table: a file, or the URL of one; no more than a part of it is in memory.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with _opened(table) as file:
            if str(table).lower().endswith((".csv", ".tsv")):
                first = file.readline()
                file.seek(0)
                reader = csv.DictReader(file, delimiter=max(",;\t|", key=first.count))
                for row in reader:
                    yield reader.line_num, {clean(name): value for name, value in row.items()}
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    found = json.loads(line)
                    if not isinstance(found, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, {clean(name): value for name, value in found.items()}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{table} cannot be read ({error})", hint="one JSON object a line, or a CSV with a header"
        ) from error


@contextmanager
def _opened(table: Path | str) -> Iterator[io.TextIOWrapper]:
    with open_binary(table) as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # spreadsheets write the other one
        file.seek(0)
        yield io.TextIOWrapper(
            file, encoding="utf-16" if wide else "utf-8-sig", errors="surrogateescape", newline=""
        )


@contextmanager
def open_binary(file: Path | str) -> Iterator[Any]:
    """A file, or what is behind a URL, to read from.

    Raises:
        UserError: the store does not work.
        OSError: the file is not there.
    """
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            yield opened
        return
    with remote.store(file) as (files, path):
        opened = files.open(path, "rb", block_size=_BLOCK)
    with opened:
        yield opened


@functools.lru_cache(maxsize=1024)
def clean(name: object) -> str:
    """A column's name as :data:`LABELS` and the others have it."""
    return re.sub(r"\s+", "_", str(name or "").strip().lower())
