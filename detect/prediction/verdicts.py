"""What is said of a file: per face, per person of a video, and in all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfake.detect.metadata.results import Metadata
from crossfake.detect.prediction.media import Look, Media
from crossfake.detect.verdict import (
    LABELS,
    NO_ANSWER,
    NOT_JUDGED,
    REASONS,
    UNCERTAIN,
    FrameScore,
    MissedFace,
    Verdict,
)

HIGH = 0.9  # quantile over a person's frames


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one file.

    Attributes:
        path: as named.
        kind: ``picture`` or ``video``.
        width: in pixels, upright; 0 when the file could not be opened.
        height: likewise.
        verdict: that of the worst face: fake before uncertain before ``no reliable answer`` before real; ``not
            judged`` when there is none.
        probability: of that face; None without a reliable answer.
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
    faces: tuple[Verdict, ...] = ()
    skipped: tuple[MissedFace, ...] = ()
    problem: str = ""
    annotated: str | None = None
    claim: str = ""
    metadata: Metadata | None = None

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return bool(self.faces)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; fractions with six digits."""
        plain: dict[str, Any] = _rounded(dataclasses.asdict(dataclasses.replace(self, metadata=None)))
        for frame in (frame for face in plain["faces"] for frame in face["frames"]):
            del frame["per_detector"], frame["crop"]  # there is one detector, and pictures are not kept
        return {**plain, "metadata": self.metadata and self.metadata.as_dict()}


def conclude(media: Media, found: Sequence[Verdict], reasons: tuple[str, ...] = ()) -> Prediction:
    """The verdict on a file.

    Args:
        media: the file.
        found: what may be said of each of its looks; see :meth:`crossfake.detect.bundle.bundle.Detector.say`.
        reasons: codes that hold for all.
    """
    width, height = (round(side) for side in media.size)
    facts = (media.input.name, media.kind, width, height)
    said: dict[str, Any] = {"claim": media.claim, "metadata": media.metadata}
    if not found:
        return Prediction(*facts, NOT_JUDGED, skipped=media.missed, problem=media.problem, **said)
    looks = [
        dataclasses.replace(each, box=look.box, person=look.person).having(*look.reasons, *reasons)
        for look, each in zip(media.looks, found, strict=True)
    ]
    faces = looks
    if media.kind == "video":
        people: dict[int, list[int]] = {}
        for number, look in enumerate(media.looks):
            people.setdefault(look.person or 0, []).append(number)
        faces = [
            _pooled([media.looks[n] for n in numbers], [looks[n] for n in numbers], media.rate)
            for _, numbers in sorted(people.items())
        ]
    worst = max(faces, key=lambda face: face.rank)
    return Prediction(*facts, worst.verdict, worst.probability, tuple(faces), media.missed, **said)


def _pooled(looks: Sequence[Look], judged: Sequence[Verdict], rate: float) -> Verdict:
    """One person's frames as one verdict."""
    probabilities = [each.probability for each in judged if each.probability is not None]
    common = [code for code in REASONS if 2 * sum(code in each.reasons for each in judged) >= len(judged)]
    says = [each.verdict for each in judged]
    verdict = LABELS[int(np.mean(probabilities) >= 0.5)] if probabilities else NO_ANSWER
    if 2 * says.count(verdict) < len(says):
        verdict = UNCERTAIN
    series = tuple(
        FrameScore(look.frame, _seconds(look, rate), j.score, j.probability, j.verdict, look.box)
        for look, j in zip(looks, judged, strict=True)
    )
    return Verdict(
        float(np.mean([each.score for each in judged])),
        float(np.mean(probabilities)) if probabilities else None,
        _mean([each.low for each in judged]),
        _mean([each.high for each in judged]),
        verdict,
        _median([each.novelty for each in judged]),
        tuple(common),
        looks[len(looks) // 2].box,
        looks[0].person or 0,
        float(np.quantile(probabilities, HIGH)) if probabilities else None,
        series,
        judged[0].grade,
        judged[0].prior,
    )


def _seconds(look: Look, rate: float) -> float | None:
    """When a frame is shown: what it says itself, else as if all lasted equally long."""
    if look.seconds is not None:
        return look.seconds
    return look.frame / rate if rate else None


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
