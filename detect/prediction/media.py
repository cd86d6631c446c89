"""From what a user names to what a network judges: files found or fetched, decoded, and their faces cut out."""

from __future__ import annotations

import contextlib
import glob
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from crossfake.datasets.animation import is_animated
from crossfake.datasets.crops import GLANCE, Crop, Cropper
from crossfake.datasets.decode import Copies, Frame, Unreadable, file_bytes
from crossfake.datasets.filetypes import HEAD, head_of, kind_of
from crossfake.datasets.geometry import Skip
from crossfake.datasets.sources.archive import members
from crossfake.datasets.sources.base import (
    Member,
    Rejected,
    is_shards,
)
from crossfake.datasets.sources.folder import VIDEOS, is_video, walk
from crossfake.datasets.sources.tallies import LeftOut
from crossfake.datasets.types import Box, Pixels
from crossfake.datasets.video import import_av, open_video, read_frames
from crossfake.detect.metadata.display import claim_words
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.metadata.results import Metadata
from crossfake.detect.prediction.fetching import check_url, fetch, is_url
from crossfake.detect.verdict import MissedFace
from crossfake.detect.view import ALIGNED, View
from crossfake.errors import UserError
from crossfake.workers import map_in_order

STDIN = "-"
_TASK = 16  # pictures that a worker is given at once
_LIGHT = 1 << 15  # bytes of a picture that is opened sooner than it is sent from a worker
_FEW = 48  # pictures for which starting worker processes takes longer than they save

BLURRED = (
    20.0  # sharp faces of camera photos measure 50 to 1300; those blurred by 2% of the crop's side 4 to 12
)
COMPRESSED = 50
# The luminance table of the JPEG standard (ITU-T T.81, table K.1), which quality settings of libjpeg scale: its sum
_STANDARD_SUM = 3688


@dataclass(frozen=True)
class Input:
    """One file, URL or member of a zip archive to judge; ``refused`` says why it is not even opened."""

    name: str
    path: Path | None = None
    refused: str = ""
    member: Member | None = None

    @cached_property
    def is_video(self) -> bool:
        """Whether its name, or for a file on the disk its content, is a video's."""
        return self.member.suffix.lower() in VIDEOS if self.member else is_video(self.path)


@dataclass(frozen=True)
class Look:
    """What the network sees of one face, or of the whole picture.

    Attributes:
        image: uint8 ``[size, size, 3]``; of native pixels ``[H, W, 3]``, and what is left of them once
            :func:`open_media` has cut the windows, ``[K, S, S, 3]``.
        box: x, y, width and height of the face in pixels of the upright picture; None for the whole picture.
        frame: number of a video's frame, from 0.
        person: the same through a video.
        reasons: codes of what makes the picture hard to judge: ``small-face``, ``small-picture``, ``compressed``,
            ``blurred``, and those of :data:`crossfake.datasets.decode.CODES`.
        seconds: when a video's frame is shown; None where it does not say.
        size: width and height of that frame, which may change within a video; (0, 0) in a picture.
    """

    image: Pixels
    box: Box | None = None
    frame: int = 0
    person: int | None = None
    reasons: tuple[str, ...] = ()
    seconds: float | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Media:
    """One input, opened: what of it is to be judged, what was missed, or why it could not be opened at all.

    Attributes:
        kind: ``picture``, or ``video``, which an animated picture is too.
        size: width and height in pixels, upright, of a video's first frame; (0, 0) for what could not be opened.
        problem: why there is nothing to judge.
        rate: a video's frames per second on average, 0 when unknown.
        content: what was fetched or unpacked, when that is to be kept.
        claim: what the file says of a generator that made it; empty where it says nothing.
        metadata: all that it says of itself, where that was asked for.
    """

    input: Input
    kind: str = "picture"
    size: tuple[int, int] = (0, 0)
    looks: tuple[Look, ...] = ()
    missed: tuple[MissedFace, ...] = ()
    problem: str = ""
    rate: float = 0.0
    content: bytes | None = field(default=None, repr=False)
    claim: str = ""
    metadata: Metadata | None = field(default=None, repr=False)


def find_inputs(
    names: Sequence[str | Path], allow_urls: bool = False, leave_out: Path | None = None
) -> Iterator[Input]:
    """Files, what is in folders and zip archives, what patterns match, URLs, and what stdin's lines name for ``-``.

    The names given are checked before the first is yielded; a bad line of stdin is refused alone. Folders are read as
    they are come to, so memory is flat.

    Args:
        leave_out: a folder that is not searched: where annotated pictures go.

    Raises:
        UserError: a file is not there, a pattern matches nothing, a folder is one of shards, or a URL is not allowed.
    """
    asked = list(map(str, names))
    for name in asked:
        if name != STDIN and (wrong := _wrong(name, allow_urls)):
            raise wrong
    hidden = leave_out.resolve() if leave_out else None
    return (found for name in asked for found in _inputs(name, allow_urls, hidden))


