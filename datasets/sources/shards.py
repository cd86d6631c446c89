"""Images of an existing shard folder, with all that it knows about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import SOURCES, Asked, Record, Source, is_shards


@SOURCES.register("shards")
class Shards(Source):
    about = "a shard folder made by 'crossfake data prepare' or 'synth generate'"

    def recognises(self, root: Path) -> bool:
        return is_shards(root)

    def records(self, asked: Asked) -> Iterator[Record]:
        """Every row; labels, groups, splits and seeds are kept. Origins are row numbers, so that they stay unique."""
        existing = ShardSet(asked.path)
        columns = {
            name: existing.columns[name]
            for name in ("source", "group", "split", "label", "generator", "seed")
        }
        for row in range(len(existing)):
            yield Record(
                existing.stored(row) if existing.codec == "original" else existing.read(row),
                origin=f"{row:08d}",
                source=str(columns["source"][row]),
                group=str(columns["group"][row]),
                split=str(columns["split"][row]),
                label=int(columns["label"][row]),
                generator=str(columns["generator"][row]),
                seed=int(columns["seed"][row]),
            )
