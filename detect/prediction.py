"""Judging a user's own pictures and videos, one by one or a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.geometry import Skip
from crossfake.datasets.sources.folder import is_video, walk
from crossfake.datasets.video import read_frames
from crossfake.detect.bundle import LABELS, Detector
from crossfake.errors import UserError

_BATCH = 128


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one file.

    Attributes:
        score: calibrated probability of being fake, of a video the mean over its frames; None when the file could
            not be judged.
        verdict: ``real`` or ``fake`` by the bundle's threshold, else ``not judged``.
        reason: why it was not judged.
        frames: of a video: number of a frame to its score.
    """

    path: str
    score: float | None
    verdict: str
    reason: str = ""
    frames: dict[int, float] = field(default_factory=dict)


def predict(paths: Sequence[str | Path], detector: Detector, frames: int = 32) -> list[Prediction]:
    """Judge files and all images and videos in folders, in the order given. What cannot be judged says why.

    Args:
        paths: images, videos, or folders of them.
        detector: the bundle.
        frames: of each video, evenly spread; of several people the one who covers most area is judged.

    Raises:
        UserError: a path is not there, or nothing was named.
    """
    files = list(_files(paths))
    if not files:
        raise UserError("there is no image to judge", mend="name images, or folders that hold some")
    detector.crop.description()  # a missing face model is the user's to mend, not each picture's fault
    reasons: dict[int, str] = {}
    scores: list[dict[int, float]] = [{} for _ in files]
    waiting: list[tuple[int, int, Pixels]] = []

    def judge() -> None:
        if waiting:
            found = detector.score(np.stack([pixels for _, _, pixels in waiting]))
            for (file, frame, _), score in zip(waiting, found, strict=True):
                scores[file][frame] = float(score)
            waiting.clear()

    with tqdm(files, unit="file", desc="predict", disable=len(files) < 2) as bar:
        for number, file in enumerate(bar):
            try:
                for frame, crop in _crops(file, detector, frames):
                    if isinstance(crop, Skip):
                        reasons[number] = str(crop)
                    else:
                        waiting.append((number, frame, crop))
                    if len(waiting) == _BATCH:
                        judge()
            except UserError as error:
                reasons[number] = error.message
        judge()
    return [
        _prediction(file, each, reasons.get(number, ""), detector)
        for number, (file, each) in enumerate(zip(files, scores, strict=True))
    ]


def _crops(file: Path, detector: Detector, most: int) -> Iterator[tuple[int, Pixels | Skip]]:
    """The squares that the detector looks at: one of a picture, one per frame of a video."""
    if is_video(file):
        for number, crop in detector.crop.of_video((n, image, None) for n, image in read_frames(file, most)):
            yield number, crop if isinstance(crop, Skip) else crop.image
        return
    try:
        yield 0, detector.crop.open(file)
    except Skip as skip:
        yield 0, skip


def _prediction(file: Path, scores: dict[int, float], reason: str, detector: Detector) -> Prediction:
    if not scores:
        return Prediction(str(file), None, "not judged", reason)
    score = float(np.mean(list(scores.values())))
    verdict = LABELS[int(score >= detector.threshold)]
    return Prediction(str(file), score, verdict, frames=scores if is_video(file) else {})


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} is not there", mend="check the path")
        if path.is_dir():
            yield from walk(path)
        else:
            yield path
