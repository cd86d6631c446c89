"""How a score moves when the picture is saved again: recompressed, resized and back, or slightly blurred.

The whole picture is changed, written to a file in memory, and goes the way that an upload goes: decoded, its faces
found and cut. So the strip says what the detectors would have said had the picture arrived like that.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy.special import expit

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.crops import Cropper
from crossfake.detect.app.judging import Seat, same_face
from crossfake.detect.app.results import ENSEMBLE, FaceAnalysis, StabilityPoint
from crossfake.detect.prediction.media import Media

AS_SENT = "as sent"


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
    seats: Sequence[Seat],
    cut: Callable[[bytes, Cropper], Media],
    progress: Callable[[float, str], None],
) -> list[tuple[StabilityPoint, ...]]:
    """The strip of each face; all crops of all steps go through a network in one call.

    Args:
        picture: uint8 ``[H, W, 3]``, whole and upright.
        faces: as judged.
        seats: the detectors.
        cut: what makes crops of a file's bytes.
        progress: takes the share done, and what is being done.
    """
    crops: dict[Cropper, list[tuple[int, int, Pixels]]] = {seat.cropper: [] for seat in seats}
    for number, step in enumerate(STEPS):
        progress(number / len(STEPS), f"{step.transform} {step.strength:g}")
        content = changed(picture, step)
        for cropper, found in crops.items():
            looks = cut(content, cropper).looks
            for face, before in enumerate(faces):
                at = same_face(before.box, [look.box for look in looks])
                if at is not None:
                    found.append((face, number, looks[at].image))
    results: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
    for seat in seats:
        found = crops[seat.cropper]
        if found:
            logits, _ = seat.detector.outputs(np.stack([crop for _, _, crop in found]))
            pairs = zip(seat.detector.probability(logits).tolist(), expit(logits).tolist(), strict=True)
            for (face, number, _), pair in zip(found, pairs, strict=True):
                results.setdefault((face, number), {})[seat.name] = pair
    return [
        (_sent(face), *(_point(step, results.get((at, n), {})) for n, step in enumerate(STEPS)))
        for at, face in enumerate(faces)
    ]


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
