"""Sources to shards: decode, crop, group and split, in several processes and in a fixed order."""

from __future__ import annotations

import csv
import hashlib
import itertools
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crossfake.datasets.codecs import Pixels, check_codec
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import Cropper, Skip
from crossfake.datasets.shards import COLUMNS, Row, ShardWriter, fit
from crossfake.datasets.sources import Asked, Record, open_source
from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError

SKIPPED = "skipped.csv"
_CHUNK = 16  # records per task: enough that handing them over costs nothing


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of :func:`prepare`.

    Attributes:
        source: name of a registered source, a folder of images, or a shard folder.
        out: shard folder to write.
        size: height and width in pixels.
        crop: ``face``, ``center`` or ``none``.
        margin: side of a face crop relative to FFHQ's framing.
        split: shares of train, val and test, as ``0.8/0.1/0.1``; a source's own split wins.
        name: what the rows' ``source`` column says; the folder's own name when empty.
        label: ``real`` or ``fake``; a source's own labels win.
        generator: what made the fakes; the source's name when empty.
        limit: stop after so many images of the source; None takes all.
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
    record: Record
    image: Pixels | bytes | None
    group: str
    reason: str = ""


def prepare(settings: PrepareSettings) -> Prepared:
    """Turn a source into shards. A killed call goes on where it stopped when it is repeated.

    Raises:
        UserError: the source is not there or holds nothing, or ``out`` holds other shards.
    """
    cropper = Cropper(settings.size, settings.crop, settings.margin, settings.face_model)
    asked = Asked(settings.source, settings.seed, settings.size)
    records = itertools.islice(open_source(asked), settings.limit)
    attributes = {
        "source": settings.name or settings.source,
        "crop": cropper.description(),
        "split": settings.split,
        "seed": settings.seed,
    }
    size = None if settings.codec == "original" else settings.size
    fractions = Fractions.parse(settings.split, settings.seed)
    started = time.monotonic()
    with ShardWriter(settings.out, size, settings.codec, attributes=attributes) as writer:
        handled = _skip_handled(records, writer.last_origin, settings.out)
        skipped, images = Counter(_read_skipped(settings.out, handled)), writer.rows_done
        with (
            open(settings.out / SKIPPED, "a", newline="", errors="surrogateescape") as file,
            tqdm(
                desc=f"prepare {Path(settings.source).name}",
                unit="img",
                initial=handled,
                total=settings.limit,
            ) as bar,
        ):
            listing = csv.writer(file)
            for number, outcome in enumerate(_outcomes(records, cropper, settings), handled):
                if outcome.image is None:
                    skipped[outcome.reason] += 1
                    listing.writerow([number, outcome.record.origin, outcome.reason])
                    file.flush()
                else:
                    writer.append(outcome.image, _row(outcome, settings, fractions))
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
                if len(line) == 3 and line[0].isdigit() and int(line[0]) < handled
            ]
    with open(path, "w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([["number", "file", "reason"], *kept])
    return [line[2] for line in kept]


def _outcomes(records: Iterator[Record], cropper: Cropper, settings: PrepareSettings) -> Iterator[_Outcome]:
    """Handle records in the workers, few chunks ahead, in the order they came."""
    workers = settings.workers or os.cpu_count() or 1
    handle = partial(_handle_chunk, cropper=cropper, original=settings.codec == "original")
    chunks = iter(lambda: list(itertools.islice(records, _CHUNK)), [])
    if workers == 1:
        for chunk in chunks:
            yield from handle(chunk)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads may hang
    with ProcessPoolExecutor(workers, spawn) as pool:
        yield from itertools.chain.from_iterable(_ordered(pool, handle, chunks, ahead=4 * workers))


def _ordered(pool: Executor, work: Any, items: Iterator[Any], ahead: int) -> Iterator[list[_Outcome]]:
    """``pool.map`` that reads only ``ahead`` items before they are needed, so that memory stays flat."""
    waiting: deque[Future[list[_Outcome]]] = deque(
        pool.submit(work, item) for item in itertools.islice(items, ahead)
    )
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in itertools.islice(items, 1))
    finally:
        for future in waiting:
            future.cancel()


def _handle_chunk(chunk: list[Record], cropper: Cropper, original: bool) -> list[_Outcome]:
    return [_handle(record, cropper, original) for record in chunk]


def _handle(record: Record, cropper: Cropper, original: bool) -> _Outcome:
    try:
        content: Any = record.image if not isinstance(record.image, Path) else record.image.read_bytes()
        group = record.group or hashlib.sha256(content).hexdigest()[:32]
        if original:
            if not isinstance(content, bytes):
                raise Skip("not a file")
            decode_image(content)  # a broken file is found now, not while training
            return _Outcome(record, content, group)
        return _Outcome(record, _crop(content, cropper), group)
    except Skip as reason:
        return _Outcome(record, None, "", str(reason))
    except OSError as error:
        return _Outcome(record, None, "", f"unreadable ({error.strerror or error})")
    except UserError:
        return _Outcome(record, None, "", "unreadable")


def _crop(content: Any, cropper: Cropper) -> Pixels:
    if not isinstance(content, bytes):
        return cropper(content)
    # A large JPEG is decoded smaller first. A face that is then too small is looked for in the full picture.
    at_least = max(512, 4 * cropper.size)
    image = decode_image(content, at_least=at_least)
    try:
        return cropper(image)
    except Skip:
        if min(image.shape[:2]) > 2 * at_least:
            raise
        return cropper(decode_image(content))


def _row(outcome: _Outcome, settings: PrepareSettings, fractions: Fractions) -> Row:
    record = outcome.record
    label = record.label if record.label is not None else int(settings.label == "fake")
    source = settings.name or record.source
    generator = record.generator or settings.generator or source
    return Row(
        label=label,
        source=source,
        generator=generator if label else "",
        split=record.split or fractions.split_of(outcome.group),
        group=outcome.group,
        origin=record.origin,
    )
