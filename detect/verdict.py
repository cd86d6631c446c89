"""What a detector says of a picture, in one shape for the command line, Python, the page, the API and reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from crossfake.datasets.decode import CODES
from crossfake.datasets.types import Box, Pixels

LABELS = ("real", "fake")
UNCERTAIN = "uncertain"
NO_ANSWER = "no reliable answer"
VERDICTS = ("real", NO_ANSWER, UNCERTAIN, "fake")  # from the harmless one to the worst
NOT_JUDGED = "not judged"

REASONS = {
    "out-of-distribution": "more unusual than nearly all images that the detector was validated on",
    "near-threshold": "both verdicts are plausible",
    "untested": "the detector was not tested on strangers' pictures, or did no better than guessing there",
    "unsupported": "in its test on strangers' pictures the detector went wrong too often in this direction",
    "capped": "its test on strangers' pictures allows no surer a number",
    "prior": "the detector leans one way, and the share of fakes that you named the other",
    "small-face": "the face has fewer pixels than the network sees: it was enlarged",
    "small-picture": "the picture has fewer pixels than the network sees: it was enlarged",
    "compressed": "strongly compressed JPEG (quality below 50): traces may be gone",
    "blurred": "hardly any detail: traces may be gone",
    "other-crop": "cut otherwise than the pictures that the detector was trained on",
    **CODES,
}


@dataclass(frozen=True)
class FrameScore:
    """One face in one frame of a video.

    Attributes:
        frame: its number, from 0.
        seconds: its time in the video; None where the video does not say.
        score: the network's own number, uncalibrated.
        probability: of being fake; None without a reliable answer.
        verdict: as of a picture.
        box: x, y, width and height in pixels; None for the whole frame.
        per_detector: the probability of each detector, where several looked.
        crop: uint8 ``[h, w, 3]``, sides of at most 96, to show; None where nobody asked.
    """

    frame: int
    seconds: float | None
    score: float
    probability: float | None
    verdict: str
    box: Box | None
    per_detector: dict[str, float | None] = field(default_factory=dict)
    crop: Pixels | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Verdict:
    """What a detector says of one image: of a face, of one person through a video, or of a whole picture.

    Attributes:
        score: the network's own number in [0, 1] for fake, uncalibrated. Of a video the mean over frames, as are
            ``probability``, ``low`` and ``high``.
        probability: calibrated, of being fake, where ``prior`` of the pictures are; None without a reliable answer.
        low: lower end of its 95% interval; None for a detector that was never calibrated.
        high: its upper end.
        verdict: ``real``, ``fake``, ``uncertain``: the detector abstains, or ``no reliable answer``: its tests do not
            allow one. A person in a video is real or fake when the mean and at least half of the frames say so.
        novelty: share in [0, 1] of validation images that are less unusual (of a video the median); None when unknown.
        reasons: codes, explained in :data:`REASONS`; of a video those of at least half of the frames.
        box: x, y, width and height in pixels of the upright picture; None for the whole picture. Of a person in a
            video that of the middle frame.
        person: number of the face in the picture, the largest being 0, or of the person through the video.
        quantile: of a video the 0.9 quantile of the frames' probabilities: a forgery need not last.
        frames: of a video, one by one.
        grade: how much the detector's tests make of its word, of :data:`crossfake.detect.bundle.fitness.GRADES`;
            empty for what a detector says by itself.
        prior: share of fakes at which the probability holds; None for what a detector says by itself.
    """

    score: float
    probability: float | None
    low: float | None
    high: float | None
    verdict: str
    novelty: float | None = None
    reasons: tuple[str, ...] = ()
    box: Box | None = None
    person: int | None = None
    quantile: float | None = None
    frames: tuple[FrameScore, ...] = ()
    grade: str = ""
    prior: float | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """For sorting, the worst last."""
        return VERDICTS.index(self.verdict), self.score if self.probability is None else self.probability

    def having(self, *reasons: str) -> Verdict:
        """The same with more reasons, each once."""
        return dataclasses.replace(self, reasons=tuple(dict.fromkeys((*self.reasons, *reasons))))


@dataclass(frozen=True)
class MissedFace:
    """A face of a picture that was not judged, or what befell ``frames`` frames of a video."""

    reason: str
    box: Box | None = None
    frames: int = 0
