"""Several detectors look at the same file: each in its own crop, then face by face side by side."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from crossfake.datasets.crops import Cropper
from crossfake.datasets.faces import overlap
from crossfake.datasets.types import Box, Pixels
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.bundle import LABELS, Detector
from crossfake.detect.prediction.media import Media, Missed
from crossfake.detect.prediction.predict import plan
from crossfake.detect.prediction.verdicts import FaceVerdict, Prediction, conclude
from crossfake.detect.view import Images
from crossfake.errors import UserError
from crossfake.serve.engine.results import ENSEMBLE, Opinion

_SAME = 0.5  # two boxes that overlap so much are one face
_AT_ONCE = 128  # looks whose windows are held at a time
_MORE = "more faces than are judged at once"

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seat:
    """A detector at the table.

    Attributes:
        name: of its run.
        cropper: what cuts pictures for it.
        codes: warnings that hold for whatever it says.
    """

    name: str
    detector: Detector
    cropper: Cropper
    codes: tuple[str, ...] = ()


def seats(bundles: Sequence[Path], device: str, face_model: Path | None) -> tuple[Seat, ...]:
    """Detectors loaded, each under a name of its own.

    Raises:
        UserError: no bundles, or one cannot be loaded.
    """
    if not bundles:
        raise UserError("there is no detector", hint="name one with --bundle RUN")
    taken = {ENSEMBLE}
    made = []
    for path in bundles:
        detector = bundle.load(path, device, face_model=face_model)
        made.append(_seat(_name(path, taken), detector))
    return tuple(made)


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


def _seat(name: str, detector: Detector) -> Seat:
    uncalibrated = () if detector.calibration.get("interval") else ("not-calibrated",)
    try:
        cut = plan(detector)
        return Seat(name, detector, cut.cropper, ("other-crop",) * cut.other + uncalibrated)
    except UserError:  # without a face model the whole picture is better than nothing, said so
        cut = plan(detector, "whole")
        return Seat(name, detector, cut.cropper, ("no-face-model", "other-crop", *uncalibrated))


@dataclass(frozen=True)
class Judged:
    """What one detector found: its prediction, and the features ``[N, F]`` of the looks of its media."""

    media: Media
    prediction: Prediction
    features: Features


def as_seen(detector: Detector, crops: Sequence[Pixels]) -> Images:
    """Crops, one at least, as a detector takes them: of a native view each has its own size."""
    return crops if detector.view.native else np.stack(crops)


def judge(seat: Seat, media: Media) -> Judged:
    """Score every look of a file in one pass."""
    codes = tuple(code for code in seat.codes if code == "other-crop")
    if not media.looks:
        return Judged(
            media, conclude(media, (), seat.detector.threshold, codes), np.empty((0, 0), np.float32)
        )
    images = [look.image for look in media.looks]
    parts = [
        seat.detector.outputs_and_error(as_seen(seat.detector, images[start : start + _AT_ONCE]))
        for start in range(0, len(images), _AT_ONCE)
    ]
    logits, features, error = (np.concatenate(each) for each in zip(*parts, strict=True))
    judgements = seat.detector.judge_outputs(logits, features, error)
    found = list(zip(expit(logits).tolist(), judgements, strict=True))
    return Judged(media, conclude(media, found, seat.detector.threshold, codes), features)


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
    gone = tuple(Missed(_MORE, look.box, look.frame) for look in media.looks if id(look) not in numbers)
    return dataclasses.replace(media, looks=tuple(stay), missed=media.missed + gone)


def same_face(box: Box | None, boxes: Sequence[Box | None]) -> int | None:
    """Which of the boxes is around the same face; the whole picture stands for each of its faces."""
    if not boxes or box is None or boxes[0] is None:
        return 0 if boxes else None
    overlaps = [overlap(box, other) if other else 0.0 for other in boxes]
    best = int(np.argmax(overlaps))
    return best if overlaps[best] >= _SAME else None


def counterpart(anchor: FaceVerdict, prediction: Prediction) -> FaceVerdict | None:
    """The same face in another detector's prediction, None when that did not judge it."""
    faces = prediction.faces
    if prediction.kind == "video" and faces and anchor.box and faces[0].box:
        return next((face for face in faces if face.person == anchor.person), None)
    at = same_face(anchor.box, [face.box for face in faces])
    return None if at is None else faces[at]


def looks_of(judged: Judged, face: FaceVerdict) -> list[int]:
    """Which looks of the media a face's verdict is of."""
    if judged.media.kind == "video":
        return [n for n, look in enumerate(judged.media.looks) if (look.person or 0) == (face.person or 0)]
    return [next(n for n, each in enumerate(judged.prediction.faces) if each is face)]


def as_opinion(face: FaceVerdict, codes: tuple[str, ...] = ()) -> Opinion:
    return Opinion(
        face.score, face.probability, face.low, face.high, face.verdict, face.novelty, (*face.reasons, *codes)
    )


def together(opinions: Sequence[Opinion], thresholds: Sequence[float]) -> Opinion:
    """The ensemble: the mean of calibrated probabilities.

    The ends of its interval are the means of the members': as wide as if all erred alike. It abstains when half of
    the members do, when the probability is on one side and most of the others' verdicts on the other, or when they
    contradict each other.

    Args:
        opinions: of the members, one at least.
        thresholds: of each, from which on it says fake.
    """
    probability = float(np.mean([each.probability for each in opinions]))
    label = LABELS[int(probability >= np.mean(thresholds))]
    says = [each.verdict for each in opinions]
    torn = "real" in says and "fake" in says
    unsure = torn or 2 * says.count("uncertain") >= len(says) or label not in says
    codes = dict.fromkeys(code for each in opinions for code in each.reasons)
    return Opinion(
        float(np.mean([each.score for each in opinions])),
        probability,
        _mean([each.low for each in opinions]),
        _mean([each.high for each in opinions]),
        "uncertain" if unsure else label,
        max((each.novelty for each in opinions if each.novelty is not None), default=None),
        (*codes, *(("detectors-disagree",) if torn else ())),
    )


def side_by_side(opinions: Mapping[str, Opinion], seated: Sequence[Seat]) -> dict[str, Opinion]:
    """Opinions by detector, and the ensemble's when there are several detectors."""
    made = dict(opinions)
    if len(seated) > 1:
        thresholds = [seat.detector.threshold for seat in seated if seat.name in opinions]
        made[ENSEMBLE] = together(list(opinions.values()), thresholds)
    return made


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
