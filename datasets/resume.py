"""What an earlier call of ``prepare`` did, so that a repeated one goes on where it stopped."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crossfake.datasets.losses import COLUMNS as LISTED
from crossfake.datasets.losses import FACE, FRAME, NO_RECORD, read_skipped
from crossfake.datasets.names import Names
from crossfake.datasets.outcomes import RecordOutcome
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import COLUMNS, fit
from crossfake.datasets.sources.base import Record
from crossfake.errors import UserError

_ORIGIN = int(COLUMNS["origin"][1:])


def origin_of(record: Record, suffix: str) -> str:
    """A row's ``origin``: the record's, cut to what the column holds, and which frame or face it is."""
    name = fit(record.origin, _ORIGIN - 32) if suffix else fit(record.origin, _ORIGIN)
    return name.decode("utf-8", "surrogateescape") + suffix


class Done:
    """What an earlier call did: records that it wrote or skipped need not be opened again, wherever new ones stand."""

    def __init__(self, writer: ShardWriter) -> None:
        self.out, self.last = writer.out, writer.last_origin
        self.whole = Names(writer.origins())
        self.parts = Names(name for origin in writer.origins() if "#" in origin for name in _bases(origin))
        # Of the record that the last row is from, more rows may have been lost.
        self.begun = _bases(self.last) if self.last else set()

    def has(self, record: Record) -> bool:
        """Whether all of a record is written."""
        if origin_of(record, "") in self.whole:
            return True
        return _base(record) in self.parts and not self._has_begun(record)

    def _has_begun(self, record: Record) -> bool:
        return _base(record) in self.begun

    def without(self, records: Iterator[Record], bar: Any) -> Iterator[Record]:
        """The records that are still to be read; the bar passes the others."""
        for record in records:
            if self.has(record):
                bar.update()
            else:
                yield record

    def check(self, records: Iterator[Record]) -> None:
        """Refuse a source that does not have the last row's file: it cannot be the one that was prepared before."""
        if not any(self.last == origin_of(record, "") or self._has_begun(record) for record in records):
            raise UserError(
                f"{self.out} holds images that the source no longer has", hint="name another --out"
            )

    def rest(self, record: Record, outcomes: list[RecordOutcome]) -> list[RecordOutcome]:
        """What of a record is not there yet: after the row that was written last, and what was skipped before it."""
        if not self._has_begun(record):
            return outcomes
        origins = [origin_of(record, outcome.suffix) for outcome in outcomes]
        if self.last not in origins:
            raise UserError(
                f"{record.origin} is not what {self.out} was made from", hint="name another --out"
            )
        place = origins.index(self.last)
        return [outcome for outcome in outcomes[:place] if outcome.image is None] + outcomes[place + 1 :]

    def skipped(self, path: Path) -> Iterable[str]:
        """Reasons of the records already skipped. Lines of frames whose video is done again are dropped."""
        kept = [line for line in read_skipped(path.parent) if line[2] != NO_RECORD and self._stands(line[0])]
        with open(path, "w", newline="", errors="surrogateescape") as file:
            csv.writer(file).writerows([LISTED, *kept])
        self.whole.update(line[0] for line in kept)
        return [line[1] for line in kept]

    def _stands(self, origin: str) -> bool:
        bases = _bases(origin)
        return not bases or any(base in self.parts for base in bases - self.begun)


def _base(record: Record) -> str:
    """What the origins of a record's frames and faces begin with."""
    return origin_of(record, "#").removesuffix("#")


def _bases(origin: str) -> set[str]:
    """What the record of a row may be called, when the row is one frame or one face of it."""
    without_face = FACE.sub("", origin)
    return {without_face, FRAME.sub("", without_face)} - {origin}
