"""What a Hugging Face data set is on disk: an imagefolder with metadata, or parquet files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossfake.datasets.sources import SOURCES, Asked, Record, Rejected, Source, is_there
from crossfake.datasets.sources.folder import IMAGES, is_hidden, subfolders, walk
from crossfake.datasets.sources.listing import rows as table_rows
from crossfake.datasets.sources.naming import label_of, split_of
from crossfake.errors import MissingDependency, UserError

_METADATA = ("metadata.csv", "metadata.jsonl")
_LABELS = ("label", "labels", "is_fake", "fake", "target", "is_real", "real")
_UNKNOWN = -1  # there is a column for the label, and nothing in it
_GENERATORS = ("generator", "model", "source_model")


@SOURCES.register("huggingface")
class HuggingFace(Source):
    """``[train|validation|test/][real|fake/]*.png``, ``metadata.csv`` or not, ``[data/]train-00000-of-00001.parquet``.

    A label is a class whose name says real or fake, or a number, 1 being fake; -1 and nothing are no label. The column
    ``generator`` or ``model`` names what made a fake.
    """

    about = "a downloaded Hugging Face data set, imagefolder or parquet"

    def recognises(self, root: Path) -> bool:
        folders = [root, *(root / name for name in subfolders(root) if split_of(name))]
        return _is_parquet(root) or any((f / name).is_file() for f in folders for name in _METADATA)

    def records(self, asked: Asked) -> Iterator[Record]:
        root = asked.path
        files = _parquet(root)
        if files:
            for file in files:
                yield from _parquet_records(root, file)
            return
        parts = [name for name in subfolders(root) if split_of(name)]
        folders = [root / name for name in parts] or [root]
        facts: dict[str, dict[str, Any]] = {}
        for folder in dict.fromkeys([root, *folders]):
            facts |= _metadata(asked, root, folder)
        for folder in folders:
            for path in walk(folder, IMAGES):
                origin = path.relative_to(root).as_posix()
                row = facts.get(origin, {})
                classes = [label_of(part) for part in reversed(origin.split("/")[:-1])]
                found = _of_row(row, None, path)
                if found is None:
                    found = next((each for each in classes if each is not None), None), ""
                label, generator = found
                yield Record(
                    path if label is not _UNKNOWN else Rejected("not labelled"),
                    origin=origin,
                    source=root.resolve().name,
                    split=split_of(folder.name) if parts else "",
                    label=label if label is not _UNKNOWN else None,
                    generator=generator,
                )

    def count(self, asked: Asked) -> int | None:
        files = _parquet(asked.path)  # which say it without being read
        return sum(_opened(file).metadata.num_rows for file in files) if files else super().count(asked)

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


def _parquet(root: Path) -> list[Path]:
    """Parquet files up to three folders down: ``data/train-00000-of-00001.parquet``, ``default/train/0000.parquet``."""
    if not root.is_dir():
        return []
    found = [path for depth in range(4) for path in root.glob("*/" * depth + "*.parquet")]
    return sorted(path for path in found if not is_hidden(path.relative_to(root).as_posix()))


def _is_parquet(root: Path) -> bool:
    """Whether the parquet files are the data set, and no table beside pictures."""
    return bool(_parquet(root)) and next(walk(root, IMAGES), None) is None


def _parquet_records(root: Path, file: Path) -> Iterator[Record]:
    parquet = _opened(file)
    origin = file.relative_to(root).as_posix()
    ways = [file.name.split("-")[0].split(".")[0], *reversed(origin.split("/")[:-1])]
    split = next(filter(None, map(split_of, ways)), "")
    try:
        names = _class_names(parquet.schema_arrow.metadata or {})
        columns = parquet.schema_arrow.names
        image = next((name for name in ("image", "img", "jpg", "png") if name in columns), None)
        if image is None:
            raise UserError(
                f"{file} has no column image (but {', '.join(columns)})", mend="rename the one that it is"
            )
        kept = [image, *(name for name in (*_LABELS, *_GENERATORS) if name in columns)]
        number = 0
        for batch in parquet.iter_batches(batch_size=64, columns=kept):
            for row in batch.to_pylist():
                label, generator = _of_row(row, names, file) or (None, "")
                yield Record(
                    _content(row[image]) if label is not _UNKNOWN else Rejected("not labelled"),
                    origin=f"{origin}:{number}",
                    source=root.resolve().name,
                    split=split,
                    label=label if label is not _UNKNOWN else None,
                    generator=generator,
                )
                number += 1
    except _import_pyarrow().ArrowException as error:
        raise _damaged(file, error) from error


def _content(cell: Any) -> bytes | Rejected:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes) and content:
        return content
    return Rejected("unreadable", "no image's bytes in its cell of the table")


def _opened(file: Path) -> Any:
    pyarrow = _import_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is not a whole parquet file ({error})", mend="download it again")


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    """Names of a ClassLabel column, which the datasets library writes into the schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return list((features.get("label") or features.get("labels"))["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _of_row(row: dict[str, Any], names: list[str] | None, where: Path) -> tuple[int | None, str] | None:
    """Label and generator that a row gives: None when it has no column for a label, ``_UNKNOWN`` when it is empty.

    Where one class is called real and the others neither real nor fake, these are generators.
    """
    column = next((name for name in _LABELS if name in row), None)
    if column is None:
        return None
    value, generator = row[column], next((str(row[name]) for name in _GENERATORS if row.get(name)), "")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(int(value)) if isinstance(value, bool) else str("" if value is None else value).strip()
    if word in ("", "-1", "None", "nan"):
        return _UNKNOWN, ""
    if names and word.isdecimal() and int(word) < len(names):
        word = names[int(word)]
        known = [label_of(name) for name in names]
        if known.count(0) == 1 and 1 not in known and label_of(word) is None:
            return 1, generator or word
    label = {"0": 0, "1": 1, "false": 0, "true": 1}.get(word.lower(), label_of(word))
    if label is None:
        raise UserError(
            f"{where}: the label {word!r} says neither real nor fake",
            mend="write a manifest with your own labels",
        )
    if column in ("is_real", "real"):
        label = 1 - label
    return label, generator if label else ""


def _metadata(asked: Asked, root: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a folder's table, by the image's path below the root."""
    file = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    facts = {}
    for _, row in table_rows(file) if file else ():
        name = str(row.get("file_name") or "")
        if name and is_there(folder / name):
            facts[Path(os.path.relpath(folder / name, root)).as_posix()] = row
        elif name:
            asked.missing.add("image named by its metadata", name)
    return facts


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("pyarrow", extra="parquet") from error
    return pyarrow
