"""Several detectors look at the same file: each in its own crop, then face by face side by side."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossfake.datasets.crops import Cropper
from crossfake.datasets.faces import overlap
from crossfake.datasets.types import Box, Pixels
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.prediction.media import Media
from crossfake.detect.prediction.predict import plan
from crossfake.detect.prediction.verdicts import Prediction, conclude
from crossfake.detect.verdict import MissedFace, Verdict
from crossfake.detect.view import Images
from crossfake.errors import UserError

_SAME = 0.5  # two boxes that overlap so much are one face
_AT_ONCE = 128  # looks whose windows are held at a time
_MORE = "more faces than are judged at once"

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LoadedDetector:
    """A detector in use.

    Attributes:
        name: of its run.
        cropper: what cuts pictures for it.
        codes: warnings that hold for whatever it says.
    """

    name: str
    detector: Detector
    cropper: Cropper
    codes: tuple[str, ...] = ()


def load_detectors(
    bundles: Sequence[Path], device: str, face_model: Path | None
) -> tuple[LoadedDetector, ...]:
    """Detectors loaded, each under a name of its own.

    Raises:
        UserError: no bundles, or one cannot be loaded.
    """
    if not bundles:
        raise UserError("there is no detector", hint="name one with --bundle RUN")
    taken: set[str] = set()
    return tuple(
        _loaded(_name(path, taken), bundle.load(path, device, face_model=face_model)) for path in bundles
    )


def _name(path: Path, taken: set[str]) -> str:
    resolved = path.resolve()
    stem = resolved.parent.name if resolved.name == "model" else resolved.name
    stem = re.sub(r"[^\w.+-]+", "_", stem) or "detector"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def _loaded(name: str, detector: Detector) -> LoadedDetector:
    uncalibrated = () if detector.calibration.get("interval") else ("not-calibrated",)
    try:
        cut = plan(detector)
        return LoadedDetector(name, detector, cut.cropper, ("other-crop",) * cut.other + uncalibrated)
    except UserError:  # without a face model the whole picture is better than nothing, said so
        cut = plan(detector, "whole")
        return LoadedDetector(name, detector, cut.cropper, ("no-face-model", "other-crop", *uncalibrated))


@dataclass(frozen=True)
class Found:
    """What one detector found: its prediction, and the features ``[N, F]`` of the looks of its media."""

    media: Media
    prediction: Prediction
    features: Features


def as_seen(detector: Detector, crops: Sequence[Pixels]) -> Images:
    """Crops, one at least, as a detector takes them: of a native view each has its own size."""
    return crops if detector.view.native else np.stack(crops)


def judge(loaded: LoadedDetector, media: Media, prior: float | None = None) -> Found:
    """Score every look of a file in one pass; ``prior`` is the share of fakes among such files, the detector's own when
    None."""
    detector, codes = loaded.detector, tuple(code for code in loaded.codes if code == "other-crop")
    images = [look.image for look in media.looks]
    if not images:
        return Found(media, conclude(media, (), codes), np.empty((0, 0), np.float32))
    parts = [
        detector.outputs_and_error(as_seen(detector, images[start : start + _AT_ONCE]))
        for start in range(0, len(images), _AT_ONCE)
    ]
    logits, features, error = (np.concatenate(each) for each in zip(*parts, strict=True))
    verdicts = detector.say(detector.judge_outputs(logits, features, error), prior)
    return Found(media, conclude(media, verdicts, codes), features)


def limited(media: Media, most: int) -> Media:
    """At most so many faces, the largest first, or people, those seen most often; the others are missed."""
    if media.kind == "video":
        seen: dict[int, int] = {}
        for look in media.looks:
            seen[look.person or 0] = seen.get(look.person or 0, 0) + 1
        kept = set(sorted(seen, key=lambda person: (-seen[person], person))[:most])
        stay = [look for look in media.looks if (look.person or 0) in kept]
    else:
        stay = list(media.looks[:most])
    if len(stay) == len(media.looks):
        return media
    numbers = set(map(id, stay))
    others = [look for look in media.looks if id(look) not in numbers]
    gone = [MissedFace(_MORE, look.box) for look in others]
    if media.kind == "video":
        gone = [MissedFace(_MORE, frames=len({look.frame for look in others}))]
    return dataclasses.replace(media, looks=tuple(stay), missed=(*media.missed, *gone))


def same_face(box: Box | None, boxes: Sequence[Box | None]) -> int | None:
    """Which of the boxes is around the same face; the whole picture stands for each of its faces."""
    if not boxes or box is None or boxes[0] is None:
        return 0 if boxes else None
    overlaps = [overlap(box, other) if other else 0.0 for other in boxes]
    best = int(np.argmax(overlaps))
    return best if overlaps[best] >= _SAME else None


def counterpart(anchor: Verdict, prediction: Prediction) -> Verdict | None:
    """The same face in another detector's prediction, None when that did not judge it."""
    faces = prediction.faces
    if prediction.kind == "video" and faces and anchor.box and faces[0].box:
        return next((face for face in faces if face.person == anchor.person), None)
    at = same_face(anchor.box, [face.box for face in faces])
    return None if at is None else faces[at]


def looks_of(found: Found, face: Verdict) -> list[int]:
    """Which looks of the media a face's verdict is of."""
    if found.media.kind == "video":
        return [n for n, look in enumerate(found.media.looks) if (look.person or 0) == (face.person or 0)]
    return [next(n for n, each in enumerate(found.prediction.faces) if each is face)]
