"""Frames of a video, evenly spread, decoded with PyAV; those of animated pictures with PIL."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from crossfake.datasets.animation import HEAD, animation_frames, count_animation, is_animated, may_move
from crossfake.datasets.decode import MAX_PIXELS, Frame, Unreadable, file_bytes
from crossfake.datasets.display import Display
from crossfake.errors import MissingDependency
from crossfake.images import fitted

_SEEK = 300  # frames between key frames, until a video shows its own: to decode a shorter way is cheaper
_EVEN = 1e-3  # by how much the usual rate may differ from the average one, of a rate that does not vary
_ALIKE = 3.0  # mean distance of grey values of 16×16 pixels up to which two key frames show the same
_KEY_SIDE = 960  # pixels of a key frame
_PACKETS = 200  # looked at to tell a still from a video, where a file has several streams


def import_av() -> Any:
    """PyAV, or the one-line error that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise MissingDependency("av", extra="video") from error
    av.logging.set_level(av.logging.PANIC)  # what is wrong with a file is said once, by us
    return av


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container, and of its streams the one that is the video; None where there is none.

    No attached picture such as a cover, and no still beside a moving picture; of the rest the container's best, as
    FFmpeg means it.

    Raises:
        av.FFmpegError: it is no container of a known kind.
        MissingDependency: PyAV is not installed.
    """
    av = import_av()
    with av.open(str(path), metadata_errors="ignore") as container:
        aside = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        streams = [each for each in container.streams.video if not each.disposition & aside]
        if len(streams) > 1:
            moving = _moving(av, path, [each.index for each in streams])
            streams = [each for each in streams if each.index in moving] or streams
        best = container.streams.best("video") if streams else None
        if best is not None and all(best.index != each.index for each in streams):
            best = max(streams, key=lambda each: (each.bit_rate or 0, each.width * each.height))
        yield container, best


def _moving(av: Any, path: Path, streams: list[int]) -> set[int]:
    """Which of the streams have more frames than one, among the first packets."""
    seen = dict.fromkeys(streams, 0)
    with contextlib.suppress(av.FFmpegError), av.open(str(path), metadata_errors="ignore") as container:
        for packet in itertools.islice(container.demux(*(container.streams[at] for at in streams)), _PACKETS):
            seen[packet.stream_index] += packet.size > 0
    return {at for at, packets in seen.items() if packets > 1}


def shown_size(stream: Any) -> tuple[int, int]:
    """Width and height that the header states for a stream's frames, with square pixels, before they are turned."""
    context = stream.codec_context
    return Display(import_av(), stream).size(context.width, context.height)


def read_frames(
    path: Path | bytes, most: int, name: str | None = None, total: int | None = None
) -> Iterator[Frame]:
    """Up to ``most`` frames in the middles of as many equal parts of the video.

    They are as a player shows them: turned and mirrored as the file says, with square pixels, de-interlaced, of
    standard range and gamut.

    Args:
        path: any file that FFmpeg reads, or an animated GIF, WebP, PNG or AVIF; or the bytes of such an animation.
        most: how many; a video with fewer frames gives each once.
        name: what to call it in an error.
        total: of how many frames; its own number when None, that of another video to get the frames beside that one's.

    Yields:
        the frames in order. The same file gives the same numbers.

    Raises:
        Unreadable: no video, or not one frame can be decoded. A video cut short gives the frames that it has.
        MissingDependency: PyAV is not installed.
    """
    name = name or ("the animation" if isinstance(path, bytes) else str(path))
    try:
        content = path if isinstance(path, bytes) else _animation(path)
    except OSError as error:
        raise Unreadable(name, error.strerror or str(error)) from error
    if content is not None:
        wanted = _middles(most, total or count_animation(content))
        yield from animation_frames(content, set(wanted), name)
    elif isinstance(path, Path):
        yield from _decoded(path, most, name, total)


