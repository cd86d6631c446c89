"""A table of files, for every data set that has no adapter here."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossfake.datasets.sources import SOURCES, Asked, Record, Source, is_there
from crossfake.datasets.sources.naming import label_of, split_of
from crossfake.errors import UserError

_KNOWN = ("file", "label", "generator", "group", "split", "source", "seed")


@SOURCES.register("manifest")
class Manifest(Source):
    """A ``.csv`` with a header or a ``.jsonl``, streamed line by line.

    ``file`` is relative to the table's folder. ``label`` is real or fake (or 0 or 1); ``generator``, ``group``,
    ``split``, ``source`` and ``seed`` may follow; other columns are left alone. Equal groups of one source belong
    together; a group with a colon in it, such as ``imagenet:n01440764_1``, is the same in every data set.
    """

    has_videos = True
    about = "a CSV or JSONL table of files with what is known about each"

    def recognises(self, root: Path) -> bool:
        return root.suffix.lower() in (".csv", ".jsonl") and root.is_file()

    def records(self, asked: Asked) -> Iterator[Record]:
        table = asked.path
        seen: set[str] = set()
        for number, row in rows(table):
            name = str(row.get("file") or "")
            if not name:
                raise UserError(
                    f"{table} line {number} names no file", mend=f"give it the columns {', '.join(_KNOWN)}"
                )
            path = table.parent / name
            if not is_there(path):
                asked.missing.add("file", name)
                continue
            word = str(row.get("label", "") if row.get("label") is not None else "").strip()
            label = int(word) if word in ("0", "1") else label_of(word)
            if word and label is None:
                raise UserError(f"{table} line {number}: {word!r} is no label", mend="write real or fake")
            split = str(row.get("split") or "")
            if split and not split_of(split):
                raise UserError(
                    f"{table} line {number}: {split!r} is no split", mend="write train, val or test"
                )
            source = str(row.get("source") or table.resolve().parent.name)
            group = str(row.get("group") or "")
            yield Record(
                path,
                origin=f"{name}:{number}" if name in seen else name,
                source=source,
                group=f"{source}:{group}" if group and ":" not in group else group,
                split=split_of(split),
                label=label,
                generator=str(row.get("generator") or ""),
                seed=_seed(row.get("seed")),
            )
            seen.add(name)

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        lines = ["file,label,generator,group,split"]
        for number in range(6):
            write_face(out / "pictures" / f"{number}.png", number)
            lines.append(
                f"pictures/{number}.png,{('real', 'fake')[number % 2]},{('', 'mygan')[number % 2]},p{number // 2},train"
            )
        (out / "list.csv").write_text("\n".join(lines) + "\n")
        return out / "list.csv"


def _seed(value: object) -> int:
    try:
        seed = int(str(value))
    except ValueError:
        return -1
    return seed if -1 <= seed < 1 << 63 else -1


def rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            if table.suffix.lower() == ".csv":
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, row
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{table} cannot be read ({error})", mend="one JSON object a line, or a CSV with a header"
        ) from error
