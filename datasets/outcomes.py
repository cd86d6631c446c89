"""What becomes of one record: decoded, cropped and given its group, in a worker process."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from crossfake.datasets.animation import is_animated
from crossfake.datasets.crops import GLANCE, SMALLER, Crop, Cropper
from crossfake.datasets.decode import Frame, Unreadable, decode, decode_image, file_bytes
from crossfake.datasets.geometry import TOO_CLOSE, Skip
from crossfake.datasets.settings import LARGEST_SHARE
from crossfake.datasets.sources.base import Record, Rejected
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.splits import Fractions
from crossfake.datasets.types import Pixels, Polygons
from crossfake.datasets.video import count_frames, read_frames
from crossfake.errors import UserError
from crossfake.images import thumbnail

_THUMBNAIL = 112


@dataclass(frozen=True)
class Options:
    """What is done to every record besides cropping; see ``PrepareSettings``."""

    codec: str
    frames: int
    history: int
    shrink: float
    fractions: Fractions


@dataclass(frozen=True)
class RecordOutcome:
    """One row to write, or one that is left out.

    Attributes:
        image: pixels, or a file's bytes; where a cluster holds them, what stands for them; None for what is left out.
        margin: the widest that would keep what is left out; None where unknown.
        codes: as of :class:`crossfake.datasets.decode.Decoded`.
    """

    image: Any
    group: str = ""
    suffix: str = ""
    mask: Pixels | None = None
    reason: str = ""
    detail: str = ""
    thumbnail: Pixels | None = None
    margin: float | None = None
    codes: tuple[str, ...] = ()


def handle_chunk(chunk: list[Record], cropper: Cropper, options: Options) -> list[list[RecordOutcome]]:
    """The outcomes of each record, in their order: what a worker process is sent."""
    return [_handle(record, cropper, options) for record in chunk]


def handle_apart(
    chunk: list[Record], cropper: Cropper, options: Options
) -> tuple[list[list[RecordOutcome]], list[tuple[Pixels | bytes, Pixels | None]]]:
    """What becomes of each record, and apart from it the pixels and masks, whose numbers stand in their place.

    Raises:
        UserError: this machine does not have a file that the one which listed it had.
    """
    for record in chunk:
        if isinstance(record.image, Path) and not record.image.exists():
            raise UserError(
                f"{platform.node()} does not see {record.image}",
                hint="put the source on a file system that all machines share, or into an object store",
            )
    pixels: list[tuple[Pixels | bytes, Pixels | None]] = []
    found = []
    for outcomes in handle_chunk(chunk, cropper, options):
        apart = []
        for outcome in outcomes:
            if outcome.image is not None:
                pixels.append((outcome.image, outcome.mask))
                outcome = replace(outcome, image=len(pixels) - 1, mask=None)
            apart.append(outcome)
        found.append(apart)
    return found, pixels


def _handle(record: Record, cropper: Cropper, options: Options) -> list[RecordOutcome]:
    glance: Pixels | None = None
    try:
        if isinstance(record.image, Rejected):
            return [RecordOutcome(None, reason=record.image.reason, detail=record.image.detail)]
        if isinstance(record.image, Path) and is_video(record.image):
            return list(_video(record, record.image, cropper, options))
        if isinstance(record.image, np.ndarray):
            if options.codec == "original":
                raise Skip("not a file")
            glance = record.image
            return _rows(record, cropper.crops(glance, record.box), pixel_hash(glance), cropper, options)
        content = file_bytes(record.image)
        if is_animated(content):
            return list(_video(record, content, cropper, options))
        glance, _, codes = decode(content, record.origin, at_least=GLANCE)
        group = pixel_hash(glance)
        if options.codec == "original":
            return [RecordOutcome(content, record.group or group, codes=codes)]
        crops = cropper.crops_of(content, glance, record.box, _still_mask(record))
        return [replace(row, codes=codes) for row in _rows(record, crops, group, cropper, options)]
    except Skip as reason:
        return [_left_out(reason, _thumbnail(glance), cropper)]
    except OSError as error:
        return [RecordOutcome(None, reason="unreadable", detail=error.strerror or str(error))]
    except Unreadable as error:
        return [RecordOutcome(None, reason="unreadable", detail=error.reason)]


def _rows(
    record: Record, crops: list[Crop], group: str, cropper: Cropper, options: Options
) -> list[RecordOutcome]:
    return [
        RecordOutcome(
            _treated(crop.image, record, record.group or group, cropper, options),
            record.group or group,
            "" if crop.person is None else f"#face={crop.person}",
            None if crop.mask is None else crop.mask[..., 0],
        )
        for crop in crops
    ]


def _left_out(reason: Skip, picture: Pixels | None, cropper: Cropper, suffix: str = "") -> RecordOutcome:
    margin = round(reason.room * cropper.margin, 3) if str(reason) == TOO_CLOSE else None
    return RecordOutcome(None, suffix=suffix, reason=str(reason), thumbnail=picture, margin=margin)


def _video(
    record: Record, source: Path | bytes, cropper: Cropper, options: Options
) -> Iterator[RecordOutcome]:
    """A row per frame, or per face of each frame, of a video or the bytes of an animation."""
    if options.codec == "original":
        raise Skip("a video, not a picture" if isinstance(source, Path) else "an animation, not a picture")
    frames = read_frames(source, options.frames, record.origin)
    first = next(frames)
    group = record.group or pixel_hash(first.pixels)
    codes: dict[int, tuple[str, ...]] = {}
    without_mask: list[int] = []
    passing = _noting(itertools.chain([first], frames), codes)
    pictures = _with_masks(passing, record, options.frames, without_mask)
    for number, crop in cropper.of_video(pictures):
        suffix = f"#frame={number:06d}"
        if isinstance(crop, Skip):
            yield _left_out(crop, crop.picture, cropper, suffix)
            continue
        try:
            treated = _treated(crop.image, record, group, cropper, options)
        except Skip as reason:
            yield _left_out(reason, crop.image, cropper, suffix)
            continue
        yield RecordOutcome(
            treated,
            group,
            suffix + ("" if crop.person is None else f"#face={crop.person}"),
            None if crop.mask is None else crop.mask[..., 0],
            codes=codes[number],
        )
    for number in without_mask:
        yield RecordOutcome(
            None, suffix=f"#frame={number:06d}", reason="no mask", detail="the mask's video is shorter"
        )


def _noting(frames: Iterator[Frame], codes: dict[int, tuple[str, ...]]) -> Iterator[Frame]:
    for frame in frames:
        codes[frame.number] = frame.codes
        yield frame


def _with_masks(
    frames: Iterator[Frame], record: Record, most: int, without: list[int]
) -> Iterator[tuple[int, Pixels, Pixels | None]]:
    """Each frame with that of the mask's video; frames that it lacks are left out, their numbers in ``without``."""
    if not (isinstance(record.mask, Path) and is_video(record.mask) and isinstance(record.image, Path)):
        yield from ((number, image, None) for number, image in frames)
        return
    masks = read_frames(record.mask, most, total=count_frames(record.image))
    at, mask = -1, None
    for number, image in frames:
        try:
            while at < number:
                at, mask = next(masks, (1 << 62, None))
        except Unreadable as error:
            raise Unreadable(record.origin, f"its mask's video: {error.reason}") from error
        if at == number:
            yield number, image, mask
        else:
            without.append(number)