def read_keyframes(path: Path, most: int = 12, name: str | None = None) -> list[Frame]:
    """Up to ``most`` of the frames that a video stores whole, evenly chosen, none like the one before.

    Reduced to 960 pixels: what a reverse search of pictures is best given. Their numbers count key frames. Only those
    are decoded, so a long video costs little more than being read once. Of an animated picture any frames are taken.

    Raises:
        Unreadable: as :func:`read_frames`.
        MissingDependency: PyAV is not installed.
    """
    name = name or str(path)
    try:
        content = _animation(path)
    except OSError as error:
        raise Unreadable(name, error.strerror or str(error)) from error
    frames = _keys(path, 3 * most, name) if content is None else read_frames(content, 3 * most, name)
    kept: list[Frame] = []
    before = None
    for frame in frames:
        grey = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
        if before is None or cv2.absdiff(small, before).mean() > _ALIKE:
            kept.append(dataclasses.replace(frame, pixels=fitted(frame.pixels, _KEY_SIDE)))
            before = small
    if not kept:
        raise Unreadable(name, "no frame can be decoded")
    return [kept[at] for at in _middles(most, len(kept))]


def _keys(path: Path, most: int, name: str) -> Iterator[Frame]:
    av = import_av()
    try:
        with _checked(av, path, name) as (container, stream, display):
            with av.open(str(path), metadata_errors="ignore") as again:
                total = sum(
                    each.is_keyframe for each in again.demux(again.streams[stream.index]) if each.size
                )
            wanted, number = set(_middles(most, total)), -1
            for packet in container.demux(stream):
                if not packet.size or not packet.is_keyframe:
                    continue
                number += 1
                if number not in wanted:
                    continue
                found = [*packet.decode(), *stream.codec_context.decode(None)]  # it holds some back
                stream.codec_context.flush_buffers()
                for frame in found[:1]:
                    pixels, codes = display(frame)
                    start = stream.start_time or 0
                    seconds = None if packet.pts is None else float((packet.pts - start) * packet.time_base)
                    yield Frame(number, pixels, seconds, codes)
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        raise Unreadable(name, str(getattr(error, "strerror", None) or error)) from error


