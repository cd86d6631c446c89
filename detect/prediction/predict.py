"""Judging a user's own pictures and videos: every face or the whole picture, one file or a long list of them."""

from __future__ import annotations

import dataclasses
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.crops import Cropper
from crossfake.datasets.faces import find_faces
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.bundle.sent import SentDetector
from crossfake.detect.metadata.credentials import trusted
from crossfake.detect.prediction.annotate import Annotator
from crossfake.detect.prediction.media import Input, Media, absolute, find_inputs, in_tasks, open_media
from crossfake.detect.prediction.verdicts import Prediction, conclude
from crossfake.detect.settings import PredictSettings
from crossfake.detect.verdict import Verdict
from crossfake.detect.view import Windows
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings, map_in_order

_LEAST = 16  # pictures of a task
_NO_PIXELS: Pixels = np.empty((0, 0, 3), np.uint8)


def predict(
    paths: Sequence[str | Path],
    detector: Detector,
    settings: PredictSettings | None = None,
    where: ExecutorSettings = LOCAL,
    device: str = "auto",
) -> Iterator[Prediction]:
    """Judge images and videos one after the other, in the order given; what cannot be judged says why.

    Crops of many files fill the network's batch, while files are opened ahead of it. Nothing is kept of a file once
    its prediction is given, so a list may be of any length.

    Args:
        paths: images, videos, folders, zip archives and patterns of them, http(s) addresses; ``-`` for a list on stdin.
        detector: the bundle.
        settings: which faces, how many frames.
        where: what opens and judges the files: this machine, or tasks of Ray.
        device: of Ray's workers.

    Raises:
        UserError: a path is not there, nothing was named, or the bundle's crop cannot be made.

    Example:
        >>> for each in predict(["holiday/"], load("runs/d")):  # doctest: +SKIP
        ...     print(each.path, each.verdict, each.probability)
    """
    settings = settings or PredictSettings()
    inputs = find_inputs(paths, settings.allow_urls, settings.annotate)
    return predict_inputs(inputs, detector, settings, where, device)


def predict_inputs(
    inputs: Iterator[Input],
    detector: Detector,
    settings: PredictSettings,
    where: ExecutorSettings = LOCAL,
    device: str = "auto",
) -> Iterator[Prediction]:
    """:func:`predict`, of what :func:`~crossfake.detect.prediction.media.find_inputs` found."""
    cut = plan(detector, settings.faces)
    annotator = Annotator(settings.annotate) if settings.annotate else None
    opening = partial(
        open_media,
        cropper=cut.cropper,
        frames=settings.frames,
        view=detector.view,
        metadata=settings.metadata,
        anchors=trusted(settings.trust),
    )
    reasons = ("other-crop",) if cut.other else ()
    if where.is_ray:
        if annotator:
            raise UserError("Ray's workers draw no verdicts", hint="leave --annotate out, or --executor")
        return _judged_elsewhere(inputs, detector, opening, reasons, settings.prior, where, device)
    media = opening(inputs, workers=settings.workers, keep_fetched=annotator is not None)
    return _judged(media, detector, reasons, annotator, settings.prior)


@dataclass(frozen=True)
class CropPlan:
    """What cuts the pictures, and what the user should know about it.

    Attributes:
        cropper: the crop policy.
        note: where it is not quite what the detector was trained with; empty when it is.
        other: it is another policy altogether.
    """

    cropper: Cropper
    note: str = ""
    other: bool = False