def _inputs(name: str, allow_urls: bool, hidden: Path | None) -> Iterator[Input]:
    if name == STDIN:
        for line in sys.stdin.buffer:
            if text := os.fsdecode(line).rstrip("\r\n"):
                wrong = _wrong(text, allow_urls) if text != STDIN else UserError("not in a list")
                yield from [Input(text, None, str(wrong))] if wrong else _inputs(text, allow_urls, hidden)
        return
    if is_url(name):
        yield Input(name)
        return
    matches: Iterable[str] = [name]
    if not os.path.exists(name):
        matches = sorted(glob.iglob(name, recursive=True))
    for path in map(Path, matches):
        if not path.is_dir():
            is_zip = kind_of(head_of(path)) == "archive"
            yield from _of_archive(path) if is_zip else [Input(str(path), path)]
            continue
        left_out = LeftOut()
        try:
            for inside in walk(path, left_out=left_out):
                if hidden is None or hidden not in inside.resolve().parents:
                    yield Input(str(inside), inside)
        except UserError as error:  # a folder deep inside that may not be listed
            yield Input(str(path), None, error.message)
        yield from (
            Input(str(path / each), None, "an archive inside: name it itself") for each in left_out.archives
        )


def _of_archive(path: Path) -> Iterator[Input]:
    """What is in a zip archive, also what is not taken, as the API lists it."""
    left_out, count = LeftOut(), 0
    try:
        for inner, _, found in members(path, left_out):
            count += 1
            if isinstance(found, Rejected):
                yield Input(f"{path}/{inner}", None, f"{found.reason} ({found.detail})")
            else:
                yield Input(f"{path}/{inner}", member=found)
    except UserError as error:
        yield Input(str(path), None, error.message)
        return
    for name, reason in left_out.files:
        yield Input(f"{path}/{name}", None, reason)
    if not count and not left_out.files:
        yield Input(str(path), None, "the archive is empty")


def _wrong(name: str, allow_urls: bool) -> UserError | None:
    if is_url(name):
        return check_url(name, allow_urls)
    try:
        there = os.path.lexists(name) or bool(glob.has_magic(name) and any(glob.iglob(name, recursive=True)))
    except ValueError:  # a zero byte
        there = False
    if not there:
        return UserError(
            f"{name!r} is not there" if "\0" in name else f"{name} is not there", hint="check the path"
        )
    if is_shards(Path(name)):
        return UserError(f"{name} is a shard folder", hint="judge it with 'detect evaluate --data'")
    return None


def open_media(
    inputs: Iterable[Input],
    cropper: Cropper,
    frames: int = 32,
    workers: int = 1,
    keep_fetched: bool = False,
    view: View = ALIGNED,
    metadata: bool = False,
    anchors: str = "",
) -> Iterator[Media]:
    """Each input opened, in order, ahead of whoever asks; no more than a few at a time, so memory is flat.

    Args:
        cropper: with ``which="all"`` for every face.
        frames: of each video, evenly spread.
        workers: processes; 0 is one per core, or none where small pictures begin the list and no faces are looked for;
            1 works here. A short list is opened here in any case.
        keep_fetched: put the bytes of what was fetched or unpacked into :attr:`Media.content`.
        view: of native pixels no more than the windows is kept.
        metadata: keep all that a file says of itself, not only whether it names a generator.
        anchors: certificates (PEM) that signers of C2PA manifests are trusted by.
    """
    rest = iter(inputs)
    start = list(islice(rest, _FEW))
    short = len(start) < _FEW and sum(is_url(each.name) or each.is_video for each in start) < 2
    if short or (workers == 0 and not cropper.finds_faces and all(map(_is_light, start))):
        workers = 1

    def together() -> Iterator[Input]:
        yield from start
        yield from rest

    one = partial(
        open_one,
        cropper=cropper,
        frames=frames,
        keep_fetched=keep_fetched,
        metadata=metadata,
        anchors=anchors,
    )
    work = partial(_open_all, one=one, view=view)
    for _, opened in map_in_order(work, in_tasks(together(), 1 if workers == 1 else _TASK), workers):
        yield from opened


def _is_light(each: Input) -> bool:
    with contextlib.suppress(OSError):
        return each.path is not None and each.path.stat().st_size <= _LIGHT and not each.is_video
    return False


def absolute(each: Input) -> Input:
    """The same with whole paths: a worker elsewhere has another current directory."""
    member = each.member and Member(each.member.archive.absolute(), each.member.name)
    return replace(each, path=each.path and each.path.absolute(), member=member)


