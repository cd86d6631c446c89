"""Pictures and videos with the verdicts drawn in: boxes, probabilities, and a line that says whose opinion it is."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crossfake.datasets.decode import Unreadable, decode_image, file_bytes
from crossfake.datasets.types import Box, Pixels
from crossfake.datasets.video import count_frames, import_av, read_frames, read_keyframes
from crossfake.detect.explain.traces import trace_maps
from crossfake.detect.prediction.media import Media, temporary_video
from crossfake.detect.prediction.verdicts import Prediction
from crossfake.detect.verdict import NO_ANSWER, NOT_JUDGED, UNCERTAIN, FrameScore, Verdict
from crossfake.errors import UserError
from crossfake.files import replacing

# Apart for colour-blind eyes, too (Okabe and Ito 2008); the word is always there
COLOURS = {
    "fake": (213, 94, 0),
    "real": (0, 114, 178),
    UNCERTAIN: (230, 159, 0),
    NO_ANSWER: (130, 130, 130),
    NOT_JUDGED: (130, 130, 130),
}
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)
_LEAST_SIDE, _MOST_SIDE = 480, 4096  # of an annotated picture: text needs room, and nobody prints posters
_QUALITY = 90
_LEAST_BAR = 240
_LONGEST_NAME = 80
_GLIDE, _HOLD = 2.0, 0.4  # seconds between judged frames that a box crosses evenly; that it stays at one
_TICK = Fraction(1, 90_000)  # of a second: any usual rate is a whole number of them
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # no file names on Windows


@dataclass(frozen=True)
class Mark:
    """One face to draw: its box in pixels (None: the whole picture), its verdict, and what to write, line by line."""

    box: Box | None
    verdict: str
    lines: tuple[str, ...]


class Annotator:
    """Writes annotated copies into one folder; no name is taken from a file without being cleaned.

    Raises:
        UserError: the folder holds files already, or cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = next(iter(os.scandir(folder)), None)
        except OSError as error:
            raise UserError(f"cannot use {folder} ({error.strerror})", hint="name another folder") from error
        if taken:
            raise UserError(f"{folder} holds files already", hint="name a new folder for --annotate")

    def annotate(self, media: Media, prediction: Prediction) -> Prediction:
        """Draw what was found, and say where; where metadata were asked for, maps or key frames lie beside it.

        Raises:
            UserError: the copy cannot be written.
        """
        video = media.kind == "video"
        try:
            if video:
                target = self._target(media, ".mp4")
                with _as_file(media) as source:
                    sizes = {look.frame: look.size for look in media.looks}
                    draw_video(source, prediction, target, media.rate, sizes)
                    if media.metadata is not None:
                        for frame in read_keyframes(source, name=media.input.name):
                            _save(frame.pixels, self._target(media, f"-key-{frame.number}.jpg"))
            else:
                content = media.content if media.content is not None else file_bytes(_path(media))
                picture = decode_image(content, media.input.name)
                target = self._target(media, ".jpg" if content[:2] == b"\xff\xd8" else ".png")
                _save(draw_picture(picture, picture_marks(prediction), headline(prediction)), target)
                for each in trace_maps(picture) if media.metadata is not None else ():
                    _save(each.picture, self._target(media, f"-{each.name.replace(' ', '-')}.png"))
        except (Unreadable, OSError):  # it was there a moment ago: judged, but not to be drawn
            return prediction
        return dataclasses.replace(prediction, annotated=str(target))

    def _target(self, media: Media, suffix: str) -> Path:
        stem = clean_name(media.input.path.name if media.input.path else media.input.name)
        name, number = stem, 1
        while (name + suffix).lower() in self._used:
            number += 1
            name = f"{stem}-{number}"
        self._used.add((name + suffix).lower())
        return self.folder / (name + suffix)


