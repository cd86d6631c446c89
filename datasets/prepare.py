"""Sources to shards: decode, crop, group and split, in several processes and in a fixed order."""

from __future__ import annotations

import csv
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.crops import SMALLER, Cropper
from crossfake.datasets.decode import CODES
from crossfake.datasets.firewall import Seen
from crossfake.datasets.losses import (
    CLASSES,
    NO_RECORD,
    SKIPPED,
    Loss,
    keeping_margin,
    losses_of,
    margins_of,
    read_skipped,
    shares,
    warnings_of,
)
from crossfake.datasets.outcomes import Options, RecordOutcome, handle_apart, handle_chunk
from crossfake.datasets.resume import Done, origin_of
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.sources.base import (
    SOURCES,
    Record,
    Rejected,
    SourceSpec,
    absolute,
    open_source,
)
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.sources.labelling import label_of_rest
from crossfake.datasets.sources.naming import generator_below, label_of
from crossfake.datasets.sources.tallies import LeftOut, Missing
from crossfake.datasets.splits import Fractions
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.executor import LOCAL, Demand, ExecutorSettings, map_in_order
from crossfake.images import captioned_sheet, save_png
from crossfake.progress import tqdm
from crossfake.stopping import Stopper

REJECTS = "rejects.png"
FOLDERS = "folders"  # in place of a generator's name
_SHARD_ROWS = 10_000
_CHUNK, _CHUNK_THERE = 16, 64  # records per task, here and on Ray: enough that handing them over costs little
_CHUNK_BYTES = 2 << 20  # of files that travel with their records
_REJECTS_SHOWN = 48


