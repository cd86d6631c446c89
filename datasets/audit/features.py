"""One pass over one picture: everything that probes and checks need, as numbers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.animation import is_animated
from crossfake.datasets.audit import files, pixels
from crossfake.datasets.audit.mirrors import MIRRORS, mirrors
from crossfake.datasets.audit.sample import Picked
from crossfake.datasets.decode import Unreadable, decode_image, file_bytes
from crossfake.datasets.faces import find_faces
from crossfake.datasets.fingerprints import fingerprint
from crossfake.datasets.geometry import middle_square
from crossfake.datasets.outcomes import pixel_hash
from crossfake.datasets.sources.base import Rejected, absolute
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.types import Pixels
from crossfake.datasets.video import read_frames
from crossfake.executor import LOCAL, ExecutorSettings, map_in_order
from crossfake.images import fitted

NAMES: dict[str, tuple[str, ...]] = {
    "format": files.FORMAT,
    "jpeg": files.JPEG,
    "bytes": ("bytes per pixel",),
    "blocks": pixels.BLOCKS,
    "size": pixels.SIZE,
    "spectrum": pixels.SPECTRUM,
    "scale": pixels.SCALE,
    "clipped": pixels.CLIPPED,
    "colours": pixels.COLOURS,
    "thumbnail": pixels.THUMBNAIL,
    "surroundings": pixels.SURROUNDINGS,
    "faces": pixels.FACES,
    "edges": MIRRORS,
    "metadata": files.METADATA,
}
_CHUNK = 16  # pictures per task
_WINDOW = 128  # pixels: side of the part of native crops whose traces are measured
_SHOWN = 96  # pixels: side of the pictures on the page
_LEAST_SCORE = 0.3  # faces scored lower are not looked at: their score would be noise


@dataclass(frozen=True)
class Facts:
    """What is known of one picture.

    Attributes:
        label: 0 real, 1 fake.
        name: its source's and its own, for people.
        group: the record's, else a hash of its pixels.
        split: the record's.
        problem: why it could not be read; nothing else is known then.
        values: measures by probe, see ``NAMES``; a probe that has nothing to read is absent.
        pixels: a hash that equal pixels share.
        code: perceptual hash, uint64 ``[4]``.
        shown: a small JPEG for the page; empty when there will be none.
        is_file: whether it came as a file rather than as pixels.
    """

    label: int
    name: str
    group: str = ""
    split: str = ""
    problem: str = ""
    values: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    pixels: str = ""
    code: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(4, np.uint64))
    shown: bytes = b""
    is_file: bool = False


def look(picked: Picked, face_model: Path | None, with_pictures: bool) -> Facts:
    """Measure one picture; one that cannot be read is listed with the reason."""
    record, content = picked.record, None
    try:
        if isinstance(record.image, Rejected):
            return _unreadable(picked, record.image.reason)
        if isinstance(record.image, np.ndarray):
            image = record.image
        elif is_video(record.image):
            image = next(read_frames(record.image, 1, record.origin)).pixels  # type: ignore[arg-type]
        else:
            content = file_bytes(record.image)
            moves = is_animated(content)
            image = (
                next(read_frames(content, 1, record.origin)).pixels
                if moves
                else decode_image(content, record.origin)
            )
    except Unreadable as error:
        return _unreadable(picked, error.reason)
    except OSError as error:
        return _unreadable(picked, error.strerror or str(error))
    values = _pixel_values(image, face_model)
    if picked.native:
        values |= _native_values(image)
    if content is not None:
        with contextlib.suppress(Exception):  # PIL raises anything over a damaged header that it decoded
            values |= files.file_values(content, record.origin)
    own = pixel_hash(image)
    return Facts(
        picked.label,
        picked.name,
        record.group or own,
        record.split,
        values=values,
        pixels=own,
        code=fingerprint(image),
        shown=_small_jpeg(image) if with_pictures else b"",
        is_file=content is not None,
    )


def _unreadable(picked: Picked, reason: str) -> Facts:
    return Facts(picked.label, picked.name, problem=reason)


def _pixel_values(image: Pixels, face_model: Path | None) -> dict[str, npt.NDArray[np.float32]]:
    small = pixels.glance(image)
    height, width = image.shape[:2]
    values = {
        "blocks": pixels.blockiness(image),
        "size": np.array([width, height, width / height], np.float32),
        "spectrum": pixels.spectrum(image),
        "colours": pixels.colours(small),
        "thumbnail": pixels.thumbnail(small),
        "edges": mirrors(image),
    }
    if face_model is not None:
        faces = find_faces(image, face_model, _LEAST_SCORE)
        values["faces"] = pixels.face_values(image, faces)
        scale = small.shape[1] / width
        sure = next((face.scaled(scale) for face in faces if face.confidence >= pixels.SURE), None)
        around = pixels.surroundings(small, sure)
        if around is not None:
            values["surroundings"] = around
    return values


def _native_values(image: Pixels) -> dict[str, npt.NDArray[np.float32]]:
    """Of a native crop what a detector sees is a window of it: traces in the pixels are measured in one."""
    window = np.ascontiguousarray(middle_square(image, min(1.0, _WINDOW / min(image.shape[:2]))))
    return {
        "blocks": pixels.blockiness(window),
        "spectrum": pixels.spectrum(window),
        "scale": pixels.resampled(window),
        "clipped": pixels.clipped(image),
    }


def _small_jpeg(image: Pixels) -> bytes:
    small = cv2.cvtColor(fitted(image, _SHOWN), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return bytes(encoded)


def look_at_all(
    picks: Iterator[Picked],
    count: int,
    workers: int,
    face_model: Path | None,
    with_pictures: bool,
    where: ExecutorSettings = LOCAL,
) -> Iterator[Facts]:
    """Facts of every record in the order they came, measured in worker processes a few chunks ahead."""
    # a process takes a second to start: few pictures need few of them
    workers = min(workers or os.cpu_count() or 1, max(1, -(-count // (4 * _CHUNK))))
    measure = partial(_look_at_chunk, face_model=face_model, with_pictures=with_pictures)
    if where.is_ray:
        picks = (replace(picked, record=absolute(picked.record)) for picked in picks)
    chunks = iter(lambda: list(islice(picks, _CHUNK)), [])
    for _, facts in map_in_order(measure, chunks, workers, where):
        yield from facts


def _look_at_chunk(chunk: list[Picked], face_model: Path | None, with_pictures: bool) -> list[Facts]:
    return [look(picked, face_model, with_pictures) for picked in chunk]