def clean_name(name: str) -> str:
    """A file name's stem, or the end of a URL, as a name that is safe in any folder and on any system.

    Example:
        >>> clean_name("../../etc/pass wd.png")
        'pass_wd'
    """
    last = re.split(r"[/\\]", re.sub(r"[?#].*", "", name) if "://" in name else name)[-1]
    stem = re.sub(r"[^\w-]+", "_", os.path.splitext(last)[0]).strip("_")[:_LONGEST_NAME]
    return f"_{stem}" if not stem or _RESERVED.match(stem) else stem


def headline(prediction: Prediction) -> str:
    """One line on the whole file."""
    many = "people" if prediction.kind == "video" else "faces"
    what = f", worst of {len(prediction.faces)} {many}" if len(prediction.faces) > 1 else ""
    missed = sum(each.box is not None for each in prediction.skipped)
    also = f", {missed} not judged" if missed else ""
    number = "" if prediction.probability is None else f" {prediction.probability:.2f}"
    return f"{prediction.verdict.upper()}{number}{what}{also}"


def picture_marks(prediction: Prediction) -> list[Mark]:
    """What is drawn into a copy: each face, and each that was not judged."""
    marks = [Mark(face.box, face.verdict, _lines(face)) for face in prediction.faces]
    return marks + [Mark(s.box, NOT_JUDGED, (NOT_JUDGED, s.reason)) for s in prediction.skipped if s.box]


def _lines(face: Verdict) -> tuple[str, ...]:
    interval = "" if face.low is None or face.high is None else f" ({face.low:.2f}-{face.high:.2f})"
    return (f"{_said(face.verdict, face.probability)}{interval}", *face.reasons)


def _said(verdict: str, probability: float | None) -> str:
    return verdict if probability is None else f"{verdict} {probability:.2f}"