def in_tasks(inputs: Iterator[Input], most: int) -> Iterator[list[Input]]:
    """Pictures a few at a time; what takes long or holds much, alone."""
    task: list[Input] = []
    for each in inputs:
        heavy = each.is_video or is_url(each.name)
        if task and (heavy or len(task) == most):
            yield task
            task = []
        if heavy:
            yield [each]
        else:
            task.append(each)
    if task:
        yield task


def _open_all(inputs: list[Input], one: Callable[[Input], Media], view: View) -> list[Media]:
    opened = [one(each) for each in inputs]
    if not view.native:
        return opened
    return [
        replace(
            media, looks=tuple(replace(look, image=view.cut([look.image]).images) for look in media.looks)
        )
        for media in opened
    ]


def open_one(
    source: Input,
    cropper: Cropper,
    frames: int = 32,
    keep_fetched: bool = False,
    metadata: bool = False,
    anchors: str = "",
) -> Media:
    """One input; whatever is wrong with it becomes its ``problem``."""
    content, media = _opened(source, cropper, frames)
    if content is None:
        return media
    said = read_metadata(content, anchors, thumbnail=metadata)
    kept = content if keep_fetched and isinstance(content, bytes) and source.path is None else None
    return replace(media, content=kept, claim=claim_words(said), metadata=said if metadata else None)


def _opened(source: Input, cropper: Cropper, frames: int) -> tuple[Path | bytes | None, Media]:
    """The file or what it holds, None where it was not come by, and what is to be judged of it."""
    content: Path | bytes | None = source.path
    try:
        if source.refused:
            return None, Media(source, problem=source.refused)
        if source.path is None:
            content, video = (source.member.read_bytes(), False) if source.member else fetch(source.name)
            return content, _of_bytes(source, content, video, cropper, frames)
        if source.is_video:
            return content, _video(source, source.path, cropper, frames)
        content = file_bytes(source.path)
        return content, open_picture(source, content, cropper, frames)
    except Unreadable as error:
        problem = f"cannot be read ({error.reason})"
    except UserError as error:
        problem = error.message
    except Skip as reason:
        problem = str(reason)
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    except (MemoryError, cv2.error):
        problem = "cannot be read (too large for the memory)"
    return content, Media(source, problem=problem)


def open_picture(source: Input, content: bytes | Copies, cropper: Cropper, frames: int = 32) -> Media:
    """A picture from its bytes, whatever its name; without a face the ``problem`` says so.

    Whoever looks at one picture several times gives its copies: it is then decoded, and searched for faces, once.

    Of an animation so many ``frames`` as of a video.

    Raises:
        Unreadable: it is no picture.
        Skip: a policy that looks for no faces leaves it out.
    """
    copies = content if isinstance(content, Copies) else Copies(content, source.name)
    content = copies.content
    if is_animated(content):
        return open_frames(source, read_frames(content, frames, source.name), cropper)
    glance, _, codes = copies.decode(GLANCE)
    width, height, quality = _header(content, glance)
    common = (("compressed",) if quality is not None and quality < COMPRESSED else ()) + codes
    looks: list[Look] = []
    missed: list[MissedFace] = []
    if cropper.finds_faces and cropper.which == "all":
        for shares, crop in cropper.each_face(copies, glance):
            box = _pixels(shares, width, height)
            if isinstance(crop, Skip):
                missed.append(MissedFace(str(crop), box))
            else:
                looks.append(Look(crop.image, box, person=len(looks), reasons=_hard(crop) + common))
        if not looks:
            problem = missed[0].reason if missed else "no face"  # the largest face's
            return Media(source, "picture", (width, height), (), tuple(missed), problem)
    else:
        crop = cropper.crops_of(copies, glance)[0]
        looks.append(Look(crop.image, _pixels(crop.box, width, height), reasons=_hard(crop) + common))
    return Media(source, "picture", (width, height), tuple(looks), tuple(missed))


def _header(content: bytes, decoded: Pixels) -> tuple[int, int, float | None]:
    """Width and height of the whole picture, of which ``decoded`` may be a smaller copy, and its JPEG quality."""
    height, width = decoded.shape[:2]
    if content[:2] != b"\xff\xd8":
        return width, height, None
    stored, table = jpeg_header(content)
    if stored is None:
        return width, height, None
    upright = stored if (stored[0] >= stored[1]) == (width >= height) else stored[::-1]
    return *upright, jpeg_quality(table) if table else None


