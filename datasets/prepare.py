"""Sources to shards: decode, crop, group and split, in several processes and in a fixed order."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from crossfake.datasets.codecs import Pixels, check_codec
from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.datasets.faces import GLANCE, Cropper, Skip
from crossfake.datasets.shards import COLUMNS, Row, ShardSet, ShardWriter, fit
from crossfake.datasets.sources import Asked, Record, count, is_shards, open_source
from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError

SKIPPED = "skipped.csv"
_LISTED = ("number", "file", "reason", "detail")
_CHUNK = 16  # records per task: enough that handing them over costs nothing


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of :func:`prepare`.

    Attributes:
        source: name of a registered source, a folder of images, or a shard folder.
        out: shard folder to write.
        size: height and width in pixels.
        crop: ``face``, ``center`` or ``none``.
        margin: side of a face crop relative to FFHQ's framing, of a central square relative to the largest one.
        split: shares of train, val and test, as ``0.8/0.1/0.1``; a source's own split wins.
        name: what the rows' ``source`` column says; the folder's own name when empty.
        label: ``real`` or ``fake``; a source's own labels win.
        generator: what made the fakes; the source's name when empty.
        limit: stop after so many images of the source, skipped ones included; None takes all.
        codec: ``raw``, ``webp``, or ``original`` (the file's bytes as they are, without any crop).
        workers: processes; one per core when 0.
        face_model: YuNet's ONNX file.
        seed: for splits and for drawn sources.
    """

    source: str
    out: Path
    size: int = 64
    crop: str = "face"
    margin: float = 1.0
    split: str = "0.8/0.1/0.1"
    name: str = ""
    label: str = "real"
    generator: str = ""
    limit: int | None = None
    codec: str = "raw"
    workers: int = 0
    face_model: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_codec(self.codec)
        Fractions.parse(self.split)
        self.cropper()  # checks crop and margin
        for name, value in (("limit", self.limit), ("workers", self.workers or 1)):
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} is less than one", mend=f"give --{name} 1 or more")
        if not 8 <= self.size <= 4096:
            raise UserError(
                f"a size of {self.size} pixels is out of range", mend="give --size between 8 and 4096"
            )
        if self.label not in ("real", "fake"):
            raise UserError(f"there is no label {self.label!r}", mend="give --label real or fake")
        if self.codec == "original" and self.crop != "none":
            raise UserError("codec original keeps files as they are", mend="give --crop none with it")
        if self.source == "toyfaces" and self.limit is None:
            raise UserError("toyfaces never ends", mend="say how many with --limit 5000")
        if self.source == "toyfaces" and self.crop == "face":
            raise UserError("toyfaces are drawn as crops already", mend="give --crop none")

    def cropper(self) -> Cropper:
        return Cropper(self.size, self.crop, self.margin, self.face_model)


@dataclass(frozen=True)
class Prepared:
    """What came of it: the folder, images in it, images left out by reason, and seconds taken."""

    out: Path
    images: int
    skipped: dict[str, int]
    seconds: float

    def table(self) -> str:
        lines = [f"{self.images:8,}  images in {self.out}"]
        lines += [f"{count:8,}  skipped: {reason}" for reason, count in sorted(self.skipped.items())]
        return "\n".join(lines) + (f"\n{'':10}each is listed in {self.out / SKIPPED}" if self.skipped else "")


@dataclass(frozen=True)
class _Outcome:
    image: Pixels | bytes | None
    group: str = ""
    reason: str = ""
    detail: str = ""


_Waiting = deque[tuple[list[Record], Future[list[_Outcome]]]]


def prepare(settings: PrepareSettings) -> Prepared:
    """Turn a source into shards. A killed call goes on where it stopped when it is repeated.

    Raises:
        UserError: the source is not there or holds nothing, or ``out`` holds other shards.
    """
    cropper = settings.cropper()
    asked = Asked(settings.source, settings.seed, settings.size)
    records = itertools.islice(open_source(asked), settings.limit)
    before = ShardSet(settings.source) if is_shards(Path(settings.source)) else None
    attributes = {
        "source": settings.name or asked.name,
        "source_hash": before.hash if before else "",
        "crop": cropper.description(before.attributes.get("crop") if before else None),
        "split": settings.split,
        "seed": settings.seed,
        "label": settings.label,
        "generator": settings.generator,
    }
    expected = [number for number in (settings.limit, count(asked)) if number is not None]
    size = None if settings.codec == "original" else settings.size
    fractions = Fractions.parse(settings.split, settings.seed)
    started = time.monotonic()
    with ShardWriter(settings.out, size, settings.codec, attributes=attributes) as writer:
        handled = _skip_handled(records, writer.last_origin, settings.out)
        skipped, images = Counter(_read_skipped(settings.out, handled)), writer.rows_done
        with (
            open(settings.out / SKIPPED, "a", newline="", errors="surrogateescape") as file,
            tqdm(
                desc=f"prepare {asked.name}",
                unit="img",
                initial=handled,
                total=min(expected, default=None),
            ) as bar,
        ):
            listing = csv.writer(file)
            outcomes = _outcomes(records, cropper, settings)
            for number, (record, outcome) in enumerate(outcomes, handled):
                if outcome.image is None:
                    skipped[outcome.reason] += 1
                    listing.writerow([number, record.origin, outcome.reason, outcome.detail])
                    file.flush()
                else:
                    writer.append(outcome.image, _row(record, outcome.group, settings, fractions))
                    images += 1
                bar.update()
                if skipped:
                    bar.set_postfix(skipped=skipped.total(), refresh=False)
    if not images:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
        raise UserError(
            f"no image of {settings.source} could be used ({reasons})", mend="look at --crop and --size"
        )
    return Prepared(settings.out, images, dict(skipped), time.monotonic() - started)


