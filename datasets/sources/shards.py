"""Images of an existing shard folder, with all that it knows about them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import (
    SOURCES,
    Record,
    Source,
    SourceSpec,
    is_shards,
)
from crossfake.datasets.sources.tallies import Classes


@SOURCES.register("shards")
class Shards(Source):
    about = "a shard folder made by 'crossfake data prepare' or 'synth generate'"

    def recognises(self, root: Path) -> bool:
        return is_shards(root)

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        """Every row; labels, groups, splits, seeds and parents are kept.

        Origins are kept where they are unique, so that parents are found again, else row numbers stand for them.
        """
        existing = ShardSet(spec.path)
        times = Counter(existing.columns["origin"].tolist())
        for row in range(len(existing)):
            record = record_of(existing, row)
            if times[record.origin] == 1:
                yield record
            else:
                number = f"{row:08d}"  # which an earlier taking over may have given
                yield dataclasses.replace(record, origin=f"{number}+" if number in times else number)

    def count(self, spec: SourceSpec) -> int | None:
        return len(ShardSet(spec.path))

    def classes(self, spec: SourceSpec) -> Classes:
        labels = ShardSet(spec.path).columns["label"]
        return Classes(Counter(("", int(label)) for label in labels), total=len(labels))


def record_of(shards: ShardSet, row: int) -> Record:
    """One row: of codec ``original`` the file's bytes, else the pixels."""
    columns = shards.columns
    return Record(
        shards.stored(row) if shards.codec == "original" else shards.read(row),
        origin=str(columns["origin"][row]) or f"{row:08d}",
        source=str(columns["source"][row]),
        group=str(columns["group"][row]),
        split=str(columns["split"][row]),
        label=int(columns["label"][row]),
        generator=str(columns["generator"][row]),
        seed=int(columns["seed"][row]),
        dealt=not columns["own_split"][row],
        parent=str(columns["parent"][row]),
    )