def _animation(path: Path) -> bytes | None:
    """The content of a picture that moves; None for any other file."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe might never end
        raise OSError("not a file")
    with open(path, "rb") as file:
        if not may_move(file.read(HEAD)):
            return None
    content = file_bytes(path)
    return content if is_animated(content) else None


def _middles(most: int, total: int) -> list[int]:
    return sorted({int((k + 0.5) * total / most) for k in range(most)})


@contextlib.contextmanager
def _checked(av: Any, path: Path, name: str) -> Iterator[tuple[Any, Any, Display]]:
    """The container, its video, and what brings frames to the usual form; refused where it is none, or too large."""
    with open_video(path) as (container, stream):
        if stream is None:
            raise Unreadable(name, "no picture in it" + " but a cover" * bool(container.streams.video))
        if stream.codec_context is None:
            raise Unreadable(name, "its codec is not known")
        context, display = stream.codec_context, Display(av, stream)
        width, height = display.size(context.width, context.height)
        if width * height > MAX_PIXELS:
            raise Unreadable(name, f"its frames have {width}×{height} pixels, too many")
        context.thread_count = 1  # workers are processes already
        # a stream may grow after its header: no such frame is decoded
        context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
        yield container, stream, display


def _decoded(path: Path, most: int, name: str, total: int | None) -> Iterator[Frame]:
    av = import_av()
    given = 0
    try:
        with _checked(av, path, name) as (container, stream, display):
            total = total or _count(av, stream, path)
            for number, frame in _at(container, stream, _middles(most, total), path):
                pixels, codes = display(frame)
                yield Frame(number, pixels, _seconds(frame, stream), codes)
                given += 1
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        if not given:
            raise Unreadable(name, str(getattr(error, "strerror", None) or error)) from error
    if not given:
        raise Unreadable(name, "no frame can be decoded")


def _seconds(frame: Any, stream: Any) -> float | None:
    if frame.pts is None or not frame.time_base:
        return None
    return max(0.0, float(frame.pts * frame.time_base - (stream.start_time or 0) * stream.time_base))


def count_frames(path: Path) -> int:
    """How many frames a video or animation says that it has; 0 when it cannot be opened."""
    with contextlib.suppress(OSError):
        if content := _animation(path):
            return count_animation(content)
    av = import_av()
    try:
        with open_video(path) as (_, stream):
            return _count(av, stream, path) if stream else 0
    except (av.FFmpegError, OSError, ValueError, EOFError):
        return 0


def _count(av: Any, stream: Any, path: Path) -> int:
    """Frames in the video: what the file says, else its packets counted."""
    if stream.frames and stream.container.format.name != "avi":  # which counts those that it lacks
        return int(stream.frames)
    with av.open(str(path), metadata_errors="ignore") as again:
        packets: int = sum(packet.size > 0 for packet in again.demux(again.streams[stream.index]))
    return max(1, packets)


class _Timestamps:
    """From the time stamp of a frame to its number, and back: by the frame rate, or by all stamps once they are known.

    Attributes:
        exact: whether the rate is the same throughout, as far as the header says.
        stamps: those of all frames, in order; empty while nothing has asked for them.
    """

    def __init__(self, stream: Any) -> None:
        usual = stream.guessed_rate or 0
        self._rate, self._base, self._start = (
            stream.average_rate or usual,
            stream.time_base,
            stream.start_time,
        )
        self.known = bool(self._rate and self._base) and self._start is not None
        # the usual rate may be the average, so that also the one that fits all time stamps has to be
        self.exact = bool(self.known and stream.average_rate) and all(
            abs(float(rate / self._rate) - 1) < _EVEN for rate in (usual, stream.base_rate or usual)
        )
        self.stamps: list[int] = []

    def number(self, frame: Any) -> int:
        if self.stamps:
            return bisect.bisect_left(self.stamps, frame.pts or 0)
        return round(float((frame.pts or 0) - self._start) * float(self._base * self._rate))

    def stamp(self, number: int) -> int:
        if self.stamps:
            return self.stamps[min(number, len(self.stamps) - 1)]
        return int(self._start + int(number / self._rate / self._base))

    def read(self, av: Any, path: Path, stream: Any) -> None:
        """Take the stamps of all packets: much less work than to decode them."""
        with contextlib.suppress(av.FFmpegError), av.open(str(path), metadata_errors="ignore") as again:
            packets = again.demux(again.streams[stream.index])
            self.stamps = sorted(each.pts for each in packets if each.pts is not None and not each.is_discard)


def _at(container: Any, stream: Any, wanted: list[int], path: Path) -> Iterator[tuple[int, Any]]:
    """The frames of these numbers, in order. Far jumps go by the time stamp; numbers are then derived from it."""
    clock = _Timestamps(stream)
    seekable = clock.known and container.format.name != "mpeg"  # after a jump its time stamps are guesses
    position = key = 0  # of the next frame, and of the last key frame
    apart = 0  # the widest gap between key frames so far
    steady = seekable  # whether time stamps tell the numbers

    frames = container.decode(stream)
    for target in wanted:
        if seekable and target - position > (apart if steady and apart else _SEEK):
            if not (clock.stamps or (steady and clock.exact)):
                clock.read(import_av(), path, stream)
                steady = bool(clock.stamps)
            # what is found may start past the target: after an open group of pictures, or between key frames
            for back in (0, apart or _SEEK, target, None):
                if back is None:  # transport streams may lead past the first frame where it is named
                    container.seek(0)
                else:
                    container.seek(clock.stamp(max(0, target - back)), stream=stream)
                frames = container.decode(stream)
                first = next((f for f in frames if f.key_frame and f.pts is not None), None)
                if first and clock.number(first) <= target:
                    break
            else:
                return
            key = clock.number(first)
            position = key + 1
            apart = max(apart, target - key)
            if key == target:
                yield target, first
                continue
        for frame in frames:
            if frame.key_frame:
                key, apart = position, max(apart, position - key)
                steady = steady and clock.number(frame) == position
            position += 1
            if position > target:
                yield target, frame
                break
        else:
            return