def _skip_handled(records: Iterator[Record], last_origin: str | None, out: Path) -> int:
    """Drop the records up to the last one that is in the shards already; returns their number."""
    if last_origin is None:
        return 0
    width = int(COLUMNS["origin"][1:])
    for number, record in enumerate(records, 1):
        if fit(record.origin, width).decode("utf-8", "surrogateescape") == last_origin:
            return number
    raise UserError(f"{out} holds images that the source no longer has", mend="name another --out")


def _read_skipped(out: Path, handled: int) -> Iterable[str]:
    """Reasons of the records already handled; lines for later ones are dropped, they will be written again."""
    path = out / SKIPPED
    kept: list[list[str]] = []
    if path.exists():
        with open(path, newline="", errors="surrogateescape") as file:
            kept = [
                line
                for line in csv.reader(file)
                if len(line) == len(_LISTED) and line[0].isdigit() and int(line[0]) < handled
            ]
    with open(path, "w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([_LISTED, *kept])
    return [line[2] for line in kept]


def _outcomes(
    records: Iterator[Record], cropper: Cropper, settings: PrepareSettings
) -> Iterator[tuple[Record, _Outcome]]:
    """Handle records in the workers, a few chunks ahead, in the order they came."""
    workers = settings.workers or os.cpu_count() or 1
    handle = partial(_handle_chunk, cropper=cropper, original=settings.codec == "original")
    chunks = iter(lambda: list(itertools.islice(records, _CHUNK)), [])
    if workers == 1:
        for chunk in chunks:
            yield from zip(chunk, handle(chunk), strict=True)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads may hang
    waiting: _Waiting = deque()
    with ProcessPoolExecutor(workers, spawn, initializer=_start_worker) as pool:
        with _interrupts_ignored():
            for _ in range(workers):  # each finds no idle worker and starts one
                pool.submit(os.getpid)
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(handle, chunk)))
                if len(waiting) > 4 * workers:  # reading no further ahead keeps memory flat
                    yield from _next(waiting)
            while waiting:
                yield from _next(waiting)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, perhaps for want of memory",
                mend="run the same again with fewer --workers; it goes on from here",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _next(waiting: _Waiting) -> Iterator[tuple[Record, _Outcome]]:
    chunk, future = waiting.popleft()
    return zip(chunk, future.result(), strict=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile are deaf to Ctrl-C from birth, and none is half started when it comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # there is a worker per core already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers wait for ever for a parent that was killed: each holds the others' pipe open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _handle_chunk(chunk: list[Record], cropper: Cropper, original: bool) -> list[_Outcome]:
    return [_handle(record, cropper, original) for record in chunk]


def _handle(record: Record, cropper: Cropper, original: bool) -> _Outcome:
    try:
        if not isinstance(record.image, Path):
            if original:
                raise Skip("not a file")
            return _Outcome(cropper(record.image), record.group or pixel_hash(record.image))
        content = record.image.read_bytes()
        glance = decode_image(content, record.origin, at_least=GLANCE)
        group = record.group or pixel_hash(glance)
        return _Outcome(content if original else cropper.open(content, glance), group)
    except Skip as reason:
        return _Outcome(None, reason=str(reason))
    except OSError as error:
        return _Outcome(None, reason="unreadable", detail=error.strerror or str(error))
    except Unreadable as error:
        return _Outcome(None, reason="unreadable", detail=error.reason)


def pixel_hash(image: Pixels) -> str:
    """The group of an image about whose origin nothing is known: equal for equal pixels in whatever file format."""
    height, width = image.shape[:2]
    return hashlib.sha256(b"%d %d " % (height, width) + np.ascontiguousarray(image).tobytes()).hexdigest()[
        :32
    ]


def _row(record: Record, group: str, settings: PrepareSettings, fractions: Fractions) -> Row:
    label = record.label if record.label is not None else int(settings.label == "fake")
    source = settings.name or record.source
    generator = record.generator or settings.generator or source
    return Row(
        label=label,
        source=source,
        generator=generator if label else "",
        split=record.split or fractions.split_of(group),
        group=group,
        seed=record.seed,
        origin=record.origin,
    )
