"""Which pictures the audit looks at: evenly spread over all sources of a class, read one by one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from crossfake.datasets.audit.settings import CLASSES, SPLITS, AuditSettings
from crossfake.datasets.losses import Loss, losses_of
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES, Record, SourceSpec, open_source
from crossfake.datasets.sources.labelling import check_one_side
from crossfake.datasets.sources.shards import record_of
from crossfake.errors import UserError


@dataclass(frozen=True)
class Picked:
    """One record to look at, its class, and what to call it.

    Attributes:
        record: as its source gives it.
        label: 0 real, 1 fake: the source's own, or the side that the source was named on.
        name: the source's name and the record's.
        native: it is a crop at its photo's own pixels.
    """

    record: Record
    label: int
    name: str
    native: bool = False


@dataclass
class Survey:
    """What a first pass over all sources counts, without opening a picture.

    Attributes:
        rows: for each class and source the numbers of the records that are of the class and split asked for.
        groups: of every named group, by hash, the classes (bits 0 and 1) and splits (bits 2 to 4) it was seen in.
        names: a few of the groups that are in more than one split.
        hashes: of the shard folders among the sources.
        splits: that any record names.
        losses: what was left out of each class when its shards were prepared; a class of which nobody kept count is
            not there.
    """

    rows: dict[tuple[int, str], int] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    splits: set[str] = field(default_factory=set)
    losses: dict[str, Loss] = field(default_factory=dict)

    def total(self, label: int) -> int:
        """Records of a class, 0 or 1, in all sources."""
        return sum(count for (of, _), count in self.rows.items() if of == label)

    def note(self, group: str, split: str, label: int) -> None:
        """Remember by hash where a group is: a data set may have millions."""
        if split:
            self.splits.add(split)
        if not group:
            return
        key = _hash(group)
        bits = self.groups.get(key, 0) | 1 << label
        if split in SPLITS:
            bits |= 4 << SPLITS.index(split)
        self.groups[key] = bits
        if _straddles(bits) and len(self.names) < 5:
            self.names.setdefault(key, group)

    def straddling(self) -> tuple[int, list[str]]:
        """How many groups are in more than one split, and the first few by name."""
        return sum(map(_straddles, self.groups.values())), list(self.names.values())

    def in_both_classes(self) -> int:
        """How many groups have reals and fakes."""
        return sum(bits & 3 == 3 for bits in self.groups.values())


def _straddles(bits: int) -> bool:
    return (bits >> 2).bit_count() > 1


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def survey(settings: AuditSettings) -> Survey:
    """Count what there is.

    Raises:
        UserError: a source is not there, or has no picture of the class it was named for.
    """
    found = Survey()
    for label, name in enumerate(CLASSES):
        for word in settings.words(name):
            spec = _spec(word, settings)
            check_one_side(spec)
            if spec.layout == "shards":
                shards = ShardSet(spec.path)
                found.hashes[str(spec.path)] = shards.hash
                if (losses := losses_of(shards)) is not None:
                    found.losses[name] = found.losses.get(name, Loss()) + losses[name]
            count = 0
            for own_label, group, split in _outlines(spec, settings.limit):
                if _wanted(own_label, split, label, settings):
                    found.note(group, split, label)
                    count += 1
            if not count:
                of_split = (
                    f" of split {' or '.join(split or 'none' for split in settings.split)}"
                    if settings.split
                    else ""
                )
                raise UserError(
                    f"{word} holds no {name} pictures{of_split}", hint=f"name another source with --{name}"
                )
            found.rows[label, word] = count
    return found


def sample(settings: AuditSettings, found: Survey) -> Iterator[Picked]:
    """Up to ``limit`` records of each class, evenly spread over its sources taken one after the other."""
    for label, name in enumerate(CLASSES):
        words = settings.words(name)
        total = sum(found.rows[label, word] for word in words)
        count = min(settings.limit, total)
        wanted = iter(int((k + 0.5) * total / count) for k in range(count))
        target, number = next(wanted), 0
        for word in words:
            spec = _spec(word, settings)
            end = number + found.rows[label, word]
            numbers = []
            while target < end:
                numbers.append(target - number)
                target = next(wanted, total)
            named = spec.name  # looked up once: a layout is recognised by listing folders
            native = spec.layout == "shards" and ShardSet(spec.path).native
            for record in _records(spec, numbers, label, settings):
                yield Picked(record, label, f"{named}/{record.origin}", native)
            number = end


def _spec(word: str, settings: AuditSettings) -> SourceSpec:
    return SourceSpec(word, seed=settings.seed)


def _wanted(own: int | None, split: str, label: int, settings: AuditSettings) -> bool:
    return (own is None or own == label) and (not settings.split or split in settings.split)


def _outlines(spec: SourceSpec, limit: int) -> Iterator[tuple[int | None, str, str]]:
    """Label, group and split of every record; of shards without reading any pixels."""
    if spec.layout == "shards":
        columns = ShardSet(spec.path).columns
        yield from zip(*(columns[name].tolist() for name in ("label", "group", "split")), strict=True)
        return
    for record in _opened(spec, limit):
        yield record.label, record.group, record.split


def _opened(spec: SourceSpec, limit: int) -> Iterator[Record]:
    """Every record; of a source that draws without end as many as are looked at."""
    endless = not SOURCES.get(spec.layout).needs_path
    return itertools.islice(open_source(spec), limit if endless else None)


def _records(spec: SourceSpec, numbers: list[int], label: int, settings: AuditSettings) -> Iterator[Record]:
    """The records with these numbers, counted among those of the class and split asked for."""
    if not numbers:
        return
    if spec.layout == "shards":
        shards = ShardSet(spec.path)
        rows = shards.select(split=settings.split or None, label=label)
        for row in rows[np.array(numbers)].tolist():
            yield record_of(shards, row)
        return
    wanted = iter(numbers)
    target, number = next(wanted), 0
    for record in _opened(spec, settings.limit):
        if not _wanted(record.label, record.split, label, settings):
            continue
        if number == target:
            yield record
            target = next(wanted, -1)
            if target < 0:
                return
        number += 1
