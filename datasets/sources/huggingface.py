"""What a Hugging Face data set is on disk: an imagefolder with metadata, or parquet files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossfake.datasets.sources.base import (
    ON_REQUEST,
    SOURCES,
    Record,
    Rejected,
    Source,
    SourceSpec,
    is_there,
)
from crossfake.datasets.sources.columns import (
    GENERATORS,
    LABELS,
    Class,
    NoClass,
    class_of,
    clean,
    file_of,
    open_binary,
    rows,
)
from crossfake.datasets.sources.folder import IMAGES, is_hidden, slashed, subfolders, walk
from crossfake.datasets.sources.naming import SKIP, label_of, split_of
from crossfake.datasets.sources.objects import ending_of, listing
from crossfake.datasets.sources.tallies import Classes
from crossfake.errors import MissingDependency, UserError

_METADATA = ("metadata.csv", "metadata.jsonl")
_NOT_LABELLED = Rejected("not labelled")


@SOURCES.register("huggingface")
class HuggingFace(Source):
    """``[train|validation|test/][real|fake/]*.png``, ``metadata.csv`` or not, ``[data/]train-00000-of-00001.parquet``.

    A label is a class whose name says real or fake, or a number, 1 being fake; -1 and nothing are no label. The column
    ``generator`` or ``model`` names what made a fake. Folders may have a ``metadata.csv`` each, as those of ArtiFact's
    generators.
    """

    takes_labels = True
    in_stores = True
    is_table = True
    about = "a downloaded Hugging Face data set, imagefolder or parquet"

    def recognises(self, root: Path) -> bool:
        return _is_parquet(root) or any(_table(folder) for folder in _folders(root))

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        files = _parquet(spec)
        if spec.url and not files:
            raise UserError(f"{spec.url} holds no parquet files", hint=f"read it as objects:{spec.url}")
        if files:
            for origin, file in files:
                yield from _parquet_records(spec, origin, file)
            return
        facts: dict[str, dict[str, Any]] = {}
        for folder in _folders(root):
            facts |= _metadata(spec, root, folder)
        parts = [name for name in subfolders(root) if split_of(name)]
        for folder in [root / name for name in parts] or [root]:
            for path in walk(folder, IMAGES):
                origin = slashed(path.relative_to(root).as_posix())
                found = _class(facts.get(origin, {}), spec, None, path)
                if not found.stated:
                    parts_of = reversed(origin.split("/")[:-1])
                    labels = ((part, spec.labels.get(part, label_of(part))) for part in parts_of)
                    part, label = next((each for each in labels if each[1] is not None), ("", None))
                    spec.matched.add(part)
                    found = Class(label, found.generator, stated=False)
                yield _record(path, origin, spec, found, split_of(folder.name) if parts else "")

    def classes(self, spec: SourceSpec) -> Classes | None:
        root, files = spec.path, _parquet(spec)
        if not files:
            found = super().classes(spec)
            tables = [table for folder in _folders(root) if (table := _table(folder))]
            columns = [row for table in tables[:1] for _, row in rows(table)][:1]
        else:
            found = Classes(matched=spec.matched)
            for origin, file in files:
                for record in _parquet_records(spec, origin, file, pixels=False):
                    refused = isinstance(record.image, Rejected)
                    found.add(record.origin, record.source, record.label, refused)
            with _opened(files[0][1]) as first:
                columns = [dict.fromkeys(first.schema_arrow.names)]
        if found and columns and not set(LABELS).intersection(_clean_names(columns[0])):
            found.columns = tuple(filter(None, columns[0]))
        return found

    def count(self, spec: SourceSpec) -> int | None:
        rows_of = 0
        for _, file in _parquet(spec):  # which say it without being read
            with _opened(file) as parquet:
                rows_of += parquet.metadata.num_rows
        return rows_of or super().count(spec)

    def fixture(self, out: Path) -> Path:
        """An imagefolder, and beside it the same as parquet when pyarrow is there."""
        from crossfake.datasets.sources.fixtures import face_bytes, write_face

        for part in ("train", "test"):
            lines = ["file_name,label,generator"]
            for number in range(4):
                kind = ("real", "fake")[number % 2]
                write_face(out / "imagefolder" / part / "images" / f"{number}.png", number)
                lines.append(f"images/{number}.png,{kind},{'mygan' if number % 2 else ''}")
            (out / "imagefolder" / part / "metadata.csv").write_text("\n".join(lines) + "\n")
        pyarrow = _import_pyarrow()
        images = [{"bytes": face_bytes(number, "PNG"), "path": f"{number}.png"} for number in range(4)]
        table = pyarrow.table({"image": images, "label": [0, 1, 0, 1]})
        features = {"label": {"names": ["real", "fake"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        described = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
        (out / "parquet" / "data").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(described, out / "parquet" / "data" / "train-00000-of-00001.parquet")
        return out / "imagefolder"


def _parquet(spec: SourceSpec) -> list[tuple[str, Path | str]]:
    """Parquet files by their names below the source, on a disk or in a store."""
    if not spec.url:
        return [(path.relative_to(spec.path).as_posix(), path) for path in _parquet_below(spec.path)]
    if ending_of(spec.url) == ".parquet":
        return [(spec.path.name, spec.url)]
    names = (name for name in listing(spec.url) if ending_of(name) == ".parquet" and not is_hidden(name))
    return [(name, f"{spec.url}/{name}") for name in sorted(names)]


def _parquet_below(root: Path) -> list[Path]:
    """Up to three folders down: ``data/train-00000-of-00001.parquet``, ``default/train/0000.parquet``."""
    if not root.is_dir():
        return []
    found = [path for depth in range(4) for path in root.glob("*/" * depth + "*.parquet")]
    return sorted(path for path in found if not is_hidden(path.relative_to(root).as_posix()))


def _is_parquet(root: Path) -> bool:
    """Whether the parquet files are the data set, and no table beside pictures."""
    return bool(_parquet_below(root)) and next(walk(root, IMAGES), None) is None


def _parquet_records(
    spec: SourceSpec, origin: str, file: Path | str, pixels: bool = True
) -> Iterator[Record]:
    """Rows of a file; without ``pixels`` only what they say of their class is read. A row group is in memory."""
    *above, name = origin.split("/")
    ways = [name.split("-")[0].split(".")[0], *reversed(above)]
    split = next(filter(None, map(split_of, ways)), "")
    with _opened(file) as parquet:
        columns = parquet.schema_arrow.names
        image = next((name for name in ("image", "img", "jpg", "png") if name in columns), None)
        if image is None:
            raise UserError(
                f"{file} has no column image (but {', '.join(columns)})", hint="rename the one that it is"
            )
        cleaned = _clean_names(columns)
        about = [cleaned[name] for name in (*LABELS, *GENERATORS, "category") if name in cleaned]
        label = next((cleaned[name] for name in LABELS if name in cleaned), "")
        names = _class_names(parquet.schema_arrow.metadata or {}, label)
        number = 0
        kept = [*([image] if pixels or not about else []), *about]
        for batch in parquet.iter_batches(batch_size=64 if pixels else 4096, columns=kept):
            for row in batch.to_pylist():
                found = _class({clean(each): row[each] for each in about}, spec, names, file)
                content = _content(row[image]) if pixels else b""
                yield _record(content, f"{origin}:{number}", spec, found, split)
                number += 1


def _clean_names(columns: Iterable[str]) -> dict[str, str]:
    return {clean(name): name for name in columns}


def _record(
    image: Path | bytes | Rejected, origin: str, spec: SourceSpec, found: Class, split: str
) -> Record:
    """A file that has a class; an empty cell, where there is a column for it, is no class."""
    if found.label == SKIP:
        image = ON_REQUEST
    elif found.label is None and found.stated:
        image = _NOT_LABELLED
    label = None if found.label == SKIP else found.label
    source = spec.path.resolve().name
    return Record(image, origin, source, split=split, label=label, generator=found.generator)


def _content(cell: Any) -> bytes | Rejected:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes) and content:
        return content
    return Rejected("unreadable", "no image's bytes in its cell of the table")


@contextmanager
def _opened(file: Path | str) -> Iterator[Any]:
    pyarrow = _import_pyarrow()
    try:
        with open_binary(file) as opened:
            yield pyarrow.parquet.ParquetFile(opened)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a whole parquet file ({error})", hint="download it again") from error


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Names of a ClassLabel column, which the datasets library writes into the schema."""
    try:
        return list(json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _class(row: dict[str, Any], spec: SourceSpec, names: list[str] | None, where: Path | str) -> Class:
    try:
        found = class_of(row, spec.labels, names)
        spec.matched.add(found.matched)
        return found
    except NoClass as error:
        raise UserError(
            f"{where}: {error}",
            hint="say what the words mean: --labels real=WORD,… fake=WORD,…",
        ) from error


def _folders(root: Path) -> list[Path]:
    """Where a table may lie: in the data set's own folder, or in each of its parts."""
    return [root, *(root / name for name in subfolders(root))]


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in _METADATA if (folder / name).is_file()), None)


def _metadata(spec: SourceSpec, root: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a folder's table, by the image's path below the root."""
    table = _table(folder)
    facts = {}
    for _, row in rows(table) if table else ():
        places = [(base, file_of(row, base)) for base in dict.fromkeys([folder, root])]
        there = next((base / name for base, name in places if name and is_there(base / name)), None)
        if there is not None:
            facts[Path(os.path.relpath(there, root)).as_posix()] = row
        elif places[0][1]:
            spec.missing.add("image named by its metadata", places[0][1])
    return facts


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("pyarrow", extra="parquet") from error
    return pyarrow