@dataclass(frozen=True)
class Prepared:
    """What came of it: the folder, its real and fake images, those left out by reason, what was missing, seconds.

    Attributes:
        losses: what was left out of ``real``, of ``fake`` and of what has no label.
        left_out: files that are no pictures.
        codes: how many of the images written now are not as they should be, by code.
        notes: what the user should know.
    """

    out: Path
    real: int
    fake: int
    skipped: dict[str, int]
    missing: Missing
    seconds: float
    losses: dict[str, Loss]
    left_out: LeftOut = field(default_factory=LeftOut)
    codes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Rows in all."""
        return self.real + self.fake

    def table(self) -> str:
        """What was written and what was left out, and why, for a terminal."""
        lines = [f"{self.images:8,}  images in {self.out}: {self.real:,} real, {self.fake:,} fake"]
        lines += [
            f"{count:8,}  skipped: {reason}{self._by_class(reason)}"
            for reason, count in sorted(self.skipped.items())
        ]
        lines += [f"{count:8,}  {CODES[code]}" for code, count in sorted(self.codes.items())]
        lines += self.missing.lines() + self.left_out.lines()
        if self.skipped or self.left_out.counts:
            lines.append(f"{'':10}each is listed in {self.out / SKIPPED}")
        if (self.out / REJECTS).exists():
            lines.append(f"{'':10}some are shown in {self.out / REJECTS}")
        return "\n".join([*lines, *warnings_of(self.losses), *self.notes])

    def _by_class(self, reason: str) -> str:
        """How many of each class are too small: that may be a mark of one."""
        if not reason.startswith(SMALLER):
            return ""
        counts = {label: loss.reasons[reason] for label, loss in self.losses.items() if label}
        return f" ({', '.join(f'{count:,} {label}' for label, count in counts.items() if count)})"


def prepare(settings: PrepareSettings, where: ExecutorSettings = LOCAL) -> Prepared:
    """Turn a source into shards. A killed call goes on where it stopped when it is repeated.

    Args:
        settings: what to prepare.
        where: what opens and cuts the pictures, and writes the shards; the same rows come of it.

    Raises:
        UserError: the source is not there or holds nothing, something in it has no label, or ``out`` holds other
            shards. Nothing is written then.
    """
    with where.connected():
        return _prepared(settings, where)


def _prepared(settings: PrepareSettings, where: ExecutorSettings) -> Prepared:
    cropper = settings.cropper()
    named = settings.named_labels()
    spec = SourceSpec(settings.source, settings.seed, settings.size, settings.variant, named, where=where)
    layout = spec.layout
    opened = open_source(spec)
    classes = SOURCES.get(layout)().classes(spec)
    rest = label_of_rest(spec, classes, settings.label)
    records = _wanted(opened, settings, rest)
    first = next(records, None)
    if first is None:
        raise UserError(f"{settings.source} has no {settings.only} images", hint="leave --only out")
    before = ShardSet(spec.path) if layout == "shards" else None
    if before is not None:
        _check_treated(before, settings)
    history = [*(before.attributes.get("history", []) if before else [])]
    attributes = {
        "source": settings.name or spec.name,
        "source_hash": before.hash if before else "",
        "crop": cropper.description(before.attributes.get("crop") if before else None),
        "history": history + settings.treatment,
        "filters": settings.filters(),
        "split": settings.split,
        "seed": settings.seed,
        "label": settings.label or "real",
        "generator": settings.generator,
    }
    if before and (lost := shares(losses_of(before))):
        attributes["lost"] = lost
    if named:
        attributes["labels"] = named
    if SOURCES.get(layout).has_videos:
        attributes["frames"] = settings.frames
    expected = None if settings.only or classes is None else classes.total
    if layout not in (settings.source.partition(":")[0], "folder", "shards", "zip", "manifest"):
        tqdm.write(f"reading {spec.path} as {layout}; folder:{spec.path} reads it as plain files")
    masks = SOURCES.get(layout).has_masks and settings.codec != "original" and not settings.native
    with Stopper() as stopper, _writer(settings, where, attributes, masks) as writer:
        work = _Work(settings, spec, rest, cropper, writer, where)
        work.run(itertools.chain([first], records), expected, f"prepare {spec.name}", stopper)
    if before is not None and (record := Seen.load(before.path)):
        record.save(settings.out)  # fakes keep what their generator learned from
    if work.rejects:
        images, captions = zip(*work.rejects, strict=True)
        save_png(captioned_sheet(np.stack(images), captions), settings.out / REJECTS)
    if not writer.rows_done + work.written:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in work.skipped.items())
        margin = keeping_margin(margins_of(line[-1] for line in read_skipped(settings.out)))
        raise UserError(
            f"no image of {settings.source} could be used ({reasons})",
            hint=f"give --margin {margin:g}, for all sources" if margin else "look at --crop and --size",
        )
    shards = ShardSet(settings.out)
    fakes = shards.columns["label"] == 1
    counts = int((~fakes).sum()), int(fakes.sum())
    notes = [*spec.notes, *_of_one_group(shards)]
    if before is not None and before.size and settings.native:
        notes.append(
            f"{spec.path} holds pixels of {before.size}×{before.size}: native crops of it are no larger"
        )
    if classes and rest is not None and not settings.label and label_of(spec.path.resolve().stem) != 0:
        notes.append(f"nothing named a class: all {sum(counts):,} are taken as real; --label fake otherwise")
    return Prepared(
        settings.out,
        *counts,
        dict(work.skipped),
        spec.missing,
        work.seconds,
        losses_of(shards) or {},
        spec.left_out,
        dict(work.codes),
        tuple(notes),
    )


def _writer(
    settings: PrepareSettings, where: ExecutorSettings, attributes: dict[str, Any], masks: bool
) -> ShardWriter:
    size = None if settings.codec == "original" or settings.native else settings.size
    if not where.is_ray:
        return ShardWriter(settings.out, size, settings.codec, _SHARD_ROWS, attributes, masks)
    from crossfake.datasets.cluster_writer import ClusterWriter

    return ClusterWriter(settings.out, size, settings.codec, where, _SHARD_ROWS, attributes, masks)


def _check_treated(before: ShardSet, settings: PrepareSettings) -> None:
    """Refuse to call a native crop, resized, a crop that is aligned."""
    crop = before.attributes.get("crop")
    faces = isinstance(crop, dict) and crop.get("policy") in ("face", "square")
    if before.native and faces and not settings.native and not settings.cropper().finds_faces:
        raise UserError(
            f"{before.path} holds native crops, which are not aligned",
            hint="give --pixels native, or --crop face to align them",
        )


def _of_one_group(shards: ShardSet) -> Iterator[str]:
    """A line where all images belong together, so that a share for test or for training can be none."""
    group = next(shards.columns.parts("group"))[0]
    if len(shards) > 1 and all((part == group).all() for part in shards.columns.parts("group")):
        splits = ", ".join(np.unique(shards.columns["split"]))
        yield f"all {len(shards):,} images are one group ({group}) that must not be torn apart: all are in {splits}"


def _wanted(records: Iterator[Record], settings: PrepareSettings, rest: int | None) -> Iterator[Record]:
    """The records that are asked for, each with a label but those that are refused.

    Args:
        rest: the label of those that have none.
    """
    only = None if settings.only is None else int(settings.only == "fake")
    labelled = (
        replace(each, label=_given(rest, each))
        if each.label is None and not isinstance(each.image, Rejected)
        else each
        for each in records
    )
    # what is refused for want of a label is listed with either class
    chosen = (each for each in labelled if only is None or each.label in (None, only))
    return itertools.islice(chosen, settings.limit)


def _given(rest: int | None, record: Record) -> int:
    if rest is None:
        raise UserError(
            f"nothing says whether {record.origin} is real or fake",
            hint="give --label real or fake for all that say nothing",
        )
    return rest


@dataclass
class _Work:
    """One call of :func:`prepare` while it writes."""

    settings: PrepareSettings
    spec: SourceSpec
    rest: int | None
    cropper: Cropper
    writer: ShardWriter
    where: ExecutorSettings
    skipped: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    rejects: list[tuple[Pixels, str]] = field(default_factory=list)
    written: int = 0
    seconds: float = 0.0

    def run(self, records: Iterator[Record], expected: int | None, title: str, stopper: Stopper) -> None:
        started = time.monotonic()
        out = self.settings.out
        done = Done(self.writer)
        if done.last is not None:
            done.check(_wanted(open_source(self.spec.again()), self.settings, self.rest))
        totals = [number for number in (self.settings.limit, expected) if number is not None]
        self.skipped.update(done.skipped(out / SKIPPED))
        fractions = Fractions.parse(self.settings.split, self.settings.seed)
        with (
            open(out / SKIPPED, "a", newline="", errors="surrogateescape") as file,
            tqdm(desc=title, unit="img", total=min(totals, default=None)) as bar,
        ):
            listing = csv.writer(file)
            fresh = done.without(records, bar)
            for record, outcomes in _outcomes(fresh, self.cropper, self.settings, self.where):
                for outcome in done.rest(record, outcomes):
                    origin = origin_of(record, outcome.suffix)
                    if outcome.image is not None:
                        row = _row(record, outcome.group, origin, self.settings, fractions)
                        self.writer.append(outcome.image, row, outcome.mask)
                        self.written += 1
                        self.codes.update(outcome.codes)
                        continue
                    self.skipped[outcome.reason] += 1
                    label = self.settings.label or "" if record.label is None else CLASSES[record.label]
                    listing.writerow([origin, outcome.reason, outcome.detail, label, outcome.margin])
                    file.flush()
                    if outcome.thumbnail is not None and len(self.rejects) < _REJECTS_SHOWN:
                        self.rejects.append((outcome.thumbnail, outcome.reason))
                bar.update()
                if self.skipped:
                    bar.set_postfix(skipped=self.skipped.total(), refresh=False)
                if stopper.asked:  # between two records: an interrupt inside a library's lock might hang
                    raise KeyboardInterrupt("run the same command again and it goes on from there")
            listing.writerows([name, reason, NO_RECORD, "", ""] for name, reason in self.spec.left_out.files)
        self.seconds = time.monotonic() - started


def _chunks(records: Iterator[Record], most: int = _CHUNK) -> Iterator[list[Record]]:
    """Tasks for the workers: a few images, or one video."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += len(record.image) if isinstance(record.image, bytes) else 0
        if len(chunk) == most or size >= _CHUNK_BYTES or is_video(record.image):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _outcomes(
    records: Iterator[Record], cropper: Cropper, settings: PrepareSettings, where: ExecutorSettings
) -> Iterator[tuple[Record, list[RecordOutcome]]]:
    """Handle records in the workers, in the order they came; those of Ray keep the pixels."""
    fractions = Fractions.parse(settings.split, settings.seed)
    options = Options(settings.codec, settings.frames, settings.history, settings.shrink, fractions)
    if not where.is_ray:
        handle = partial(handle_chunk, cropper=cropper, options=options)
        for chunk, outcomes in map_in_order(handle, _chunks(records), settings.workers):
            yield from zip(chunk, outcomes, strict=True)
        return
    from crossfake import cluster
    from crossfake.datasets.cluster_writer import Held

    apart = partial(handle_apart, cropper=cropper, options=options)
    chunks = _chunks(map(absolute, records), _CHUNK_THERE)
    for chunk, (found, reference) in cluster.map_in_order(apart, chunks, Demand(), parts=True):
        for record, kept in zip(chunk, found, strict=True):
            held = (o if o.image is None else replace(o, image=Held(reference, o.image)) for o in kept)
            yield record, list(held)


def _row(record: Record, group: str, origin: str, settings: PrepareSettings, fractions: Fractions) -> Row:
    assert record.label is not None  # those without one are refused, or never came this far
    source = settings.name or record.source
    named = generator_below(record.origin) if settings.generator == FOLDERS else settings.generator
    # --generator says more than the name of a folder that --labels calls fake
    generator = (named if settings.labels else "") or record.generator or named or source
    return Row(
        label=record.label,
        source=source,
        generator=generator if record.label else "",
        split=record.split or fractions.split_of(group),
        group=group,
        seed=record.seed,
        origin=origin,
        own_split=bool(record.split) and not record.dealt,
        parent=record.parent,
    )
