"""How a score moves when the picture is saved again: recompressed, resized and back, or slightly blurred.

The picture is changed, written to a file in memory, and goes the way that an upload goes: decoded, its faces found and
cut. So the strip says what the detectors would have said had the picture arrived like that. Of a picture above 4
megapixels each face is taken with its surroundings, made smaller while it stays four times as large as its crop; where
a detector sees native pixels nothing is made smaller.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Copies
from crossfake.datasets.types import Box, Pixels
from crossfake.detect.prediction.media import Media
from crossfake.detect.verdict import LABELS, NO_ANSWER, Verdict
from crossfake.serve.engine.agreement import answer
from crossfake.serve.engine.judging import LoadedDetector, as_seen, same_face
from crossfake.serve.engine.results import FaceAnalysis, StabilityPoint

AS_SENT = "as sent"


_WHOLE = 4_000_000  # pixels up to which the whole picture is changed
_AROUND = 1.0  # width and height of a face that are taken beside it
_LEAST = 512  # pixels of a side below which nothing is made smaller
_TIMES = 4  # as large as its crop a face stays; the crops of large pictures are made from such copies, too
_BLOCK = 16  # pixels of JPEG's grid


@dataclass(frozen=True)
class Step:
    """One change. ``mild`` ones happen to every picture that is passed on: a verdict should survive them."""

    transform: str
    strength: float
    mild: bool = False


STEPS = (
    Step("JPEG", 95, True), Step("JPEG", 85, True), Step("JPEG", 70, True), Step("JPEG", 50), Step("JPEG", 30),
    Step("WebP", 80, True), Step("resize", 0.75, True), Step("resize", 0.5), Step("blur", 1.0),
)  # a table  # fmt: skip


def changed(picture: Pixels, step: Step) -> bytes:
    """A picture uint8 ``[H, W, 3]`` after a step, as a file: JPEG and WebP are what they say, the others lossless.

    Example:
        >>> changed(np.zeros((8, 8, 3), np.uint8), Step("JPEG", 50))[:2]
        b'\\xff\\xd8'
    """
    image = Image.fromarray(picture)
    out = io.BytesIO()
    match step.transform:
        case "JPEG":
            image.save(out, "JPEG", quality=int(step.strength))
            return out.getvalue()
        case "WebP":
            image.save(out, "WEBP", quality=int(step.strength))
            return out.getvalue()
        case "resize":
            small = (max(1, round(side * step.strength)) for side in image.size)
            image = image.resize(tuple(small), Image.Resampling.BICUBIC).resize(  # type: ignore[arg-type]
                image.size, Image.Resampling.BICUBIC
            )
        case _:
            image = image.filter(ImageFilter.GaussianBlur(step.strength))
    image.save(out, "BMP")
    return out.getvalue()


def strips(
    picture: Pixels,
    faces: Sequence[FaceAnalysis],
    loaded: Sequence[LoadedDetector],
    cut: Callable[[Copies, Cropper], Media],
    progress: Callable[[float, str], None],
    scale: float = 1.0,
    prior: float | None = None,
) -> list[tuple[StabilityPoint, ...]]:
    """The strip of each face; all crops of all steps go through a network in one call.

    Args:
        picture: uint8 ``[H, W, 3]``, whole and upright.
        faces: as judged, with boxes in pixels of the file.
        loaded: the detectors.
        cut: what makes crops of a file.
        progress: takes the share done, and what is being done.
        scale: pixels of ``picture`` for one of the file, along a side.
        prior: share of fakes among such pictures.
    """
    size = largest_crop(loaded)
    parts = _parts(picture, [scaled(face.box, scale) for face in faces], size)
    crops: dict[Cropper, list[tuple[int, int, Pixels]]] = {each.cropper: [] for each in loaded}
    for number, step in enumerate(STEPS):
        progress(number / len(STEPS), f"{step.transform} {step.strength:g}")
        for part in parts:
            copies = Copies(changed(part.picture, step))
            for cropper, found in crops.items():
                looks = cut(copies, cropper).looks
                for face, box in part.boxes.items():
                    at = same_face(box, [look.box for look in looks])
                    if at is not None:
                        found.append((face, number, looks[at].image))
    results: dict[tuple[int, int], dict[str, Verdict]] = {}
    for each in loaded:
        found = crops[each.cropper]
        if found:
            seen = as_seen(each.detector, [crop for _, _, crop in found])
            said = each.detector.say(each.detector.judge(seen), prior)
            for (face, number, _), verdict in zip(found, said, strict=True):
                results.setdefault((face, number), {})[each.name] = verdict
    return [
        (
            _point(Step(AS_SENT, 0.0), face.per_detector),
            *(_point(step, results.get((at, n), {})) for n, step in enumerate(STEPS)),
        )
        for at, face in enumerate(faces)
    ]


@dataclass(frozen=True)
class _Part:
    """A picture, or a part of one, and by number the faces in it with their boxes there."""

    picture: Pixels
    boxes: dict[int, Box | None]


def largest_crop(loaded: Sequence[LoadedDetector]) -> int | None:
    """Side of the largest crop that detectors take; None where one takes native pixels: nothing is made smaller."""
    if any(each.detector.view.native for each in loaded):
        return None
    return max(each.detector.size for each in loaded)


def least_side(shape: tuple[int, int], boxes: Sequence[Box | None], size: int | None) -> int:
    """The shorter side, in pixels, that a copy of a picture needs for all that the strips look at.

    Args:
        shape: width and height of the picture.
        boxes: of its faces; None: the whole picture.
        size: of the largest crop, as :func:`largest_crop` has it.
    """
    if size is None:
        return min(shape)
    faces = [min(box[2:]) if box else min(shape) for box in boxes]
    needed = min(shape) * _TIMES * size / max(1.0, min(faces, default=min(shape)))
    return max(_LEAST, round(needed))


def _parts(picture: Pixels, boxes: Sequence[Box | None], size: int | None) -> list[_Part]:
    height, width = picture.shape[:2]
    if height * width <= _WHOLE:
        return [_Part(picture, dict(enumerate(boxes)))]
    return [_part(picture, number, box, size) for number, box in enumerate(boxes)]


def _part(picture: Pixels, number: int, box: Box | None, size: int | None) -> _Part:
    height, width = picture.shape[:2]
    x, y, w, h = box or (0, 0, width, height)
    left, top = (max(0, int(at - _AROUND * side) // _BLOCK * _BLOCK) for at, side in ((x, w), (y, h)))
    right, bottom = min(width, round(x + (1 + _AROUND) * w)), min(height, round(y + (1 + _AROUND) * h))
    part = Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))
    times = int(max(1, min(min(w, h) / (_TIMES * size), min(part.size) / _LEAST))) if size else 1
    made = np.asarray(part.reduce(times) if times > 1 else part)
    return _Part(made, {number: box and ((x - left) / times, (y - top) / times, w / times, h / times)})


def scaled(box: Box | None, scale: float) -> Box | None:
    """A box in a copy of a picture of another size."""
    return box and (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)


def _point(step: Step, verdicts: Mapping[str, Verdict]) -> StabilityPoint:
    if not verdicts:
        return StabilityPoint(step.transform, step.strength, None)
    head = answer(list(verdicts.values()))
    own = {name: each.probability for name, each in verdicts.items() if each.probability is not None}
    return StabilityPoint(step.transform, step.strength, head.probability, head.score, own, head.verdict)


def is_unstable(strip: Sequence[StabilityPoint]) -> bool:
    """Whether a mild change makes another answer of it, or hides the face; an uncertain one has nothing to lose.

    Args:
        strip: ``as sent`` first, then one point per step.
    """
    sent, *points = strip
    mild = {(step.transform, step.strength) for step in STEPS if step.mild}
    other = {(point.transform, point.strength) for point in points if point.verdict != sent.verdict}
    return sent.verdict in LABELS and bool(mild & other)


def steady_words(strip: Sequence[StabilityPoint]) -> str:
    """What a strip shows, in a sentence; empty without one.

    Example:
        >>> held = [StabilityPoint("as sent", 0, 0.9, verdict="fake")]
        >>> steady_words(held + [StabilityPoint(s.transform, s.strength, 0.9, verdict="fake") for s in STEPS])
        'The answer stays the same after every change.'
    """
    if not strip or strip[0].verdict == NO_ANSWER:
        return ""
    sent, *points = strip
    if sent.verdict not in LABELS:
        turned = sorted({point.verdict for point in points if point.verdict in LABELS})
        more = (
            f" Some changes turn it into {' and '.join(turned)}: take none of these for an answer."
            if turned
            else ""
        )
        return f"There is no answer to hold: it is uncertain as sent.{more}"
    other = [f"{p.transform} {p.strength:g}" for p in points if p.verdict != sent.verdict]
    if not other:
        return "The answer stays the same after every change."
    if is_unstable(strip):
        return f"The answer does not hold: it is another after {', '.join(other)}."
    return f"The answer holds after mild changes, and is another after {', '.join(other)}."
