"""Sources to shards: decode, crop, group and split, in several processes and in a fixed order."""

from __future__ import annotations

import csv
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.codecs import Pixels, check_codec
from crossfake.datasets.crops import Cropper
from crossfake.datasets.firewall import Seen
from crossfake.datasets.losses import (
    CLASSES,
    FACE,
    FRAME,
    SKIPPED,
    Loss,
    keeping_margin,
    losses_of,
    margins_of,
    read_skipped,
    shares,
    warnings_of,
)
from crossfake.datasets.losses import COLUMNS as LISTED
from crossfake.datasets.outcomes import Options, Outcome, handle_chunk
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import COLUMNS, Row, ShardSet, fit
from crossfake.datasets.sources import (
    SOURCES,
    Asked,
    Missing,
    Record,
    open_source,
)
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.sources.naming import generator_below, hints_at_fakes
from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError
from crossfake.images import captioned_sheet, save_png
from crossfake.progress import tqdm
from crossfake.stopping import Stopper
from crossfake.workers import map_in_order

REJECTS = "rejects.png"
FOLDERS = "folders"  # in place of a generator's name
_ABOUT_FACES = ("faces", "min_face", "min_sharpness", "max_yaw", "min_confidence")
_CHUNK = 16  # records per task: enough that handing them over costs nothing
_REJECTS_SHOWN = 48
_ORIGIN = int(COLUMNS["origin"][1:])


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of :func:`prepare`.

    Attributes:
        source: a registered source, ``NAME:PATH``, or a path whose layout is recognised: a folder of images and
            videos, a zip archive, a published data set, a shard folder.
        out: shard folder to write.
        size: height and width in pixels.
        crop: ``face``, ``square``, ``center`` or ``none``; see :class:`~crossfake.datasets.crops.Cropper`.
        margin: side of the crop; 0 is the policy's own.
        faces: ``largest``, ``all`` or ``mask``: which of several faces.
        min_face: least side of a face's box, in pixels.
        min_sharpness: least variance of the Laplacian of a face.
        max_yaw: most degrees that a head may be turned.
        min_confidence: least confidence of the face detector.
        edge: ``skip`` or ``reflect`` a picture that ends too close to the face.
        frames: of each video, evenly spread.
        split: shares of train, val and test, as ``0.8/0.1/0.1``; a source's own split wins.
        name: what the rows' ``source`` column says; the data set's or folder's own name when empty.
        label: ``real`` or ``fake``; a source's own labels win. When None, images are taken to be real, unless a
            folder's name hints at fakes: then this has to be said.
        generator: what made the fakes; ``folders`` is the sub-folder that each is in; the source's name when empty.
        variant: of a data set that holds its files in several versions, as FaceForensics++ does (``c23``, ``c40``).
        limit: stop after so many images of the source, skipped ones included; None takes all.
        only: ``real`` or ``fake`` takes one class of a source that has both.
        codec: ``raw``, ``webp``, or ``original`` (the file's bytes as they are, without any crop).
        history: JPEG quality through which every crop goes once, so that all share one compression; 0 is none.
        enlarge: how many times a crop may be enlarged; 0 is the policy's own limit.
        workers: processes; one per core when 0.
        face_model: YuNet's ONNX file.
        seed: for splits and for drawn sources.
    """

    source: str
    out: Path
    size: int = 64
    crop: str = "face"
    margin: float = 0.0
    faces: str = "largest"
    min_face: int = 0
    min_sharpness: float = 0.0
    max_yaw: float = 90.0
    min_confidence: float = 0.6
    edge: str = "skip"
    frames: int = 32
    split: str = "0.8/0.1/0.1"
    name: str = ""
    label: str | None = None
    generator: str = ""
    variant: str = ""
    limit: int | None = None
    only: str | None = None
    codec: str = "raw"
    history: int = 0
    enlarge: float = 0.0
    workers: int = 0
    face_model: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_codec(self.codec)
        Fractions.parse(self.split)
        self.cropper()  # checks crop, margin and filters
        for name, value in (
            ("limit", self.limit),
            ("workers", self.workers or 1),
            ("frames", self.frames),
            ("history", self.history or 1),
        ):
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} is less than one", mend=f"give --{name} 1 or more")
        if not 8 <= self.size <= 4096:
            raise UserError(
                f"a size of {self.size} pixels is out of range", mend="give --size between 8 and 4096"
            )
        if self.label not in (None, "real", "fake"):
            raise UserError(f"there is no label {self.label!r}", mend="give --label real or fake")
        unused = [name for name in _ABOUT_FACES if name in self.filters()]
        if unused and not self.cropper().finds_faces:
            raise UserError(
                f"--crop {self.crop} looks for no faces", mend=f"leave --{unused[0].replace('_', '-')} out"
            )
        if self.codec == "original" and self.crop != "none":
            raise UserError("codec original keeps files as they are", mend="give --crop none with it")
        if self.source == "toyfaces" and self.limit is None:
            raise UserError("toyfaces never ends", mend="say how many with --limit 5000")
        if self.source == "toyfaces" and self.cropper().finds_faces:
            raise UserError("toyfaces are drawn as crops already", mend="give --crop none")

    def cropper(self) -> Cropper:
        return Cropper(
            self.size,
            self.crop,
            self.margin,
            self.face_model,
            self.faces,
            self.enlarge,
            self.min_face,
            self.min_sharpness,
            self.max_yaw,
            self.min_confidence,
            self.edge,
        )

    def filters(self) -> dict[str, Any]:
        """What was left out on purpose, where anything was: part of the set's description, not of the crop's."""
        given = {
            "faces": (self.faces, "largest"),
            "min_face": (self.min_face, 0),
            "min_sharpness": (self.min_sharpness, 0.0),
            "max_yaw": (self.max_yaw, 90.0),
            "min_confidence": (self.min_confidence, 0.6),
            "only": (self.only, None),
            "variant": (self.variant, ""),
        }
        return {name: value for name, (value, default) in given.items() if value != default}


@dataclass(frozen=True)
class Prepared:
    """What came of it: the folder, its real and fake images, those left out by reason, what was missing, seconds.

    Attributes:
        losses: what was left out of ``real``, of ``fake`` and of what has no label.
    """

    out: Path
    real: int
    fake: int
    skipped: dict[str, int]
    missing: Missing
    seconds: float
    losses: dict[str, Loss]

    @property
    def images(self) -> int:
        return self.real + self.fake

    def table(self) -> str:
        lines = [f"{self.images:8,}  images in {self.out}: {self.real:,} real, {self.fake:,} fake"]
        lines += [f"{count:8,}  skipped: {reason}" for reason, count in sorted(self.skipped.items())]
        lines += self.missing.lines()
        if self.skipped:
            lines.append(f"{'':10}each is listed in {self.out / SKIPPED}")
        if (self.out / REJECTS).exists():
            lines.append(f"{'':10}some are shown in {self.out / REJECTS}")
        lines += warnings_of(self.losses)
        return "\n".join(lines)


def prepare(settings: PrepareSettings) -> Prepared:
    """Turn a source into shards. A killed call goes on where it stopped when it is repeated.

    Raises:
        UserError: the source is not there or holds nothing, or ``out`` holds other shards.
    """
    cropper = settings.cropper()
    asked = Asked(settings.source, settings.seed, settings.size, settings.variant)
    layout = asked.layout
    records = _records(asked, settings)
    first = next(records, None)
    if first is None:
        raise UserError(f"{settings.source} has no {settings.only} images", mend="leave --only out")
    before = ShardSet(asked.path) if layout == "shards" else None
    history = [*(before.attributes.get("history", []) if before else [])]
    attributes = {
        "source": settings.name or asked.name,
        "source_hash": before.hash if before else "",
        "crop": cropper.description(before.attributes.get("crop") if before else None),
        "history": history + ([f"jpeg {settings.history} 4:2:0"] if settings.history else []),
        "filters": settings.filters(),
        "split": settings.split,
        "seed": settings.seed,
        "label": settings.label or "real",
        "generator": settings.generator,
    }
    if before and (lost := shares(losses_of(before))):
        attributes["lost"] = lost
    if SOURCES.get(layout).has_videos:
        attributes["frames"] = settings.frames
    expected = None if settings.only else SOURCES.get(layout)().count(asked)
    if layout not in (settings.source.partition(":")[0], "folder", "shards", "zip"):
        tqdm.write(f"reading {asked.path} as {layout}; folder:{asked.path} reads it as plain files")
    with (
        Stopper() as stopper,
        ShardWriter(
            settings.out,
            None if settings.codec == "original" else settings.size,
            settings.codec,
            attributes=attributes,
            masks=SOURCES.get(layout).has_masks and settings.codec != "original",
        ) as writer,
    ):
        work = _Work(settings, asked, cropper, writer)
        work.run(itertools.chain([first], records), expected, f"prepare {asked.name}", stopper)
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
            mend=f"give --margin {margin:g}, for all sources" if margin else "look at --crop and --size",
        )
    shards = ShardSet(settings.out)
    fakes = shards.columns["label"] == 1
    counts = int((~fakes).sum()), int(fakes.sum())
    return Prepared(
        settings.out, *counts, dict(work.skipped), asked.missing, work.seconds, losses_of(shards) or {}
    )


def _records(asked: Asked, settings: PrepareSettings) -> Iterator[Record]:
    records = open_source(asked)
    if settings.only:
        records = (record for record in records if record.label == int(settings.only == "fake"))
    return itertools.islice(records, settings.limit)


@dataclass
class _Work:
    """One call of :func:`prepare` while it writes."""

    settings: PrepareSettings
    asked: Asked
    cropper: Cropper
    writer: ShardWriter
    skipped: Counter[str] = field(default_factory=Counter)
    rejects: list[tuple[Pixels, str]] = field(default_factory=list)
    written: int = 0
    seconds: float = 0.0

    def run(self, records: Iterator[Record], expected: int | None, title: str, stopper: Stopper) -> None:
        started = time.monotonic()
        out = self.settings.out
        done = _Done(self.writer)
        if done.last is not None:
            done.check(_records(replace(self.asked, missing=Missing()), self.settings))
        totals = [number for number in (self.settings.limit, expected) if number is not None]
        self.skipped.update(done.skipped(out / SKIPPED))
        fractions = Fractions.parse(self.settings.split, self.settings.seed)
        with (
            open(out / SKIPPED, "a", newline="", errors="surrogateescape") as file,
            tqdm(desc=title, unit="img", total=min(totals, default=None)) as bar,
        ):
            listing = csv.writer(file)
            fresh = done.without(records, bar)
            for record, outcomes in _outcomes(fresh, self.cropper, self.settings):
                for outcome in done.rest(record, outcomes):
                    origin = _origin(record, outcome.suffix)
                    if outcome.image is not None:
                        row = _row(record, outcome.group, origin, self.settings, fractions)
                        self.writer.append(outcome.image, row, outcome.mask)
                        self.written += 1
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
        self.seconds = time.monotonic() - started


def _origin(record: Record, suffix: str) -> str:
    name = fit(record.origin, _ORIGIN - 32) if suffix else fit(record.origin, _ORIGIN)
    return name.decode("utf-8", "surrogateescape") + suffix


class _Done:
    """What an earlier call did: records that it wrote or skipped need not be opened again, wherever new ones stand."""

    def __init__(self, writer: ShardWriter) -> None:
        self.out, self.last = writer.out, writer.last_origin
        self.whole = set(writer.origins())
        self.parts = {name for origin in self.whole for name in _bases(origin)}
        # Of the record that the last row is from, more rows may have been lost.
        self.begun = _bases(self.last) if self.last else set()

    def has(self, record: Record) -> bool:
        if _origin(record, "") in self.whole:
            return True
        return _base(record) in self.parts and not self._has_begun(record)

    def _has_begun(self, record: Record) -> bool:
        return _base(record) in self.begun

    def without(self, records: Iterator[Record], bar: Any) -> Iterator[Record]:
        for record in records:
            if self.has(record):
                bar.update()
            else:
                yield record

    def check(self, records: Iterator[Record]) -> None:
        """Refuse a source that does not have the last row's file: it cannot be the one that was prepared before."""
        if not any(self.last == _origin(record, "") or self._has_begun(record) for record in records):
            raise UserError(
                f"{self.out} holds images that the source no longer has", mend="name another --out"
            )

    def rest(self, record: Record, outcomes: list[Outcome]) -> list[Outcome]:
        """What of a record is not there yet: after the row that was written last, and what was skipped before it."""
        if not self._has_begun(record):
            return outcomes
        origins = [_origin(record, outcome.suffix) for outcome in outcomes]
        if self.last not in origins:
            raise UserError(
                f"{record.origin} is not what {self.out} was made from", mend="name another --out"
            )
        place = origins.index(self.last)
        return [outcome for outcome in outcomes[:place] if outcome.image is None] + outcomes[place + 1 :]

    def skipped(self, path: Path) -> Iterable[str]:
        """Reasons of the records already skipped. Lines of frames whose video is done again are dropped."""
        kept = [line for line in read_skipped(path.parent) if self._stands(line[0])]
        with open(path, "w", newline="", errors="surrogateescape") as file:
            csv.writer(file).writerows([LISTED, *kept])
        self.whole.update(line[0] for line in kept)
        return [line[1] for line in kept]

    def _stands(self, origin: str) -> bool:
        bases = _bases(origin)
        return not bases or bool(bases & self.parts - self.begun)


def _base(record: Record) -> str:
    """What the origins of a record's frames and faces begin with."""
    return _origin(record, "#").removesuffix("#")


def _bases(origin: str) -> set[str]:
    """What the record of a row may be called, when the row is one frame or one face of it."""
    without_face = FACE.sub("", origin)
    return {without_face, FRAME.sub("", without_face)} - {origin}


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Tasks for the workers: a few images, or one video."""
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == _CHUNK or is_video(record.image):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _outcomes(
    records: Iterator[Record], cropper: Cropper, settings: PrepareSettings
) -> Iterator[tuple[Record, list[Outcome]]]:
    """Handle records in the workers, in the order they came."""
    options = Options(settings.codec, settings.frames, settings.history)
    handle = partial(handle_chunk, cropper=cropper, options=options)
    for chunk, outcomes in map_in_order(handle, _chunks(records), settings.workers):
        yield from zip(chunk, outcomes, strict=True)


def _row(record: Record, group: str, origin: str, settings: PrepareSettings, fractions: Fractions) -> Row:
    label = record.label if record.label is not None else int(settings.label == "fake")
    if (
        record.label is None
        and not settings.label
        and hints_at_fakes(f"{record.source}/{record.origin.rpartition('/')[0]}")
    ):
        raise UserError(
            f"{record.origin} of {record.source} would be called real, its folder hints at a fake",
            mend="give --label real or fake",
        )
    source = settings.name or record.source
    named = generator_below(record.origin) if settings.generator == FOLDERS else settings.generator
    generator = record.generator or named or source
    return Row(
        label=label,
        source=source,
        generator=generator if label else "",
        split=record.split or fractions.split_of(group),
        group=group,
        seed=record.seed,
        origin=origin,
        own_split=bool(record.split) and not record.dealt,
    )
