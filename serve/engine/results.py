"""What an analysis says: plain data, and the pictures that go with it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from crossfake.datasets.types import Box, Pixels
from crossfake.detect.explain.traces import TraceMap
from crossfake.detect.metadata.results import Metadata
from crossfake.detect.verdict import NOT_JUDGED, FrameScore, MissedFace, Verdict
from crossfake.detect.wording import Statement
from crossfake.pages import picture_uri
from crossfake.serve.engine.agreement import answer

SCHEMA = 1
_DIGITS = 6


@dataclass(frozen=True)
class Warning:
    """Something that makes the verdict weaker: a code for programs, a sentence for people."""

    code: str
    words: str


@dataclass(frozen=True)
class StabilityPoint:
    """The score after the picture was changed and decoded anew.

    Attributes:
        transform: ``as sent``, ``JPEG``, ``WebP``, ``resize`` (and back), or ``blur``.
        strength: quality of JPEG and WebP, factor of resizing, sigma of the blur in pixels; 0 as sent.
        probability: of the detector whose verdict stands for the face; None when the face was no longer found, or
            without a reliable answer.
        score: likewise, uncalibrated: it also moves where the probability has reached its end.
        per_detector: the probability of each detector that gives one.
        verdict: what would have been said of it; ``not judged`` when the face was no longer found.
    """

    transform: str
    strength: float
    probability: float | None
    score: float | None = None
    per_detector: dict[str, float] = field(default_factory=dict)
    verdict: str = NOT_JUDGED


@dataclass(frozen=True)
class Example:
    """A training picture that the first detector finds alike.

    Attributes:
        picture: uint8 ``[S, S, 3]``.
        label: ``real`` or ``fake``.
        generator: what made it; of a real the name of its data set.
        distance: 1 less the cosine similarity of features, 0 (the same) to 2.
    """

    picture: Pixels
    label: str
    generator: str
    distance: float


@dataclass(frozen=True)
class FaceAnalysis:
    """One face of a picture, one person of a video, or the whole picture.

    Attributes:
        person: from 0, from left to right; of a video in the order of appearance.
        box: x, y, width and height in pixels of the upright picture; None for the whole picture. Of a video that of
            the frame that ``crop`` shows.
        per_detector: by the names in ``Analyser.detectors``; several are shown apart.
        warnings: what makes the verdict weaker.
        stability: the score under recompression and resizing, ``as sent`` first; empty when not asked for.
        crop: uint8 ``[H, W, 3]``, what the first detector saw, made smaller to show where a side is above 512. Of a
            video the frame with the highest probability.
        heatmap: uint8 ``[H, W, 3]``, the map laid over the grey crop; orange speaks for fake, purple for real.
        heat: float32 ``[H, W]`` in [-1, 1], the same as numbers: above 0 speaks for fake.
        heat_method: how it was made, such as ``gradcam``; empty without a map.
        spectrum: uint8 picture: the log power spectrum, and beside it how far it is from that of reals, where known.
        nearest: training pictures, the most alike first.
        frames: of a video, one by one.
        notes: which parts are missing, and why, a sentence each.
        says: the verdict in words: headline, number, what to do next, what it rests on.
        count: how many of several detectors say what; empty of one alone.
    """

    person: int
    box: Box | None
    per_detector: dict[str, Verdict]
    crop: Pixels
    warnings: tuple[Warning, ...] = ()
    stability: tuple[StabilityPoint, ...] = ()
    heatmap: Pixels | None = None
    heat: npt.NDArray[np.float32] | None = None
    heat_method: str = ""
    spectrum: Pixels | None = None
    nearest: tuple[Example, ...] = ()
    frames: tuple[FrameScore, ...] = ()
    notes: tuple[str, ...] = ()
    says: Statement = Statement("")
    count: str = ""

    @property
    def opinion(self) -> Verdict:
        """The one that stands for all detectors' verdicts."""
        return answer(list(self.per_detector.values()))

    @property
    def verdict(self) -> str:
        """``real``, ``fake``, ``uncertain`` or ``no reliable answer``."""
        return self.opinion.verdict


