"""The engine behind the page and the API: a file in, per face what every detector says of it, and why."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossfake import __version__
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Copies, Unreadable
from crossfake.datasets.geometry import Skip
from crossfake.datasets.types import Pixels
from crossfake.detect.metadata.display import claim_words
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.metadata.results import Metadata
from crossfake.detect.prediction.media import Input, Media, open_picture
from crossfake.detect.verdict import NO_ANSWER, NOT_JUDGED, VERDICTS, Verdict
from crossfake.detect.wording import Statement, state
from crossfake.errors import UserError
from crossfake.images import fitted
from crossfake.memory import give_back
from crossfake.serve.engine import wording
from crossfake.serve.engine.agreement import answer, counted
from crossfake.serve.engine.evidence import SHOWN, Evidence, key_frames, traces
from crossfake.serve.engine.facts import facts
from crossfake.serve.engine.judging import (
    Found,
    LoadedDetector,
    counterpart,
    judge,
    limited,
    load_detectors,
    looks_of,
)
from crossfake.serve.engine.results import Analysis, DetectorFacts, FaceAnalysis, StabilityPoint
from crossfake.serve.engine.stability import is_unstable, largest_crop, least_side, strips
from crossfake.serve.engine.tracking import follow, over_time
from crossfake.serve.intake.accepting import Upload, accept
from crossfake.serve.intake.headers import Refused, refusal
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
        alike: show the training pictures that are most alike.

    Attributes:
        detectors: the bundles' run names. Several are shown apart: an ensemble is one of 'detect ensemble', calibrated.

    Raises:
        UserError: no bundles, or one cannot be loaded.

    Example:
        >>> found = Analyser([Path("runs/d")]).analyse(Path("photo.jpg"))  # doctest: +SKIP
        >>> print(found.words)  # doctest: +SKIP
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        limits: Limits = DEFAULTS,
        device: str = "auto",
        face_model: Path | None = None,
        alike: bool = False,
    ) -> None:
        self.limits = limits
        self._loaded = load_detectors(bundles, device, face_model)
        self.detectors = tuple(each.name for each in self._loaded)
        self._evidence = {each.name: Evidence(each.detector, alike) for each in self._loaded}
        self._finding = threading.Lock()  # OpenCV's face detector serves one thread at a time
        self._facts = [facts(each.name, each.detector, each.cropper.finds_faces) for each in self._loaded]
        for each in self._loaded:  # the first pass is slow, and no visitor should wait for it
            each.detector.outputs(np.zeros((1, each.detector.size, each.detector.size, 3), np.uint8))

    def about(self) -> list[DetectorFacts]:
        """What is known of each detector: training, tests, false alarms, limits."""
        return list(self._facts)

    def prepare(self) -> None:
        """Make what explanations need now, instead of when the first one is asked for: some seconds."""
        first = self._loaded[0]
        blank = np.zeros((1, first.detector.size, first.detector.size, 3), np.uint8)
        self._evidence[first.name].warm_up(list(blank), first.detector.outputs(blank)[1])

    def analyse(self, path: Path | Upload, **options: Any) -> Analysis:
        """Analyse a picture or a video: the last of its :meth:`stages`, which says what the options are."""
        *_, last = self.stages(path, **options)
        return last

    def analyse_each(
        self, uploads: Sequence[Upload], progress: Progress, **options: Any
    ) -> Iterator[tuple[Upload, Analysis | None, Refused | None]]:
        """One file after the other: its analysis, or why it has none, which stops nothing."""
        for number, upload in enumerate(uploads):

            def part(share: float, what: str, done: int = number) -> None:
                progress((done + share) / len(uploads), f"{done + 1} of {len(uploads)}: {what}")

            try:
                part(0.0, "")
                if upload.refused:
                    raise upload.refused
                yield upload, self.analyse(upload, progress=part, **options), None
            except (UserError, Unreadable) as error:
                yield upload, None, refusal(error)

    def stages(
        self,
        path: Path | Upload,
        *,
        name: str = "",
        explain: bool = True,
        stability: bool = True,
        prior: float | None = None,
        progress: Progress = lambda share, what: None,
    ) -> Iterator[Analysis]:
        """An analysis as it grows: the verdict, then with its reasons, then with its stability, as far as asked for.

        The file is hashed, decoded and searched for faces once for all of them. A video has one stage, with every
        person's score over time, and no stability.

        Args:
            path: the file, whose name is not looked at, or an upload that was accepted already.
            name: what to show.
            explain: heat map, spectrum, nearest training pictures, maps of error levels and noise.
            stability: the score under recompression and resizing.
            prior: share of fakes among such files; each detector's own when None.
            progress: told how far it is; what it raises ends the analysis.

        Raises:
            Refused: it is too much, or neither a picture nor a video.
            crossfake.datasets.decode.Unreadable: it is broken.
        """
        try:
            progress(0.0, "reading the file")
            upload = path if isinstance(path, Upload) else accept(path, self.limits, name)
            if upload.kind == "image":
                yield from self._image(upload, explain, stability, prior, progress)
            elif upload.kind == "video":
                yield self._video(upload, explain, prior, progress)
            else:
                raise Refused("wrong-kind", "archives are not taken here", "send it as a batch", 415)
            progress(1.0, "done")
        finally:
            give_back()

    def _image(
        self, upload: Upload, explain: bool, stability: bool, prior: float | None, say: Progress
    ) -> Iterator[Analysis]:
        started = time.monotonic()
        copies = Copies(upload.path.read_bytes(), _NAME)
        metadata = read_metadata(copies.content)
        say(0.05, "looking for faces")
        judged = self._judged(lambda cropper: self._cut(copies, cropper), prior, say, 0.1, 0.3)
        faces = self._faces(judged)
        seen = judged[self._first(judged).name].prediction
        # of no answer none could hold
        stability = stability and any(face.verdict != NO_ANSWER for face in faces)
        boxes = [face.box for face in faces] if stability else []
        least = least_side((seen.width, seen.height), boxes, largest_crop(self._loaded)) if boxes else 0
        shown = copies.largest(max(_SHOWN, least)).pixels
        finish = partial(self._conclude, upload, judged, started, metadata, prior, picture=_reduced(shown))
        yield finish(faces)
        if explain:
            say(0.35, "explaining")
            faces = self._explained(faces, judged) if faces else []
            finish = partial(finish, traces=traces(upload, copies))
            yield finish(faces)
        if stability:
            strip = strips(
                shown,
                faces,
                self._loaded,
                self._cut,
                lambda share, what: say(0.5 + 0.45 * share, what),
                scale=shown.shape[1] / seen.width,
                prior=prior,
            )
            yield finish([self._with_strip(face, found) for face, found in zip(faces, strip, strict=True)])

    def _video(self, upload: Upload, explain: bool, prior: float | None, say: Progress) -> Analysis:
        started = time.monotonic()

        def cut(cropper: Cropper) -> Media:
            return follow(
                upload, cropper, self.limits, self._finding, lambda share, what: say(0.8 * share, what)
            )

        judged = self._judged(cut, prior, say, 0.8, 0.9)
        faces = self._faces(judged)
        if explain and faces:
            say(0.9, "explaining")
            faces = self._explained(faces, judged)
        metadata = read_metadata(upload.path)
        return self._conclude(
            upload,
            judged,
            started,
            metadata,
            prior,
            faces,
            duration=upload.seconds or None,
            key_frames=key_frames(upload),
        )

    def _cut(self, copies: Copies, cropper: Cropper) -> Media:
        source = Input(_NAME)
        with self._finding:
            try:
                return open_picture(source, copies, cropper)
            except Skip as reason:
                return Media(source, problem=str(reason))

    def _judged(
        self, cut: Callable[[Cropper], Media], prior: float | None, say: Progress, first: float, last: float
    ) -> dict[str, Found]:
        """What each detector finds, by name; those that cut alike share the crops."""
        medias: dict[Cropper, Media] = {}
        judged: dict[str, Found] = {}
        for number, each in enumerate(self._loaded):
            if each.cropper not in medias:
                medias[each.cropper] = limited(cut(each.cropper), self.limits.faces)
            say(first + (last - first) * number / len(self._loaded), f"asking {each.name}")
            judged[each.name] = judge(each, medias[each.cropper], prior)
        return judged

    def _first(self, judged: Mapping[str, Found]) -> LoadedDetector:
        """The first detector that judged anything, else the first."""
        return next((each for each in self._loaded if judged[each.name].prediction.judged), self._loaded[0])

    def _faces(self, judged: dict[str, Found]) -> list[FaceAnalysis]:
        lead = judged[self._first(judged).name]
        return [self._face(number, face, lead, judged) for number, face in enumerate(lead.prediction.faces)]

    def _face(self, number: int, face: Verdict, lead: Found, judged: dict[str, Found]) -> FaceAnalysis:
        verdicts: dict[str, Verdict] = {}
        for name, found in judged.items():
            same = face if found is lead else counterpart(face, found.prediction)
            if same is not None:
                verdicts[name] = dataclasses.replace(same, frames=())  # they are the face's, below
        said = answer(list(verdicts.values()))
        grounds = next((each.basis for each in self._facts if said == verdicts.get(each.name)), "")
        notes = tuple(f"{name} could not judge this face." for name in judged if name not in verdicts)
        look = lead.media.looks[_best(lead, face)]
        frames = tuple(over_time(lead, face, judged)) if face.frames else ()
        codes = {code for each in (said, *verdicts.values()) for code in each.reasons}
        warnings = tuple(wording.warning(code) for code in wording.WARNINGS if code in codes)
        return FaceAnalysis(
            face.person if face.person is not None else number,
            look.box,
            verdicts,
            fitted(look.image, SHOWN),
            warnings,
            frames=frames,
            notes=notes,
            says=state(said, grounds),
            count=counted(verdicts),
        )

    def _explained(self, faces: Sequence[FaceAnalysis], judged: Mapping[str, Found]) -> list[FaceAnalysis]:
        name = self._first(judged).name
        lead = judged[name]
        rows = [_best(lead, face) for face in lead.prediction.faces]
        crops = [lead.media.looks[row].image for row in rows]
        found = self._evidence[name].of(crops, lead.features[rows])
        return [
            dataclasses.replace(face, **{**part, "notes": face.notes + part["notes"]})
            for face, part in zip(faces, found, strict=True)
        ]

    def _with_strip(self, face: FaceAnalysis, strip: tuple[StabilityPoint, ...]) -> FaceAnalysis:
        more = (wording.warning("unstable"),) if is_unstable(strip) else ()
        return dataclasses.replace(face, stability=strip, warnings=face.warnings + more)

    def _conclude(
        self,
        upload: Upload,
        judged: Mapping[str, Found],
        started: float,
        metadata: Metadata,
        prior: float | None,
        faces: Sequence[FaceAnalysis],
        **more: Any,
    ) -> Analysis:
        lead = judged[self._first(judged).name]
        prediction = lead.prediction
        verdict = max((face.verdict for face in faces), key=VERDICTS.index, default=NOT_JUDGED)
        codes = {code for each in self._loaded for code in each.codes if code != "other-crop"}
        codes |= {"first-frame"} if upload.animated and upload.kind == "image" else set()
        codes |= {"missed-faces"} if faces and any(each.box for each in prediction.skipped) else set()
        codes |= {"no-face"} if not faces and prediction.problem == "no face" else set()
        width, height = prediction.width, prediction.height
        if upload.kind == "image":  # people count from left to right
            faces = sorted(faces, key=lambda face: face.box[0] if face.box else 0.0)
            faces = [dataclasses.replace(face, person=number) for number, face in enumerate(faces)]
        words = wording.conclusion(upload.kind, faces, prediction.problem)
        worst = max(faces, key=lambda face: face.opinion.rank, default=None)
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
            missed=prediction.skipped,
            verdict=verdict,
            words=f"{claim_words(metadata)} {words}".strip(),  # a generator's own mark outranks the network
            warnings=tuple(wording.warning(code) for code in wording.WARNINGS if code in codes),
            metadata=metadata,
            prior=prior,
            says=worst.says if worst else Statement("Not judged", next=words),
            **more,
        )


def _best(lead: Found, face: Verdict) -> int:
    """Which look shows a face: of a video the one with the highest probability."""
    numbers = looks_of(lead, face)
    if not face.frames:
        return numbers[0]
    return numbers[int(np.argmax([each.score for each in face.frames]))]


def _reduced(picture: Pixels) -> Pixels:
    image = Image.fromarray(picture)
    image.thumbnail((_SHOWN, _SHOWN))
    return np.asarray(image)