def jpeg_header(content: bytes) -> tuple[tuple[int, int] | None, Sequence[int]]:
    """Width and height of a JPEG file, and its first quantisation table, which is that of luminance.

    Half as much work as having the file opened a second time, and small pictures are mostly this work.
    """
    at = 2
    table: tuple[int, ...] = ()
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        body = at + 4
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == 0xDB and not table:
            wide = 2 if content[body] >> 4 else 1
            values = content[body + 1 : body + 1 + 64 * wide]
            table = tuple(int.from_bytes(values[i : i + wide], "big") for i in range(0, len(values), wide))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[body + 1 : body + 5])
            return (width, height), table
        elif marker == 0xDA:
            break
        at = body + max(2, length) - 2
    return None, table


def jpeg_quality(table: Sequence[int]) -> float:
    """The quality setting, 1 to 100, at which libjpeg would have written a luminance table with this sum.

    Below 24 values meet their cap, and it reads up to five too much. Other encoders have tables of their own; for them
    it is the setting that loses about as much.
    """
    scale = 100 * sum(table) / _STANDARD_SUM
    return float(np.clip(5000 / scale if scale > 100 else (200 - scale) / 2, 1, 100))


def _hard(crop: Crop) -> tuple[str, ...]:
    """Codes of what makes one crop hard to judge."""
    small = ("small-face" if crop.box else "small-picture",) if crop.scale > 1 else ()
    return small + (("blurred",) if sharpness(crop.image) < BLURRED else ())


def sharpness(image: Pixels) -> float:
    """Variance of the Laplacian of the grey values in [0, 255] of ``[size, size, 3]``, scaled to at most 128 pixels."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if len(grey) > 128:
        grey = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_64F))[1].item() ** 2)


def _pixels(shares: Box | None, width: int, height: int) -> Box | None:
    if shares is None:
        return None
    return shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height


def _video(source: Input, path: Path, cropper: Cropper, frames: int) -> Media:
    return open_frames(source, read_frames(path, frames, source.name), cropper, frame_rate(path))


def open_frames(source: Input, frames: Iterable[Frame], cropper: Cropper, rate: float = 0.0) -> Media:
    """A video from its frames; their pixels are let go one by one.

    Args:
        rate: that the video states; 0 takes it from the frames' times.
    """
    facts: dict[int, tuple[float | None, tuple[int, int], tuple[str, ...]]] = {}

    def pictures() -> Iterator[tuple[int, Pixels, None]]:
        for frame in frames:
            height, width = frame.pixels.shape[:2]
            facts[frame.number] = frame.seconds, (width, height), frame.codes
            yield frame.number, frame.pixels, None

    looks: list[Look] = []
    lost: dict[str, set[int]] = {}
    for number, crop in cropper.of_video(pictures()):
        if isinstance(crop, Skip):
            lost.setdefault(str(crop), set()).add(number)
        else:
            seconds, size, codes = facts[number]
            box, reasons = _pixels(crop.box, *size), _hard(crop) + codes
            looks.append(Look(crop.image, box, number, crop.person or 0, reasons, seconds, size))
    missed = tuple(MissedFace(reason, frames=len(numbers)) for reason, numbers in lost.items())
    commonest = max(missed, key=lambda each: each.frames, default=None)
    problem = "" if looks else commonest.reason if commonest else "no frame can be decoded"
    size = next((size for _, size, _ in facts.values()), (0, 0))
    rate = rate or _rate([(number, seconds) for number, (seconds, _, _) in facts.items()])
    return Media(source, "video", size, tuple(looks), missed, problem, rate)


def _rate(times: Sequence[tuple[int, float | None]]) -> float:
    """Frames per second, from the numbers and times of some frames; 0 when they do not tell."""
    (first, start), (last, end) = (times[0], times[-1]) if times else ((0, None), (0, None))
    return (last - first) / (end - start) if start is not None and end and end > start else 0.0


def _of_bytes(source: Input, content: bytes, video: bool, cropper: Cropper, frames: int) -> Media:
    """What is no file on this disk; ``video`` is what a server calls it, where its content does not say."""
    kind = kind_of(content[:HEAD])
    if kind == "archive":
        return Media(source, problem="it is an archive: fetch it, and name the file")
    if kind == "image" or not (kind or video):
        return open_picture(source, content, cropper, frames)
    with temporary_video(content) as path:
        return _video(source, path, cropper, frames)


def frame_rate(path: Path) -> float:
    """Frames per second that a video states; 0 when it does not."""
    av = import_av()
    try:
        with open_video(path) as (_, stream):
            return float(stream.average_rate or 0) if stream else 0.0
    except (av.FFmpegError, OSError, ValueError, EOFError):
        return 0.0


@contextlib.contextmanager
def temporary_video(content: bytes) -> Iterator[Path]:
    """A fetched video as a file, since its decoder jumps about in it."""
    handle, name = tempfile.mkstemp(suffix=".video")
    path = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        yield path
    finally:
        path.unlink(missing_ok=True)
