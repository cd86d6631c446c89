"""One pass over one picture: everything that probes and checks need, as numbers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit import files, pixels
from crossfake.datasets.audit.sample import Picked
from crossfake.datasets.codecs import Pixels
from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.datasets.faces import find_faces
from crossfake.datasets.fingerprints import fingerprint
from crossfake.datasets.prepare import pixel_hash
from crossfake.datasets.sources import Rejected
from crossfake.datasets.video import is_video, read_frames
from crossfake.errors import UserError

NAMES: dict[str, tuple[str, ...]] = {
    "format": files.FORMAT,
    "jpeg": files.JPEG,
    "bytes": ("bytes per pixel",),
    "blocks": pixels.BLOCKS,
    "size": pixels.SIZE,
    "spectrum": pixels.SPECTRUM,
    "colours": pixels.COLOURS,
    "thumbnail": pixels.THUMBNAIL,
    "surroundings": pixels.SURROUNDINGS,
    "faces": pixels.FACES,
    "metadata": files.METADATA,
}
_CHUNK = 16  # pictures per task
_SHOWN = 96  # pixels: side of the pictures on the page
_LEAST_SCORE = 0.3  # faces scored lower are not looked at: their score would be noise
_MAX_BYTES = 500_000_000


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
            image = next(read_frames(record.image, 1, record.origin))[1]  # type: ignore[arg-type]
        else:
            content = _content(record.image)
            image = decode_image(content, record.origin)
    except Unreadable as error:
        return _unreadable(picked, error.reason)
    except OSError as error:
        return _unreadable(picked, error.strerror or str(error))
    values = _pixel_values(image, face_model)
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


def _content(image: object) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        found = image.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a named pipe would wait for ever
            raise OSError("not a file")
        if found.st_size > _MAX_BYTES:
            raise OSError(f"it has {found.st_size:,} bytes, too many")
    content: bytes = image.read_bytes()  # type: ignore[attr-defined]
    return content


def _pixel_values(image: Pixels, face_model: Path | None) -> dict[str, npt.NDArray[np.float32]]:
    small = pixels.glance(image)
    height, width = image.shape[:2]
    values = {
        "blocks": pixels.blockiness(image),
        "size": np.array([width, height, width / height], np.float32),
        "spectrum": pixels.spectrum(image),
        "colours": pixels.colours(small),
        "thumbnail": pixels.thumbnail(small),
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


def _small_jpeg(image: Pixels) -> bytes:
    scale = min(1.0, _SHOWN / max(image.shape[:2]))
    extent = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, extent, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return bytes(encoded)


def look_at_all(
    picks: Iterator[Picked], count: int, workers: int, face_model: Path | None, with_pictures: bool
) -> Iterator[Facts]:
    """Facts of every record in the order they came, measured in worker processes a few chunks ahead."""
    workers = min(
        workers or os.cpu_count() or 1, -(-count // (4 * _CHUNK))
    )  # a process takes a second to start
    measure = partial(_look_at_chunk, face_model=face_model, with_pictures=with_pictures)
    chunks = iter(lambda: list(islice(picks, _CHUNK)), [])
    if workers <= 1:
        for chunk in chunks:
            yield from measure(chunk)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads may hang
    waiting: deque[Future[list[Facts]]] = deque()
    with ProcessPoolExecutor(workers, spawn, initializer=_start_worker) as pool:
        with _interrupts_ignored():
            for _ in range(workers):  # each finds no idle worker and starts one
                pool.submit(os.getpid)
        try:
            for chunk in chunks:
                waiting.append(pool.submit(measure, chunk))
                if len(waiting) > 4 * workers:  # reading no further ahead keeps memory flat
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, perhaps for want of memory",
                mend="try again with fewer --workers",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _look_at_chunk(chunk: list[Picked], face_model: Path | None, with_pictures: bool) -> list[Facts]:
    return [look(picked, face_model, with_pictures) for picked in chunk]


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile are deaf to Ctrl-C: the parent alone decides what happens then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
