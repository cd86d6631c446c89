"""The engine behind the page and the API: a file in, per face what every detector says of it, and why."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossfake import __version__
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.datasets.geometry import Skip
from crossfake.datasets.types import Pixels
from crossfake.detect.metadata.display import claim_words
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.prediction.media import Input, Media, open_picture
from crossfake.detect.prediction.verdicts import NOT_JUDGED, VERDICTS, FaceVerdict
from crossfake.images import fitted
from crossfake.memory import give_back
from crossfake.serve.engine import wording
from crossfake.serve.engine.evidence import SHOWN, Evidence
from crossfake.serve.engine.facts import facts
from crossfake.serve.engine.judging import (
    Judged,
    Seat,
    as_opinion,
    counterpart,
    judge,
    limited,
    looks_of,
    seats,
    side_by_side,
)
from crossfake.serve.engine.results import (
    ENSEMBLE,
    Analysis,
    DetectorFacts,
    FaceAnalysis,
    MissedFace,
    Opinion,
    StabilityPoint,
)
from crossfake.serve.engine.stability import is_unstable, largest_crop, least_side, strips
from crossfake.serve.engine.tracking import follow, over_time
from crossfake.serve.intake.accepting import (
    Upload,
    accept,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import DEFAULTS, Limits

Progress = Callable[[float, str], None]  # share done in [0, 1], and what is being done; may raise to cancel
_SHOWN = 1600  # pixels of the picture that goes with an analysis
_NAME = "the picture"  # in errors: a stranger's file names go nowhere


class Analyser:
    """Detectors, loaded once. May be called from several threads.

    Args:
        bundles: runs of ``detect train`` or bundle folders.
        limits: of what is accepted.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        face_model: YuNet's ONNX file.

    Attributes:
        detectors: the bundles' run names, and ``ensemble`` (mean of calibrated probabilities) when there are several.

    Raises:
        UserError: no bundles, or one cannot be loaded.

    Example:
        >>> found = Analyser([Path("runs/d")]).image(Path("photo.jpg"))  # doctest: +SKIP
        >>> print(found.words)  # doctest: +SKIP
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        limits: Limits = DEFAULTS,
        device: str = "auto",
        face_model: Path | None = None,
    ) -> None:
        self.limits = limits
        self._seats = seats(bundles, device, face_model)
        several = (ENSEMBLE,) if len(self._seats) > 1 else ()
        self.detectors = (*(seat.name for seat in self._seats), *several)
        self._evidence = {seat.name: Evidence(seat.detector) for seat in self._seats}
        self._finding = threading.Lock()  # OpenCV's face detector serves one thread at a time
        self._facts = [facts(seat.name, seat.detector, seat.cropper.finds_faces) for seat in self._seats]
        for seat in self._seats:  # the first pass is slow, and no visitor should wait for it
            seat.detector.outputs(np.zeros((1, seat.detector.size, seat.detector.size, 3), np.uint8))

    def about(self) -> list[DetectorFacts]:
        """What is known of each detector: training, tests, false alarms, limits."""
        return list(self._facts)

    def prepare(self) -> None:
        """Make what explanations need now, instead of when the first one is asked for: some seconds."""
        seat = self._seats[0]
        blank = np.zeros((1, seat.detector.size, seat.detector.size, 3), np.uint8)
        self._evidence[seat.name].warm_up(list(blank), seat.detector.outputs(blank)[1])

    def image(
        self,
        path: Path,
        *,
        name: str = "",
        explain: bool = True,
        stability: bool = True,
        progress: Progress | None = None,
    ) -> Analysis:
        """Analyse a picture. Without ``explain`` and ``stability`` it is quick; a page asks for them afterwards.

        Args:
            path: the file; its name is not looked at.
            name: what to show.
            explain: heat map, spectrum and nearest training pictures.
            stability: the score under recompression and resizing.
            progress: told how far it is; what it raises ends the analysis.

        Raises:
            Refused: it is too much, or no picture.
            crossfake.datasets.decode.Unreadable: it is broken.
        """
        try:
            return self._image(path, name, explain, stability, progress or _silent)
        finally:
            give_back()

    def _image(self, path: Path, name: str, explain: bool, stability: bool, say: Progress) -> Analysis:
        started = time.monotonic()
        say(0.0, "reading the file")
        upload = self._accepted(path, "image", name)
        content = path.read_bytes()
        say(0.05, "looking for faces")
        judged = self._judged(lambda cropper: self._cut(content, cropper), say, 0.1, 0.3)
        faces = self._faces(judged)
        if explain and faces:
            say(0.35, "explaining")
            faces = self._explained(faces, judged)
        seen = judged[self._lead(judged).name].prediction
        boxes = [face.box for face in faces] if stability else []
        least = least_side((seen.width, seen.height), boxes, largest_crop(self._seats)) if boxes else 0
        shown = decode_image(content, _NAME, at_least=max(_SHOWN, least))
        if stability and faces:
            strip = strips(
                shown, faces, self._seats, self._cut, lambda share, what: say(0.5 + 0.45 * share, what),
                scale=shown.shape[1] / seen.width,
            )  # fmt: skip
            faces = [self._with_strip(face, found) for face, found in zip(faces, strip, strict=True)]
        say(1.0, "done")
        return self._conclude(upload, judged, faces, started, picture=_reduced(shown))

    def video(self, path: Path, *, name: str = "", progress: Progress | None = None) -> Analysis:
        """Analyse a video: every person's score over time.

        Raises:
            Refused: it is too much, or no video.
            crossfake.datasets.decode.Unreadable: it is broken.
        """
        try:
            return self._video(path, name, progress or _silent)
        finally:
            give_back()

    def _video(self, path: Path, name: str, say: Progress) -> Analysis:
        started = time.monotonic()
        say(0.0, "reading the file")
        upload = self._accepted(path, "video", name)

        def cut(cropper: Cropper) -> Media:
            return follow(
                upload, cropper, self.limits, self._finding, lambda share, what: say(0.8 * share, what)
            )

        judged = self._judged(cut, say, 0.8, 0.9)
        faces = self._faces(judged)
        if faces:
            say(0.9, "explaining")
            faces = self._explained(faces, judged)
        say(1.0, "done")
        return self._conclude(upload, judged, faces, started, duration=upload.seconds or None)

    def _accepted(self, path: Path, kind: str, name: str) -> Upload:
        upload = accept(path, self.limits, name)
        if upload.kind != kind:
            what = "picture" if kind == "image" else kind
            article = {"image": "a picture", "video": "a video", "archive": "an archive"}[upload.kind]
            raise Refused("not-an-image", f"this is {article}, not a {what}", f"send a {what}", 415)
        return upload

    def _cut(self, content: bytes, cropper: Cropper) -> Media:
        source = Input(_NAME)
        with self._finding:
            try:
                return open_picture(source, content, cropper)
            except Skip as reason:
                return Media(source, problem=str(reason))

    def _judged(
        self, cut: Callable[[Cropper], Media], say: Progress, first: float, last: float
    ) -> dict[str, Judged]:
        """What each detector finds, by name; those that cut alike share the crops."""
        medias: dict[Cropper, Media] = {}
        judged: dict[str, Judged] = {}
        for number, seat in enumerate(self._seats):
            if seat.cropper not in medias:
                medias[seat.cropper] = limited(cut(seat.cropper), self.limits.faces)
            say(first + (last - first) * number / len(self._seats), f"asking {seat.name}")
            judged[seat.name] = judge(seat, medias[seat.cropper])
        return judged

    def _lead(self, judged: Mapping[str, Judged]) -> Seat:
        """The first detector that judged anything, else the first."""
        return next((seat for seat in self._seats if judged[seat.name].prediction.judged), self._seats[0])

    def _faces(self, judged: dict[str, Judged]) -> list[FaceAnalysis]:
        lead = judged[self._lead(judged).name]
        return [self._face(number, face, lead, judged) for number, face in enumerate(lead.prediction.faces)]

    def _face(self, number: int, face: FaceVerdict, lead: Judged, judged: dict[str, Judged]) -> FaceAnalysis:
        opinions: dict[str, Opinion] = {}
        for seat in self._seats:
            own = judged[seat.name]
            same = face if own is lead else counterpart(face, own.prediction)
            if same is not None:
                opinions[seat.name] = as_opinion(same)
        made = side_by_side(opinions, self._seats)
        notes = tuple(
            f"{seat.name} could not judge this face." for seat in self._seats if seat.name not in opinions
        )
        look = lead.media.looks[_best(lead, face)]
        frames = tuple(over_time(lead, face, judged, self._seats)) if face.frames else ()
        codes = {code for each in made.values() for code in each.reasons}
        warnings = tuple(wording.warning(code) for code in wording.WARNINGS if code in codes)
        return FaceAnalysis(
            face.person if face.person is not None else number, look.box, made, fitted(look.image, SHOWN), warnings,
            frames=frames, notes=notes,
        )  # fmt: skip

    def _explained(self, faces: Sequence[FaceAnalysis], judged: Mapping[str, Judged]) -> list[FaceAnalysis]:
        seat = self._lead(judged)
        lead = judged[seat.name]
        rows = [_best(lead, face) for face in lead.prediction.faces]
        crops = [lead.media.looks[row].image for row in rows]
        found = self._evidence[seat.name].of(crops, lead.features[rows])
        return [
            dataclasses.replace(face, **{**part, "notes": face.notes + part["notes"]})
            for face, part in zip(faces, found, strict=True)
        ]

    def _with_strip(self, face: FaceAnalysis, strip: tuple[StabilityPoint, ...]) -> FaceAnalysis:
        asked = [seat.detector.threshold for seat in self._seats if seat.name in face.per_detector]
        more = (wording.warning("unstable"),) if is_unstable(strip, float(np.mean(asked))) else ()
        return dataclasses.replace(face, stability=strip, warnings=face.warnings + more)

    def _conclude(
        self,
        upload: Upload,
        judged: Mapping[str, Judged],
        faces: Sequence[FaceAnalysis],
        started: float,
        **more: Any,
    ) -> Analysis:
        lead = judged[self._lead(judged).name]
        prediction = lead.prediction
        verdict = max((face.verdict for face in faces), key=VERDICTS.index, default=NOT_JUDGED)
        missed = tuple(MissedFace(each.reason, each.box, each.frames) for each in prediction.skipped)
        codes = {code for seat in self._seats for code in seat.codes if code != "other-crop"}
        codes |= {"first-frame"} if upload.animated and upload.kind == "image" else set()
        codes |= {"missed-faces"} if faces and any(each.box for each in missed) else set()
        codes |= {"no-face"} if not faces and prediction.problem == "no face" else set()
        width, height = prediction.width, prediction.height
        said = read_metadata(upload.path)
        words = wording.conclusion(upload.kind, faces, verdict, prediction.problem)
        return Analysis(
            name=upload.name_for_display,
            sha256=upload.sha256,
            bytes=upload.bytes,
            kind=upload.kind,
            width=width or upload.width,
            height=height or upload.height,
            seconds=time.monotonic() - started,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            detectors=tuple(self._facts),
            faces=tuple(faces),
            missed=missed,
            verdict=verdict,
            words=f"{claim_words(said)} {words}".strip(),  # a generator's own mark outranks the network
            warnings=tuple(wording.warning(code) for code in wording.WARNINGS if code in codes),
            metadata=said,
            **more,
        )


def _best(lead: Judged, face: FaceVerdict) -> int:
    """Which look shows a face: of a video the one with the highest probability."""
    numbers = looks_of(lead, face)
    if not face.frames:
        return numbers[0]
    return numbers[int(np.argmax([each.probability for each in face.frames]))]


def _reduced(picture: Pixels) -> Pixels:
    image = Image.fromarray(picture)
    image.thumbnail((_SHOWN, _SHOWN))
    return np.asarray(image)


def _silent(share: float, what: str) -> None:
    pass
