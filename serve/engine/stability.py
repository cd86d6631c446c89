"""How a score moves when the picture is saved again: recompressed, resized and back, or slightly blurred.

The picture is changed, written to a file in memory, and goes the way that an upload goes: decoded, its faces found and
cut. So the strip says what the detectors would have said had the picture arrived like that. Of a picture above 4
megapixels each face is taken with its surroundings, made smaller while it stays four times as large as its crop; where
a detector sees native pixels nothing is made smaller.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy.special import expit

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Copies
from crossfake.datasets.types import Box, Pixels
from crossfake.detect.prediction.media import Media
from crossfake.serve.engine.judging import LoadedDetector, as_seen, same_face
from crossfake.serve.engine.results import ENSEMBLE, FaceAnalysis, StabilityPoint

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
)  # fmt: skip


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
) -> list[tuple[StabilityPoint, ...]]:
    """The strip of each face; all crops of all steps go through a network in one call.

    Args:
        picture: uint8 ``[H, W, 3]``, whole and upright.
        faces: as judged, with boxes in pixels of the file.
        loaded: the detectors.
        cut: what makes crops of a file.
        progress: takes the share done, and what is being done.
        scale: pixels of ``picture`` for one of the file, along a side.
    """
    size = largest_crop(loaded)
    parts = _parts(picture, [_scaled(face.box, scale) for face in faces], size)
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
    results: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
    for each in loaded:
        found = crops[each.cropper]
        if found:
            logits, _ = each.detector.outputs(as_seen(each.detector, [crop for _, _, crop in found]))
            pairs = zip(each.detector.probability(logits).tolist(), expit(logits).tolist(), strict=True)
            for (face, number, _), pair in zip(found, pairs, strict=True):
                results.setdefault((face, number), {})[each.name] = pair
    return [
        (_sent(face), *(_point(step, results.get((at, n), {})) for n, step in enumerate(STEPS)))
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


def _scaled(box: Box | None, scale: float) -> Box | None:
    return box and (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)


def _sent(face: FaceAnalysis) -> StabilityPoint:
    own = {name: each.probability for name, each in face.per_detector.items() if name != ENSEMBLE}
    return StabilityPoint(AS_SENT, 0.0, face.opinion.probability, face.opinion.score, own)


def _point(step: Step, results: dict[str, tuple[float, float]]) -> StabilityPoint:
    if not results:
        return StabilityPoint(step.transform, step.strength, None)
    probability, score = np.mean(list(results.values()), axis=0).tolist()
    own = {name: each for name, (each, _) in results.items()}
    return StabilityPoint(step.transform, step.strength, probability, score, own)


def is_unstable(strip: Sequence[StabilityPoint], threshold: float) -> bool:
    """Whether a mild change moves the probability to the other side of the threshold, or hides the face.

    Args:
        strip: ``as sent`` first, then one point per step.
        threshold: from which on it is fake.
    """
    sent, *points = strip
    if sent.probability is None:
        return False
    fake = sent.probability >= threshold
    mild = [point for point, step in zip(points, STEPS, strict=True) if step.mild]
    return any(point.probability is None or (point.probability >= threshold) != fake for point in mild)