def plan(detector: Detector, faces: str | None = None) -> CropPlan:
    """How to cut pictures for a detector.

    Raises:
        UserError: the bundle's crop policy is unknown, or the face detector is missing or damaged.
    """
    card = detector.card["crop"] or {}
    pixels: dict[str, Any] = {"pixels": "native", "min_size": detector.size} if detector.view.native else {}
    plain = Cropper(detector.size, "none" if detector.view.native else "center", **pixels)
    try:
        own = detector.crop
    except (UserError, ValueError, TypeError) as error:
        if faces == "whole":
            return CropPlan(plain, "the detector was trained on a crop that is not known here", other=True)
        reason = error.message if isinstance(error, UserError) else str(error)
        raise UserError(
            f"the detector in {detector.path} was trained on a crop that cannot be made here ({reason})",
            hint="update crossfake, or cut the pictures yourself and judge them with --faces whole",
        ) from error
    if faces == "whole" and own.finds_faces:
        note = (
            "the detector was trained on faces: --faces whole suits pictures that are cut like those already"
        )
        return CropPlan(plain, note, other=True)
    if faces in (None, "whole") and not own.finds_faces:
        return CropPlan(own)
    note = ""
    if other := not own.finds_faces:
        note = "the detector was trained on whole pictures, not on faces cut out of them"
        own = Cropper(detector.size, "face", face_model=detector.face_model, **pixels)
    known = own.description()["detector"]
    find_faces(np.zeros((32, 32, 3), np.uint8), own.model)  # a damaged model is not each picture's fault
    if not other and card.get("detector", known) != known:
        note = "in training another version of YuNet found the faces: crops may differ a little"
    which = "largest" if faces == "largest" else "all"
    return CropPlan(dataclasses.replace(own, which=which), note, other)


def _judged_elsewhere(
    inputs: Iterator[Input],
    detector: Detector,
    opening: Callable[..., Iterator[Media]],
    reasons: tuple[str, ...],
    prior: float | None,
    where: ExecutorSettings,
    device: str,
) -> Iterator[Prediction]:
    """As many files at a time as fill the network, each batch of them a task."""
    with where.connected():
        sent = SentDetector.of(detector, device)
        work = partial(_judge_all, detector=sent, opening=opening, reasons=reasons, prior=prior)
        tasks = in_tasks(map(absolute, inputs), max(_LEAST, detector.batch))
        nothing = True
        for _, predictions in map_in_order(work, tasks, where=where, demand=sent.demand):
            nothing = False
            yield from predictions
    if nothing:
        raise UserError("there is no image to judge", hint="name images, or folders that hold some")


def _judge_all(
    inputs: list[Input],
    detector: SentDetector,
    opening: Callable[..., Iterator[Media]],
    reasons: tuple[str, ...],
    prior: float | None,
) -> list[Prediction]:
    """On a worker.

    Raises:
        UserError: it does not have a file that the machine which listed it had.
    """
    for each in inputs:
        file = each.member.archive if each.member else each.path
        if file is not None and not each.refused and not file.exists():
            raise UserError(
                f"{platform.node()} does not see {file}",
                hint="put the files on a file system that all machines share",
            )
    return list(_judged(opening(inputs, workers=1), detector.open(), reasons, None, prior))


@dataclass
class _Open:
    """A file whose crops are on their way through the network."""

    media: Media
    found: list[Verdict] = field(default_factory=list)
    waiting: int = 0


def _judged(
    media: Iterator[Media],
    detector: Detector,
    reasons: tuple[str, ...],
    annotator: Annotator | None,
    prior: float | None,
) -> Iterator[Prediction]:
    files: deque[_Open] = deque()
    batch: list[tuple[_Open, Pixels]] = []
    count = 0

    def judge() -> None:
        images = [image for _, image in batch]
        outputs = detector.outputs_and_error(
            Windows(np.concatenate(images), np.array([len(image) for image in images]))
            if detector.view.native
            else np.stack(images)
        )
        said = detector.say(detector.judge_outputs(*outputs), prior)
        for (file, _), verdict in zip(batch, said, strict=True):
            file.found.append(verdict)
            file.waiting -= 1
        batch.clear()

    def finished() -> Iterator[Prediction]:
        while files and not files[0].waiting:
            prediction = conclude(files[0].media, files[0].found, reasons)
            if annotator and prediction.judged:
                prediction = annotator.annotate(files[0].media, prediction)
            files.popleft()
            yield prediction

    for each in media:
        count += 1
        file = _Open(each)
        files.append(file)
        for look in each.looks:
            file.waiting += 1
            batch.append((file, look.image))
            if len(batch) == detector.batch:
                judge()
        # pixels are needed no longer than they wait
        file.media = dataclasses.replace(
            each, looks=tuple(dataclasses.replace(look, image=_NO_PIXELS) for look in each.looks)
        )
        yield from finished()
    if batch:
        judge()
    yield from finished()
    if not count:
        raise UserError("there is no image to judge", hint="name images, or folders that hold some")