def _still_mask(record: Record) -> Pixels | Polygons | None:
    return decode_image(record.mask) if isinstance(record.mask, Path) else record.mask


def _treated(image: Pixels, record: Record, group: str, cropper: Cropper, options: Options) -> Pixels:
    """A crop as it is stored; only what is learned from is made smaller."""
    if options.shrink and (record.split or options.fractions.split_of(group)) != "test":
        image = shrunk(image, options.shrink, cropper.min_size)
    return with_history(image, options.history)


def shrunk(image: Pixels, least: float, min_size: int) -> Pixels:
    """A native crop at a share of its size that its pixels draw, between ``least`` and 0.85, by averages over areas.

    Raises:
        Skip: no such share leaves ``min_size`` pixels.
    """
    least = max(least, min_size / min(image.shape[:2]))
    if least > LARGEST_SHARE:
        raise Skip(f"{SMALLER} {math.ceil(min_size / LARGEST_SHARE)} pixels, to be shrunk")
    drawn = int(pixel_hash(image)[:8], 16) / 2**32
    share = least + (LARGEST_SHARE - least) * drawn
    height, width = (max(min_size, round(side * share)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def with_history(image: Pixels, quality: int) -> Pixels:
    """One JPEG compression with halved colour, as most pictures on the web have had."""
    if not quality:
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    pixels: Pixels = np.asarray(Image.open(buffer))
    return pixels


def _thumbnail(image: Pixels | None) -> Pixels | None:
    return None if image is None else thumbnail(image, _THUMBNAIL, background=200)


def pixel_hash(image: Pixels) -> str:
    """The group of an image about whose origin nothing is known: equal for equal pixels in whatever file format."""
    height, width = image.shape[:2]
    return hashlib.sha256(b"%d %d " % (height, width) + np.ascontiguousarray(image).tobytes()).hexdigest()[
        :32
    ]
