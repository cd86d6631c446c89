"""Judging a user's own pictures, one by one or a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import Skip
from crossfake.datasets.sources.folder import walk_images
from crossfake.detect.bundle import LABELS, Detector
from crossfake.errors import UserError

_BATCH = 128


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one file.

    Attributes:
        score: calibrated probability of being fake; None when the file could not be judged.
        verdict: ``real`` or ``fake`` by the bundle's threshold, else ``not judged``.
        reason: why it was not judged.
    """

    path: str
    score: float | None
    verdict: str
    reason: str = ""


def predict(paths: Sequence[str | Path], detector: Detector) -> list[Prediction]:
    """Judge files and all images in folders, in the order given. What cannot be judged is listed with its reason.

    Raises:
        UserError: a path is not there, or nothing was named.
    """
    files = list(_files(paths))
    if not files:
        raise UserError("there is no image to judge", mend="name images, or folders that hold some")
    detector.crop.description()  # a missing face model is the user's to mend, not each picture's fault
    judged: dict[int, Prediction] = {}
    waiting: list[tuple[int, Pixels]] = []
    with tqdm(total=len(files), unit="img", desc="predict", disable=len(files) < 2) as bar:
        for number, file in enumerate(files):
            try:
                waiting.append((number, detector.crop(decode_image(file))))
            except Skip as skip:
                judged[number] = Prediction(str(file), None, "not judged", str(skip))
            except UserError as error:
                judged[number] = Prediction(str(file), None, "not judged", error.message)
            if len(waiting) == _BATCH or (waiting and number == len(files) - 1):
                scores = detector.score(np.stack([pixels for _, pixels in waiting]))
                for (at, _), score in zip(waiting, scores, strict=True):
                    verdict = LABELS[int(score >= detector.threshold)]
                    judged[at] = Prediction(str(files[at]), float(score), verdict)
                waiting.clear()
            bar.update()
    return [judged[number] for number in range(len(files))]


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} is not there", mend="check the path")
        if path.is_dir():
            yield from walk_images(path)
        else:
            yield path
