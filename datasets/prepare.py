"""Sources to shards: decode, crop, group and split, in several processes and in a fixed order."""

from __future__ import annotations

import csv
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from crossfake.bounds import Bounds, Count, Seed, Workers, check_bounds
from crossfake.datasets.codecs import check_codec
from crossfake.datasets.crops import (
    MIN_SIZE,
    SMALLER,
    Cropper,
    Enlarge,
    MaxYaw,
    MinConfidence,
    MinFace,
    MinSharpness,
    MinSize,
)
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
from crossfake.datasets.outcomes import LARGEST_SHARE, Options, Outcome, handle_chunk
from crossfake.datasets.resume import Done, origin_of
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.sources.base import (
    SOURCES,
    Asked,
    Record,
    Rejected,
    open_source,
)
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.sources.labelling import label_of_rest
from crossfake.datasets.sources.naming import generator_below, label_of, parse_labels
from crossfake.datasets.sources.tallies import LeftOut, Missing
from crossfake.datasets.splits import Fractions
from crossfake.datasets.types import Pixels
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


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of :func:`prepare`.

    Attributes:
        source: a registered source, ``NAME:PATH``, or a path whose layout is recognised: a folder of images and
            videos, a zip archive, a published data set, a shard folder.
        out: shard folder to write.
        size: height and width in pixels; native crops have their own.
        crop: ``face``, ``square``, ``center`` or ``none``; see :class:`~crossfake.datasets.crops.Cropper`.
        margin: side of the crop; 0 is the policy's own.
        faces: ``largest``, ``all`` or ``mask``: which of several faces.
        min_face: least side of a face's box, in pixels.
        min_sharpness: least variance of the Laplacian of a face.
        max_yaw: most degrees that a head may be turned.
        min_confidence: least confidence of the face detector.
        edge: ``skip`` or ``reflect`` a picture that ends too close to the face, or ``clip`` a native crop there; None
            is ``skip`` for aligned pixels, ``clip`` for native ones.
        pixels: ``aligned``, or ``native`` for upright crops that are not resampled, in rows of their own sizes.
        min_size: least side of a native crop; smaller ones are left out.
        shrink: make each native crop that is not to test on smaller, to a share of its sides drawn between this and
            0.85, which takes the blocks of the JPEG that it was; 0 leaves them as they are.
        frames: of each video, evenly spread.
        split: shares of train, val and test, as ``0.8/0.1/0.1``; a source's own split wins.
        name: what the rows' ``source`` column says; the data set's or folder's own name when empty.
        label: ``real`` or ``fake`` for what nothing else labels; a source's own labels win. When None, one folder that
            nothing names a class is taken to be real, and whoever gets the result is told; see
            :func:`~crossfake.datasets.sources.labelling.label_of_rest`.
        labels: which folders, or values in a table's column for the label, are real, fake, or to be skipped, as
            ``real=A,B``, ``fake=C`` and ``skip=D``.
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
    size: Annotated[int, Bounds(8, 4096)] = 64
    crop: str = "face"
    margin: Annotated[float, Bounds(0.25, 6.5, zero=True)] = 0.0
    faces: str = "largest"
    min_face: MinFace = 0
    min_sharpness: MinSharpness = 0.0
    max_yaw: MaxYaw = 90.0
    min_confidence: MinConfidence = 0.6
    edge: str | None = None
    pixels: str = "aligned"
    min_size: MinSize = MIN_SIZE
    shrink: Annotated[float, Bounds(0.1, LARGEST_SHARE, zero=True)] = 0.0
    frames: Annotated[int, Bounds(1, 10**6)] = 32
    split: str = "0.8/0.1/0.1"
    name: str = ""
    label: str | None = None
    labels: Sequence[str] = ()
    generator: str = ""
    variant: str = ""
    limit: Count | None = None
    only: str | None = None
    codec: str = "raw"
    history: Annotated[int, Bounds(1, 100, zero=True)] = 0
    enlarge: Enlarge = 0.0
    workers: Workers = 0
    face_model: Path | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_bounds(self)
        check_codec(self.codec)
        Fractions.parse(self.split)
        self.cropper()  # checks crop, margin and filters
        if self.label not in (None, "real", "fake"):
            raise UserError(f"there is no label {self.label!r}", mend="give --label real or fake")
        self.named_labels()
        unused = [name for name in _ABOUT_FACES if name in self.filters()]
        if unused and not self.cropper().finds_faces:
            raise UserError(
                f"--crop {self.crop} looks for no faces", mend=f"leave --{unused[0].replace('_', '-')} out"
            )
        if self.codec == "original" and self.crop != "none":
            raise UserError("codec original keeps files as they are", mend="give --crop none with it")
        if self.codec == "original" and self.native:
            raise UserError("codec original keeps files, not pixels", mend="give --codec raw or webp")
        if self.shrink and not self.native:
            raise UserError(
                "--shrink is for native crops: aligned ones have one size", mend="give --pixels native"
            )
        if self.source == "toyfaces" and self.limit is None:
            raise UserError("toyfaces never ends", mend="say how many with --limit 5000")
        if self.source == "toyfaces" and self.cropper().finds_faces:
            raise UserError("toyfaces are drawn as crops already", mend="give --crop none")

    @property
    def native(self) -> bool:
        return self.pixels == "native"

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
            self.edge or "",
            self.pixels,
            self.min_size,
        )

    @property
    def treatment(self) -> list[str]:
        """What every crop goes through, in order: part of the set's history."""
        smaller = [f"train and val shrunk to {self.shrink:g}-{LARGEST_SHARE:g}"] if self.shrink else []
        return smaller + ([f"jpeg {self.history} 4:2:0"] if self.history else [])

    def named_labels(self) -> dict[str, int]:
        """Names to labels, of :attr:`labels`."""
        return parse_labels([self.labels] if isinstance(self.labels, str) else self.labels)

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
        return self.real + self.fake

    def table(self) -> str:
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