def draw_picture(picture: Pixels, marks: Sequence[Mark], title: str) -> Pixels:
    """A picture with its marks, and a bar below it: uint8 ``[H, W, 3]`` to uint8 ``[H', W', 3]``.

    Small pictures are enlarged by a whole factor, so that text fits; huge ones reduced.
    """
    height, width = picture.shape[:2]
    scale: float = max(1, -(-_LEAST_SIDE // max(height, width)))
    scale = min(scale, _MOST_SIDE / max(height, width))
    extent = (max(1, round(width * scale)), max(1, round(height * scale)))
    resample = Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.BICUBIC
    image = Image.fromarray(picture)
    if extent != image.size:
        image = image.resize(extent, resample)
    _draw_marks(image, [_scaled(mark, scale) for mark in marks])
    return np.asarray(_with_bar(image, title))


def _scaled(mark: Mark, scale: float) -> Mark:
    if mark.box is None:
        return mark
    x, y, width, height = (value * scale for value in mark.box)
    return dataclasses.replace(mark, box=(x, y, width, height))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _text_size(width: int, height: int) -> int:
    return int(np.clip(max(width, height) / 48, 15, 64))


def _draw_marks(image: Image.Image, marks: Sequence[Mark]) -> None:
    draw = ImageDraw.Draw(image)
    size = _text_size(*image.size)
    placed: list[tuple[float, float, float, float]] = []
    for mark in marks:
        if mark.box is not None:
            x, y, width, height = mark.box
            line = max(2, min(size // 6, round(min(width, height) / 16)))
            corners = (x, y, x + width, y + height)
            # a light and a dark line beside the coloured one: seen on any ground
            for color, grown, thick in (
                (_DARK, line, 1),
                (COLOURS[mark.verdict], line - 1, line),
                (_LIGHT, -1, 1),
            ):
                around = (corners[0] - grown, corners[1] - grown, corners[2] + grown, corners[3] + grown)
                if around[2] > around[0] and around[3] > around[1]:
                    draw.rectangle(around, outline=color, width=thick)
    for mark in sorted(marks, key=lambda mark: mark.box is None):
        if mark.box is not None:
            placed.append(_label(draw, mark, mark.box, image.size, size, placed))


def _label(
    draw: ImageDraw.ImageDraw,
    mark: Mark,
    box: Box,
    extent: tuple[int, int],
    size: int,
    placed: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write beside a box, where there is room and no other label."""
    fonts = [_font(size)] + [_font(max(11, round(size * 0.75)))] * (len(mark.lines) - 1)
    boxes = [font.getbbox(text) for font, text in zip(fonts, mark.lines, strict=True)]
    pad = size // 4
    steps = [font.size + pad for font in fonts]
    width, height = max(b[2] for b in boxes) + 3 * pad + size // 4, sum(steps) + pad
    x, y, w, h = box
    left = min(max(0.0, x), max(0.0, extent[0] - width))
    right = min(max(0.0, x + w - width), max(0.0, extent[0] - width))
    gap = size // 4
    spots = [
        (at, top)
        for top in (y - height - gap, y + h + gap, y + gap, y + h - height - gap)
        for at in (left, right)
    ]
    spots += [(x + w + gap, y), (x - width - gap, y)]

    def cost(spot: tuple[float, float]) -> tuple[float, int]:
        area = (spot[0], spot[1], spot[0] + width, spot[1] + height)
        over = sum(
            max(0.0, min(area[2], o[2]) - max(area[0], o[0]))
            * max(0.0, min(area[3], o[3]) - max(area[1], o[1]))
            for o in placed
        )
        out = max(0.0, -area[0], -area[1], area[2] - extent[0], area[3] - extent[1])
        return over + out * width, spots.index(spot)

    left, top = min(spots, key=cost)
    left, top = (
        min(max(0.0, left), max(0.0, extent[0] - width)),
        min(max(0.0, top), max(0.0, extent[1] - height)),
    )
    area = (left, top, left + width, top + height)
    draw.rectangle(area, fill=_DARK, outline=_LIGHT)
    draw.rectangle((left + 1, top + 1, left + size // 4 + 1, top + height - 1), fill=COLOURS[mark.verdict])
    at = top + pad / 2
    for font, text, step in zip(fonts, mark.lines, steps, strict=True):
        middle = (left + size // 4 + 1.5 * pad, at + step / 2)
        draw.text(middle, text, font=font, fill=_LIGHT, anchor="lm")
        at += step
    return area


def _with_bar(image: Image.Image, title: str) -> Image.Image:
    """A dark bar below: the verdict, and what it is not."""
    width, height = max(image.width, _LEAST_BAR), image.height
    size = _text_size(width, height)
    while size > 9 and _font(size).getlength(title) > width - size:
        size -= 1
    note = "a detector's estimate, not proof"
    beside = _font(size).getlength(f"{title}    {note}") < width - size
    bar = round(size * 1.8) if beside else round(size * 3)
    sheet = Image.new("RGB", (width, height + bar), _DARK)
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    color = next((COLOURS[v] for v in COLOURS if title.lower().startswith(v)), _LIGHT)
    draw.rectangle((0, height, width, height + max(2, size // 6)), fill=color)
    row = height + size * 1.05
    draw.text((size / 2, row), title, font=_font(size), fill=_LIGHT, anchor="lm")
    small = _font(max(9, round(size * 0.8)))
    left = width - size / 2 - small.getlength(note) if beside else size / 2
    below = row if beside else row + size * 1.15
    draw.text((left, below), note, font=small, fill=(200, 200, 200), anchor="lm")
    return sheet


def draw_video(
    source: Path, prediction: Prediction, target: Path, rate: float, sizes: Mapping[int, tuple[int, int]] = {}
) -> None:
    """The whole video, without sound, with a box on every person; between judged frames close by, boxes glide.

    Every frame is shown as long as in the original; frames of another size than the first are fitted into it.

    Args:
        rate: frames per second, for frames that do not say when they are shown.
        sizes: width and height of the judged frames, where the video's size changes.

    Raises:
        Unreadable: it cannot be decoded again.
        UserError: it cannot be written.
        MissingDependency: PyAV is not installed.
    """
    av = import_av()
    codec = "libx264" if "libx264" in av.codec.codecs_available else "mpeg4"
    rate = rate if 1 <= rate <= 240 else 25.0
    count = max(1, count_frames(source))
    stream: Any = None
    try:
        with replacing(target) as temporary, av.open(str(temporary), "w", format="mp4") as out:
            last, size = -1, (0, 0)
            for each in read_frames(source, count, total=count):
                own = (each.pixels.shape[1], each.pixels.shape[0])
                size = size if stream else own
                marks = video_marks(prediction, each.number, rate, sizes, own)
                drawn = _even(draw_picture(*_fitted(each.pixels, marks, size), headline(prediction)))
                if stream is None:
                    stream = out.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
                    stream.height, stream.width = drawn.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.codec_context.time_base = _TICK
                frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
                seconds = each.number / rate if each.seconds is None else each.seconds
                last = max(last + 1, round(seconds / _TICK))
                frame.pts, frame.time_base = last, _TICK
                out.mux(stream.encode(frame))
            if stream is not None:
                out.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise _cannot_write(target, error) from error


def video_marks(
    prediction: Prediction,
    number: int,
    rate: float,
    sizes: Mapping[int, tuple[int, int]] = {},
    size: tuple[int, int] | None = None,
) -> list[Mark]:
    """The people to draw in frame ``number``: where they were found just before and after, or a moment ago.

    Args:
        rate: frames per second.
        sizes: width and height of the judged frames, which their boxes are of.
        size: of the frame to draw in; None when it is theirs.
    """

    def placed(each: FrameScore) -> Box:
        assert each.box is not None
        own = sizes.get(each.frame)
        if size is None or own is None or 0 in own:
            return each.box
        across, down = size[0] / own[0], size[1] / own[1]
        return each.box[0] * across, each.box[1] * down, each.box[2] * across, each.box[3] * down

    marks = []
    judged = sorted({each.frame for face in prediction.faces for each in face.frames})
    nearest = min(judged, key=lambda frame: abs(frame - number), default=0)
    for face in prediction.faces:
        series = [each for each in face.frames if each.box is not None]
        numbers = [each.frame for each in series]
        after = bisect.bisect_left(numbers, number)
        near = series[max(0, after - 1) : after + 1]
        if not near:
            continue
        closest = min(near, key=lambda each: abs(each.frame - number))
        box = placed(closest)
        if len(near) == 2 and near[1].frame - near[0].frame <= _GLIDE * rate:
            part = (number - near[0].frame) / (near[1].frame - near[0].frame)
            pairs = zip(placed(near[0]), placed(near[1]), strict=True)
            x, y, width, height = (a + (b - a) * part for a, b in pairs)
            box = (x, y, width, height)
        elif closest.frame != nearest or abs(nearest - number) > _HOLD * rate:
            continue
        now = () if closest.probability is None else (f"frame {closest.probability:.2f}",)
        lines = (_said(face.verdict, face.probability), *now)
        marks.append(Mark(box, face.verdict, lines))
    return marks


def _fitted(picture: Pixels, marks: list[Mark], size: tuple[int, int]) -> tuple[Pixels, list[Mark]]:
    """The whole of a picture, with its marks, in the middle of one of this width and height."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture, marks
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sheet = Image.new("RGB", size, _DARK)
    sheet.paste(Image.fromarray(picture).resize(inner), (left, top))
    moved = []
    for mark in (_scaled(mark, scale) for mark in marks):
        if mark.box is not None:
            mark = dataclasses.replace(mark, box=(mark.box[0] + left, mark.box[1] + top, *mark.box[2:]))
        moved.append(mark)
    return np.asarray(sheet), moved


def _even(image: Pixels) -> Pixels:
    """H.264 takes even sides only: one more row or column where needed."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


@contextlib.contextmanager
def _as_file(media: Media) -> Iterator[Path]:
    if media.content is None:
        yield _path(media)
    else:
        with temporary_video(media.content) as path:
            yield path


def _path(media: Media) -> Path:
    assert media.input.path is not None
    return media.input.path


def _save(image: Pixels, target: Path) -> None:
    try:
        if target.suffix == ".jpg":
            Image.fromarray(image).save(target, quality=_QUALITY)
        else:
            Image.fromarray(image).save(target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"cannot write {target} ({reason})", hint="check the folder and its space")
