"""What is said of a file: per face, per person of a video, and in all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfake.datasets.decode import CODES
from crossfake.datasets.types import Box
from crossfake.detect.bundle.bundle import LABELS, Judgement
from crossfake.detect.metadata.results import Metadata
from crossfake.detect.prediction.media import Look, Media

VERDICTS = ("real", "uncertain", "fake")  # from the harmless one to the worst
NOT_JUDGED = "not judged"
HIGH = 0.9  # quantile over a person's frames

REASONS = {
    "out-of-distribution": "more unusual than nearly all images that the detector was validated on",
    "near-threshold": "both verdicts are plausible",
    "small-face": "the face has fewer pixels than the network sees: it was enlarged",
    "small-picture": "the picture has fewer pixels than the network sees: it was enlarged",
    "compressed": "strongly compressed JPEG (quality below 50): traces may be gone",
    "blurred": "hardly any detail: traces may be gone",
    "other-crop": "cut otherwise than the pictures that the detector was trained on",
    **CODES,
}


@dataclass(frozen=True)
class FrameScore:
    """One frame of a person: its number from 0, its time (None where the video does not say), and what was found."""

    frame: int
    seconds: float | None
    score: float
    probability: float
    verdict: str
    box: Box | None


@dataclass(frozen=True)
class FaceVerdict:
    """What a detector says of one face, of one person through a video, or of a whole picture.

    Attributes:
        box: x, y, width and height in pixels of the upright picture; None for the whole picture. Of a person in a
            video that of the middle frame.
        person: number of the face in the picture, the largest being 0, or of the person through the video.
        score: the network's own probability of being fake, uncalibrated. Of a video the mean over frames, as are
            ``probability``, ``low`` and ``high``.
        probability: calibrated on the validation set.
        low: lower end of its 95% interval; None for a detector that was never calibrated.
        high: its upper end.
        verdict: ``real``, ``fake`` or ``uncertain``. A person in a video is real or fake when the mean and at least
            half of the frames say so.
        novelty: share of validation images that are less unusual (of a video the median); None when unknown.
        reasons: codes, explained in :data:`REASONS`; of a video those of at least half of the frames.
        quantile: of a video the 0.9 quantile of the frames' probabilities: a forgery need not last.
        frames: of a video, one by one.
    """

    box: Box | None
    person: int | None
    score: float
    probability: float
    low: float | None
    high: float | None
    verdict: str
    novelty: float | None
    reasons: tuple[str, ...] = ()
    quantile: float | None = None
    frames: tuple[FrameScore, ...] = ()


@dataclass(frozen=True)
class SkippedFace:
    """A face of a picture that was not judged, or what befell ``frames`` frames of a video."""

    reason: str
    box: Box | None = None
    frames: int = 0


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one file.

    Attributes:
        path: as named.
        kind: ``picture`` or ``video``.
        width: in pixels, upright; 0 when the file could not be opened.
        height: likewise.
        verdict: that of the worst face: fake before uncertain before real; ``not judged`` when there is none.
        probability: calibrated, of that face.
        faces: one by one.
        skipped: faces or frames that were not judged.
        problem: why nothing was judged.
        annotated: the picture or video with the verdicts drawn in.
        claim: what the file says of a generator that made it; it outranks the verdict. Empty where it says nothing.
        metadata: all that the file says of itself, where that was asked for.
    """

    path: str
    kind: str
    width: int
    height: int
    verdict: str
    probability: float | None = None
    faces: tuple[FaceVerdict, ...] = ()
    skipped: tuple[SkippedFace, ...] = ()
    problem: str = ""
    annotated: str | None = None
    claim: str = ""
    metadata: Metadata | None = None

    @property
    def judged(self) -> bool:
        return bool(self.faces)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; fractions with six digits."""
        plain: dict[str, Any] = _rounded(dataclasses.asdict(dataclasses.replace(self, metadata=None)))
        return {**plain, "metadata": self.metadata and self.metadata.as_dict()}


def conclude(
    media: Media,
    found: Sequence[tuple[float, Judgement]],
    threshold: float,
    reasons: tuple[str, ...] = (),
) -> Prediction:
    """The verdict on a file.

    Args:
        media: the file.
        found: the uncalibrated probability and the judgement of each of its looks.
        threshold: probability from which on a person of a video is called fake.
        reasons: codes that hold for all.
    """
    width, height = (round(side) for side in media.size)
    skipped = _skipped(media)
    facts = (media.input.name, media.kind, width, height)
    said: dict[str, Any] = {"claim": media.claim, "metadata": media.metadata}
    if not found:
        return Prediction(*facts, NOT_JUDGED, skipped=skipped, problem=media.problem, **said)
    people: dict[int, list[int]] = {}
    for number, look in enumerate(media.looks):
        people.setdefault(look.person or 0, []).append(number)
    if media.kind == "video":
        faces = [
            _pooled(media, person, numbers, found, threshold, reasons)
            for person, numbers in sorted(people.items())
        ]
    else:
        faces = [
            FaceVerdict(
                look.box, look.person, score, j.score, j.low, j.high, j.verdict, j.novelty,
                (*j.reasons, *look.reasons, *reasons),
            )
            for look, (score, j) in zip(media.looks, found, strict=True)
        ]  # fmt: skip
    worst = max(faces, key=lambda face: (VERDICTS.index(face.verdict), face.probability))
    return Prediction(*facts, worst.verdict, worst.probability, tuple(faces), skipped, **said)


def _pooled(
    media: Media,
    person: int,
    numbers: Sequence[int],
    found: Sequence[tuple[float, Judgement]],
    threshold: float,
    reasons: tuple[str, ...],
) -> FaceVerdict:
    """One person's frames as one verdict."""
    looks, judged = [media.looks[n] for n in numbers], [found[n][1] for n in numbers]
    scores = [found[n][0] for n in numbers]
    probabilities = [each.score for each in judged]
    codes = [(*j.reasons, *look.reasons, *reasons) for j, look in zip(judged, looks, strict=True)]
    common = [code for code in REASONS if sum(code in each for each in codes) * 2 >= len(codes)]
    says = [each.verdict for each in judged]
    verdict = LABELS[int(np.mean(probabilities) >= threshold)]
    if says.count(verdict) * 2 < len(says):
        verdict = "uncertain"
    series = tuple(
        FrameScore(look.frame, _seconds(look, media.rate), score, j.score, j.verdict, look.box)
        for look, score, j in zip(looks, scores, judged, strict=True)
    )
    return FaceVerdict(
        looks[len(looks) // 2].box,
        person,
        float(np.mean(scores)),
        float(np.mean(probabilities)),
        _mean([each.low for each in judged]),
        _mean([each.high for each in judged]),
        verdict,
        _median([each.novelty for each in judged]),
        tuple(common),
        float(np.quantile(probabilities, HIGH)),
        series,
    )


def _seconds(look: Look, rate: float) -> float | None:
    """When a frame is shown: what it says itself, else as if all lasted equally long."""
    if look.seconds is not None:
        return look.seconds
    return look.frame / rate if rate else None


def _skipped(media: Media) -> tuple[SkippedFace, ...]:
    if media.kind != "video":
        return tuple(SkippedFace(each.reason, each.box) for each in media.missed)
    counts: dict[str, set[int]] = {}
    for each in media.missed:
        counts.setdefault(each.reason, set()).add(each.frame)
    return tuple(SkippedFace(reason, frames=len(frames)) for reason, frames in counts.items())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
