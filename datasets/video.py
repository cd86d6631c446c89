"""Frames of a video, evenly spread, decoded with PyAV."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.decode import MAX_PIXELS, Unreadable
from crossfake.errors import MissingDependency

_SEEK = 300  # frames between key frames, until a video shows its own: to decode a shorter way is cheaper


def import_av() -> Any:
    """PyAV, or the one-line error that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise MissingDependency("av", extra="video") from error
    av.logging.set_level(av.logging.PANIC)  # what is wrong with a file is said once, by us
    return av


def read_frames(
    path: Path, most: int, name: str | None = None, total: int | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Up to ``most`` frames in the middles of as many equal parts of the video, upright.

    Args:
        path: any file that FFmpeg reads.
        most: how many; a video with fewer frames gives each once.
        name: what to call it in an error.
        total: of how many frames; its own number when None, that of another video to get the frames beside that one's.

    Yields:
        the frame's number, from 0, and its pixels uint8 ``[H, W, 3]``. The same file gives the same numbers.

    Raises:
        Unreadable: no video, or not one frame can be decoded. A video cut short gives the frames that it has.
        MissingDependency: PyAV is not installed.
    """
    av = import_av()
    name = name or str(path)
    given = 0
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe might never end
            raise Unreadable(name, "not a file")
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise Unreadable(name, "no picture in it")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise Unreadable(name, "its codec is not known")
            if context.width * context.height > MAX_PIXELS:
                raise Unreadable(name, f"its frames have {context.width}×{context.height} pixels, too many")
            context.thread_count = 1  # workers are processes already
            # a stream may grow after its header: no such frame is decoded
            context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
            total = total or _count(av, container, stream, path)
            wanted = sorted({int((k + 0.5) * total / most) for k in range(most)})
            for number, frame in _at(container, stream, wanted):
                yield number, _upright(frame)
                given += 1
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        if not given:
            raise Unreadable(name, str(getattr(error, "strerror", None) or error)) from error
    if not given:
        raise Unreadable(name, "no frame can be decoded")


def count_frames(path: Path) -> int:
    """How many frames a video says that it has; 0 when it cannot be opened."""
    av = import_av()
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            return _count(av, container, container.streams.video[0], path) if container.streams.video else 0
    except (av.FFmpegError, OSError, ValueError, EOFError):
        return 0


def _count(av: Any, container: Any, stream: Any, path: Path) -> int:
    """Frames in the video: what the file says, else its packets counted."""
    if stream.frames:
        return int(stream.frames)
    with av.open(str(path), metadata_errors="ignore") as again:
        packets: int = sum(packet.size > 0 for packet in again.demux(again.streams.video[0]))
    return max(1, packets)


def _at(container: Any, stream: Any, wanted: list[int]) -> Iterator[tuple[int, Any]]:
    """The frames of these numbers, in order. Far jumps go by the time stamp; numbers are then derived from it."""
    rate, base, start = stream.average_rate or stream.guessed_rate, stream.time_base, stream.start_time
    seekable = bool(rate and base) and start is not None
    seekable = seekable and container.format.name != "mpeg"  # after a jump its time stamps are guesses
    position = key = 0  # of the next frame, and of the last key frame
    apart = 0  # the widest gap between key frames so far
    steady = seekable  # whether time stamps tell the numbers

    def by_time(frame: Any) -> int:
        return round(float((frame.pts or 0) - start) * float(base * rate))

    frames = container.decode(stream)
    for target in wanted:
        if seekable and target - position > (apart if steady and apart else _SEEK):
            # what is found may start past the target: after an open group of pictures, or between key frames
            for back in (0, apart or _SEEK, target):
                container.seek(start + int(max(0, target - back) / rate / base), stream=stream)
                frames = container.decode(stream)
                first = next((f for f in frames if f.key_frame and f.pts is not None), None)
                if first and by_time(first) <= target:
                    break
            else:
                return
            key = by_time(first)
            position = key + 1
            apart = max(apart, target - key)
            if key == target:
                yield target, first
                continue
        for frame in frames:
            if frame.key_frame:
                key, apart = position, max(apart, position - key)
                steady = steady and by_time(frame) == position
            position += 1
            if position > target:
                yield target, frame
                break
        else:
            return


def _upright(frame: Any) -> Pixels:
    """A phone turns the file, not the picture: undo the rotation that the display matrix names."""
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    turns = round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
