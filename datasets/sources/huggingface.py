"""What a Hugging Face data set is on disk: an imagefolder with metadata, or parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossfake.datasets.sources import SOURCES, Asked, Record, Source
from crossfake.datasets.sources.folder import IMAGES, label_of, split_of, subfolders, walk
from crossfake.datasets.sources.listing import rows as table_rows
from crossfake.errors import MissingDependency, UserError

_METADATA = ("metadata.csv", "metadata.jsonl")
_GENERATORS = ("generator", "model", "source_model")


@SOURCES.register("huggingface")
class HuggingFace(Source):
    """``[train|validation|test/][real|fake/]*.png``, ``metadata.csv`` or not, ``[data/]train-00000-of-00001.parquet``.

    A label is a class whose name says real or fake. The column ``generator`` or ``model`` names what made a fake.
    """

    about = "a downloaded Hugging Face data set, imagefolder or parquet"

    def recognises(self, root: Path) -> bool:
        folders = [root, *(root / name for name in subfolders(root) if split_of(name))]
        return bool(_parquet(root)) or any((f / name).is_file() for f in folders for name in _METADATA)

    def records(self, asked: Asked) -> Iterator[Record]:
        root = asked.path
        files = _parquet(root)
        if files:
            for file in files:
                yield from _parquet_records(root, file)
            return
        parts = [name for name in subfolders(root) if split_of(name)]
        for folder in [root / name for name in parts] or [root]:
            facts = _metadata(asked, folder)
            for path in walk(folder, IMAGES):
                name = path.relative_to(folder).as_posix()
                row = facts.get(name, {})
                classes = [label_of(part) for part in Path(name).parts[:-1]]
                label = (
                    _label(row.get("label"), None, path)
                    if "label" in row
                    else next((each for each in classes if each is not None), None)
                )
                yield Record(
                    path,
                    origin=path.relative_to(root).as_posix(),
                    source=root.resolve().name,
                    split=split_of(folder.name) if parts else "",
                    label=label,
                    generator=_generator(row) if label else "",
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
    return sorted(root.glob("*.parquet")) + sorted(root.glob("data/*.parquet")) if root.is_dir() else []


def _parquet_records(root: Path, file: Path) -> Iterator[Record]:
    parquet = _opened(file)
    try:
        names = _class_names(parquet.schema_arrow.metadata or {})
        columns = parquet.schema_arrow.names
        image = next((name for name in ("image", "img", "jpg", "png") if name in columns), None)
        if image is None:
            raise UserError(
                f"{file} has no column image (but {', '.join(columns)})", mend="rename the one that it is"
            )
        kept = [image, *(name for name in ("label", "labels", *_GENERATORS) if name in columns)]
        number = 0
        for batch in parquet.iter_batches(batch_size=64, columns=kept):
            for row in batch.to_pylist():
                content = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                value = row.get("label", row.get("labels"))
                label = None if value is None else _label(value, names, file)
                yield Record(
                    content or b"",
                    origin=f"{file.relative_to(root).as_posix()}:{number}",
                    source=root.resolve().name,
                    split=split_of(file.name.split("-")[0].split(".")[0]),
                    label=label,
                    generator=_generator(row) if label else "",
                )
                number += 1
    except _import_pyarrow().ArrowException as error:
        raise _damaged(file, error) from error


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


def _label(value: Any, names: list[str] | None, where: Path) -> int:
    word = names[value] if names and isinstance(value, int) and 0 <= value < len(names) else str(value)
    label = int(word) if word in ("0", "1") and not names else label_of(word)
    if label is None:
        raise UserError(
            f"{where}: the label {word!r} says neither real nor fake",
            mend="write a manifest with your own labels",
        )
    return label


def _generator(row: dict[str, Any]) -> str:
    return next((str(row[name]) for name in _GENERATORS if row.get(name)), "")


def _metadata(asked: Asked, folder: Path) -> dict[str, dict[str, Any]]:
    file = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if file is None:
        return {}
    facts = {str(row["file_name"]): row for _, row in table_rows(file) if row.get("file_name")}
    for name in facts:
        if not (folder / name).exists():
            asked.missing.add(f"image named by {file.name}", name)
    return facts


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("pyarrow", extra="parquet") from error
    return pyarrow
