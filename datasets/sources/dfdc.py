"""The Deepfake Detection Challenge (Dolhansky et al. 2020)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossfake.datasets.sources.base import SOURCES, Record, Rejected, Source, SourceSpec, is_there
from crossfake.datasets.sources.folder import VIDEOS, subfolders, walk
from crossfake.datasets.sources.naming import label_of, split_of
from crossfake.errors import UserError

_TABLE = "metadata.json"
_START = 4096  # bytes of the table that show what it is


@SOURCES.register("dfdc")
class DFDC(Source):
    """``[dfdc_train_part_N/]*.mp4`` and ``metadata.json``: ``{"a.mp4": {"label": "FAKE", "original": "b.mp4"}, …}``.

    The group is the original video. The table's own split counts where it names several: the published parts all say
    train. In place of ``a.mp4`` there may be frames that somebody took out already, ``a/000.png``.
    """

    about = "videos of paid actors, and those swapped with each other, in parts"
    has_videos = True
    is_table = True

    def recognises(self, root: Path) -> bool:
        return any(_is_table(folder / _TABLE) for folder in _parts(root))

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        tables = {folder: _read(folder / _TABLE) for folder in _parts(root) if _is_table(folder / _TABLE)}
        splits = {split_of(str(row.get("split") or "")) for rows in tables.values() for row in rows.values()}
        for folder, rows in tables.items():
            for path in walk(folder):
                video = path.name if path.name in rows or path.parent == folder else f"{path.parent.name}.mp4"
                row = rows.get(video)
                origin = path.relative_to(root).as_posix()
                if row is None:
                    why = Rejected("not labelled", f"{_TABLE} does not name it")
                    yield Record(why, origin=origin, source="dfdc")
                    continue
                label = label_of(str(row.get("label") or ""))
                original = str(row.get("original") or "") or video
                yield Record(
                    path,
                    origin=origin,
                    source="dfdc",
                    group=f"dfdc:{original}",
                    split=split_of(str(row.get("split") or "")) if len(splits - {""}) > 1 else "",
                    label=label,
                    generator="dfdc" if label else "",
                )
            for name in rows:
                if not is_there(folder / name) and not is_there(folder / Path(name).stem):
                    spec.missing.add(f"video named by {_TABLE}", name)

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import face_video, write_json

        for part in range(2):
            rows: dict[str, Any] = {}
            for number in range(2):
                original, fake = f"real{part}{number}.mp4", f"fake{part}{number}.mp4"
                rows[original] = {"label": "REAL", "split": "train"}
                rows[fake] = {"label": "FAKE", "split": "train", "original": original}
            folder = out / f"dfdc_train_part_{part}"
            for number, name in enumerate(rows):
                face_video(folder / name, 10 * part + number)
            write_json(folder / _TABLE, rows)
        return out


def _parts(root: Path) -> list[Path]:
    return [root] if (root / _TABLE).is_file() else [root / name for name in subfolders(root)]


def _is_table(path: Path) -> bool:
    """Whether a file, by its beginning, names videos and their labels; others are called so, too."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
    except OSError:
        return False
    return (
        start.lstrip()[:1] == b"{" and b'"label"' in start and any(each.encode() in start for each in VIDEOS)
    )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(row, dict) for row in content.values()):
            raise ValueError("it names no videos")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error})", hint="download it again") from error
    return {str(name): row for name, row in content.items()}
