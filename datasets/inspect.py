"""What a shard folder holds, in a table and in a picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.shards import ShardSet
from crossfake.images import contact_sheet, save_png

_SHEET = 64


def inspect(folder: Path, sheet: Path) -> str:
    """A table of counts by source, generator, label and split; writes a contact sheet of evenly spread images."""
    shards = ShardSet(folder)
    names = ("source", "generator", "label", "split")
    counts = Counter(zip(*(shards.columns[name].tolist() for name in names), strict=True))
    rows = [["source", "generator", "label", "split", "images"]]
    rows += [
        [source, generator or "-", "fake" if label else "real", split or "-", f"{count:,}"]
        for (source, generator, label, split), count in sorted(counts.items())
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    chosen = np.unique(np.linspace(0, len(shards) - 1, min(_SHEET, len(shards))).astype(int))
    save_png(
        contact_sheet(np.stack([_thumbnail(shards.read(int(row)), shards.size or 128) for row in chosen])),
        sheet,
    )
    size = f"{shards.size}×{shards.size}" if shards.size else "any size"
    head = [
        f"{folder}: {len(shards):,} images, {size}, codec {shards.codec}, {len(shards.names)} shards",
        f"crop: {shards.attributes.get('crop', 'not recorded')}",
        f"groups: {len(np.unique(shards.columns['group'])):,}",
        f"hash: {shards.hash}",
    ]
    return "\n".join([*head, "", *table, "", f"contact sheet: {sheet}"])


def _thumbnail(image: Pixels, size: int) -> Pixels:
    if image.shape[:2] == (size, size):
        return image
    shrunk: Pixels = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return shrunk