def prepare(settings: PrepareSettings) -> Prepared:
    """Turn a source into shards. A killed call goes on where it stopped when it is repeated.

    Raises:
        UserError: the source is not there or holds nothing, something in it has no label, or ``out`` holds other
            shards. Nothing is written then.
    """
    cropper = settings.cropper()
    named = settings.named_labels()
    asked = Asked(settings.source, settings.seed, settings.size, settings.variant, named)
    layout = asked.layout
    opened = open_source(asked)
    classes = SOURCES.get(layout)().classes(asked)
    rest = label_of_rest(asked, classes, settings.label)
    records = _wanted(opened, settings, rest)
    first = next(records, None)
    if first is None:
        raise UserError(f"{settings.source} has no {settings.only} images", mend="leave --only out")
    before = ShardSet(asked.path) if layout == "shards" else None
    if before is not None:
        _check_treated(before, settings)
    history = [*(before.attributes.get("history", []) if before else [])]
    attributes = {
        "source": settings.name or asked.name,
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
        tqdm.write(f"reading {asked.path} as {layout}; folder:{asked.path} reads it as plain files")
    with (
        Stopper() as stopper,
        ShardWriter(
            settings.out,
            None if settings.codec == "original" or settings.native else settings.size,
            settings.codec,
            attributes=attributes,
            masks=SOURCES.get(layout).has_masks and settings.codec != "original" and not settings.native,
        ) as writer,
    ):
        work = _Work(settings, asked, rest, cropper, writer)
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
    columns = shards.columns
    fakes = columns["label"] == 1
    counts = int((~fakes).sum()), int(fakes.sum())
    notes = [*asked.notes, *_of_one_group(columns)]
    if before is not None and before.size and settings.native:
        notes.append(
            f"{asked.path} holds pixels of {before.size}×{before.size}: native crops of it are no larger"
        )
    if classes and rest is not None and not settings.label and label_of(asked.path.resolve().stem) != 0:
        notes.append(f"nothing named a class: all {sum(counts):,} are taken as real; --label fake otherwise")
    return Prepared(
        settings.out,
        *counts,
        dict(work.skipped),
        asked.missing,
        work.seconds,
        losses_of(shards) or {},
        asked.left_out,
        dict(work.codes),
        tuple(notes),
    )


def _check_treated(before: ShardSet, settings: PrepareSettings) -> None:
    """Refuse to call a native crop, resized, a crop that is aligned."""
    crop = before.attributes.get("crop")
    faces = isinstance(crop, dict) and crop.get("policy") in ("face", "square")
    if before.native and faces and not settings.native and not settings.cropper().finds_faces:
        raise UserError(
            f"{before.path} holds native crops, which are not aligned",
            mend="give --pixels native, or --crop face to align them",
        )


def _of_one_group(columns: Mapping[str, Any]) -> Iterator[str]:
    """A line where all images belong together, so that a share for test or for training can be none."""
    groups, splits = columns["group"], ", ".join(np.unique(columns["split"]))
    if len(groups) > 1 and (groups == groups[0]).all():
        yield (
            f"all {len(groups):,} images are one group ({groups[0]}) that must not be torn apart: all are in {splits}"
        )


def _wanted(records: Iterator[Record], settings: PrepareSettings, rest: int | None) -> Iterator[Record]:
    """The records that are asked for, each with a label but those that are refused.

    Args:
        rest: the label of those that have none.
    """
    only = None if settings.only is None else int(settings.only == "fake")
    labelled = (
        replace(each, label=rest) if each.label is None and not isinstance(each.image, Rejected) else each
        for each in records
    )
    # what is refused for want of a label is listed with either class
    chosen = (each for each in labelled if only is None or each.label in (None, only))
    return itertools.islice(chosen, settings.limit)


@dataclass
class _Work:
    """One call of :func:`prepare` while it writes."""

    settings: PrepareSettings
    asked: Asked
    rest: int | None
    cropper: Cropper
    writer: ShardWriter
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
            done.check(_wanted(open_source(self.asked.again()), self.settings, self.rest))
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
            listing.writerows([name, reason, NO_RECORD, "", ""] for name, reason in self.asked.left_out.files)
        self.seconds = time.monotonic() - started


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
    fractions = Fractions.parse(settings.split, settings.seed)
    options = Options(settings.codec, settings.frames, settings.history, settings.shrink, fractions)
    handle = partial(handle_chunk, cropper=cropper, options=options)
    for chunk, outcomes in map_in_order(handle, _chunks(records), settings.workers):
        yield from zip(chunk, outcomes, strict=True)


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