@dataclass(frozen=True)
class DetectorFacts:
    """What is known of a detector, for whoever reads its verdicts.

    Attributes:
        name: as in ``Analyser.detectors``.
        model: the kind of network.
        hash: SHA-256 of its weights.
        size: pixels of the square that it sees.
        sees: what it looks at: a face or the whole picture, and of how many pixels.
        threshold: probability from which on it says fake, unless it abstains.
        calibrated: whether its scores are probabilities with an interval.
        trained_on: names of the data sets and generators.
        tested_on: generators of the test set: ``(name, fakes, share that was called fake)``.
        false_alarms: share of the test set's reals that it calls fake; None when unknown.
        false_alarms_interval: its 95% interval.
        reals: how many reals that was measured on; 0 when unknown.
        words: sentences on all of this, and on its limits.
        grade: how much its tests make of its word: ``none``, ``weak``, ``fair`` or ``good``.
        basis: what it learned from, was tested on, and was never tested on.
        prior: share of fakes at which its probabilities hold.
    """

    name: str
    model: str
    hash: str
    size: int
    sees: str
    threshold: float
    calibrated: bool
    trained_on: tuple[str, ...]
    tested_on: tuple[tuple[str, int, float], ...] = ()
    false_alarms: float | None = None
    false_alarms_interval: tuple[float, float] | None = None
    reals: int = 0
    words: tuple[str, ...] = ()
    grade: str = "none"
    basis: str = ""
    prior: float = 0.5


@dataclass(frozen=True)
class KeyFrame:
    """A frame that a video stores whole: what to give to a reverse search of pictures.

    Attributes:
        seconds: its time in the video; None where the video does not say.
        picture: uint8 ``[h, w, 3]``, of at most 960 pixels.
    """

    seconds: float | None
    picture: Pixels


@dataclass(frozen=True)
class Analysis:
    """What is said of one file.

    Attributes:
        name: to show; cleaned, never a path.
        sha256: of the file.
        bytes: of the file.
        kind: ``image`` or ``video``.
        width: in pixels, upright.
        height: likewise.
        seconds: that the analysis took.
        when: UTC, ISO 8601.
        version: of crossfake.
        detectors: facts of each.
        faces: one by one.
        missed: faces, or frames, that were not judged.
        verdict: ``fake`` before ``uncertain`` before ``real``, of the worst face; ``not judged`` without faces.
        words: the verdict in a sentence or two.
        says: of the worst face: headline, number, what to do next, what it rests on.
        prior: share of fakes among such files that was asked for; None for each detector's own.
        warnings: that hold for the whole file.
        picture: uint8 ``[h, w, 3]``, the upright picture reduced to at most 1,600 pixels; None of a video.
            A box of a face times ``picture.shape[1] / width`` is its place there.
        duration: of a video in seconds; None of a picture, or when unknown.
        metadata: what the file says of itself; None in an analysis of before.
        traces: of a picture maps of error levels and noise, each with how it misleads; empty without ``explain``, and
            of one above 25 megapixels.
        key_frames: of a video up to six, none like the one before.
    """

    name: str
    sha256: str
    bytes: int
    kind: str
    width: int
    height: int
    seconds: float
    when: str
    version: str
    detectors: tuple[DetectorFacts, ...]
    faces: tuple[FaceAnalysis, ...]
    missed: tuple[MissedFace, ...]
    verdict: str
    words: str
    warnings: tuple[Warning, ...] = ()
    picture: Pixels | None = None
    duration: float | None = None
    metadata: Metadata | None = None
    says: Statement = Statement("Not judged")
    prior: float | None = None
    traces: tuple[TraceMap, ...] = ()
    key_frames: tuple[KeyFrame, ...] = ()

    def to_json(self, pictures: bool = False) -> dict[str, Any]:
        """Plain values for ``json.dumps``: fractions with six digits, no NaN.

        Args:
            pictures: put them in as ``data:image/png;base64,…``; else they, and ``heat``, are left out.
        """
        plain: dict[str, Any] = _for_json(self, pictures)
        return {"schema": SCHEMA, **plain}


def _for_json(value: Any, pictures: bool) -> Any:
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value)]
        made = {name: _for_json(getattr(value, name), pictures) for name in names}
        hidden = {name for name in names if isinstance(getattr(value, name), np.ndarray) and not pictures}
        plain = {name: made[name] for name in names if name not in hidden and name != "heat"}
        return {**plain, "verdict": value.verdict} if isinstance(value, FaceAnalysis) else plain
    if isinstance(value, np.ndarray):
        if not pictures or value.dtype != np.uint8:
            return None
        return picture_uri(Image.fromarray(value))
    if isinstance(value, dict):
        return {str(key): _for_json(each, pictures) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(each, pictures) for each in value]
    if isinstance(value, float | np.floating):
        return round(float(value), _DIGITS) if math.isfinite(value) else None
    return value
