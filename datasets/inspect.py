"""What a shard folder, a data set or any folder of images holds, in a table and in pictures."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.crops import crop_words
from crossfake.datasets.decode import Unreadable, decode_image, file_bytes
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES, Record, Rejected, SourceSpec, open_source
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.types import Pixels
from crossfake.datasets.video import read_frames
from crossfake.images import contact_sheet, save_png, thumbnail
from crossfake.pages import plural

_SHEET = 64
_COLUMNS = ("source", "generator", "label", "split", "images")


def inspect(word: str, out: Path | None = None) -> str:
    """A table of counts by source, generator, label and split; a contact sheet of evenly spread images per source.

    Args:
        word: anything that :func:`~crossfake.datasets.prepare.prepare` takes.
        out: folder for the sheets, ``sheet-SOURCE.png``; when None, the shard folder itself, or the working
            folder (the temporary one if that is within the source).

    Raises:
        UserError: it is not there or holds no images.
    """
    spec = SourceSpec(word)
    return (
        _of_shards(spec.path, out or spec.path)
        if spec.layout == "shards"
        else _of_source(spec, out or _outside(spec.path))
    )


def _outside(source: Path) -> Path:
    """The working folder, unless the sheets would lie among the pictures there."""
    within = source.is_dir() and Path().resolve().is_relative_to(source.resolve())
    return Path(tempfile.gettempdir()) if within else Path()


def _of_shards(folder: Path, out: Path) -> str:
    shards = ShardSet(folder)
    columns = [shards.columns[name].tolist() for name in _COLUMNS[:-1]]
    size = f"{shards.size}×{shards.size}" if shards.size else _sizes(shards)
    head = [
        f"{folder}: {plural(len(shards), 'image')}, {size}, codec {shards.codec}, {plural(len(shards.names), 'shard')}",
        f"crop: {crop_words(shards.attributes.get('crop'))}",
        f"history: {', '.join(shards.attributes.get('history', [])) or 'none recorded'}",
        f"groups: {len(np.unique(shards.columns['group'])):,}",
        f"hash: {shards.hash}",
    ]
    sheets = []
    for source in np.unique(shards.columns["source"]):
        rows = np.flatnonzero(shards.columns["source"] == source)
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(_SHEET, len(rows))).astype(int))]
        sheets.append(_sheet(str(source), [shards.read(int(row)) for row in chosen], shards.size, out))
    return "\n".join([*head, "", *_table(Counter(zip(*columns, strict=True))), "", *sheets])


def _sizes(shards: ShardSet) -> str:
    """In words: what sides a native set has."""
    if not shards.native:
        return "any size"
    sides = shards.shapes.min(1)
    low, middle, high = np.quantile(sides, (0, 0.5, 1)).round().astype(int)
    return f"native pixels, shorter side {low} to {high} (median {middle})"


def _of_source(spec: SourceSpec, out: Path) -> str:
    """Counted by names alone; only the pictures of the sheet are opened."""
    counts: Counter[tuple[Any, ...]] = Counter()
    sampled: dict[str, _Sample] = {}
    endless = SOURCES.get(spec.layout).endless
    for record in itertools.islice(open_source(spec), _SHEET if endless else None):
        counts[record.source, record.generator, record.label, record.split] += 1
        sampled.setdefault(record.source, _Sample()).add(record)
    head = [
        f"{spec.word}: draws any number, here {_SHEET}"
        if endless
        else f"{spec.word}: {plural(counts.total(), 'file')}, read as {spec.layout}"
    ]
    sheets = []
    for source, sample in sampled.items():
        pictures = [picture for record in sample.kept if (picture := _first_picture(record)) is not None]
        sheets.append(_sheet(source, pictures[:_SHEET], None, out))
    return "\n".join([*head, "", *_table(counts), *spec.missing.lines(), *spec.left_out.lines(), "", *sheets])


class _Sample:
    """Evenly spread records of a list whose end is not known: every n-th, n doubling when there are too many."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self._seen, self._every = 0, 1

    def add(self, record: Record) -> None:
        if self._seen % self._every == 0:
            self.kept.append(record)
        if len(self.kept) > 2 * _SHEET:
            self.kept = self.kept[::2]
            self._every *= 2
        self._seen += 1


def _first_picture(record: Record) -> Pixels | None:
    try:
        if isinstance(record.image, Rejected):
            return None
        if is_video(record.image):
            return next(_pixels_of_video(record))
        if isinstance(record.image, np.ndarray):
            return record.image
        return decode_image(file_bytes(record.image), record.origin, at_least=128)
    except (Unreadable, OSError):
        return None


def _pixels_of_video(record: Record) -> Iterator[Pixels]:
    if isinstance(record.image, Path):
        for _, frame in read_frames(record.image, 1):
            yield frame


def _table(counts: Counter[tuple[Any, ...]]) -> list[str]:
    rows = [list(_COLUMNS)]
    for (source, generator, label, split), count in sorted(counts.items(), key=str):
        kind = "-" if label is None else "fake" if label else "real"
        rows.append([source, generator or "-", kind, split or "-", f"{count:,}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _sheet(source: str, images: list[Pixels], size: int | None, out: Path) -> str:
    if not images:
        return f"contact sheet: none, no picture of {source} can be read"
    pictures = np.stack([thumbnail(image, min(size or 128, 128)) for image in images])
    file = out / f"sheet-{re.sub(r'[^A-Za-z0-9._-]+', '-', source)[:60] or 'images'}.png"
    save_png(contact_sheet(pictures), file)
    return f"contact sheet: {file}"
