"""The tab Analyse: one picture or video; the verdict first, then where the detector looked, then how steady it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from crossfake.datasets.decode import Unreadable
from crossfake.datasets.video import count_frames, read_frames
from crossfake.errors import UserError
from crossfake.serve.engine.results import Analysis
from crossfake.serve.intake.accepting import (
    Upload,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.context import (
    EVENT,
    UPLOAD,
    Context,
    area,
    merge_stability,
    part,
    problem,
    status,
    status_of,
)
from crossfake.serve.web.desk import Stopped, Tell
from crossfake.serve.web.sessions import Case
from crossfake.serve.web.view import boxes, curve, render, steadiness, strip, threshold, thresholds

KIND = "analyse"
_ID = "cf-analyse"
_FRAME = 960  # pixels of a video's frame on the page


class Tab:
    """The tab's parts, for other tabs to send a picture to.

    Attributes:
        outputs: all that :meth:`follow` changes.
    """

    def __init__(self, page: Context) -> None:
        self._page = page
        self._upload = gr.File(
            label="Drop a picture or a video here, paste it, or choose a file",
            elem_id=f"{_ID}-upload",
            elem_classes="cf-upload",
        )
        area(
            '<p class="cf-small">JPEG, PNG, WebP, HEIC, GIF, TIFF, or a video. '
            "It stays on this server and is deleted when you leave.</p>"
        )
        with gr.Row(elem_classes="cf-running"):
            self._progress = area(elem_id=f"{_ID}-status", elem_classes="cf-status")
            self._cancel = gr.Button(
                "Cancel", visible=False, size="sm", elem_classes="cf-cancel", min_width=90, scale=0
            )
        self._parts = [area(elem_id=f"{_ID}-{name}") for name in ("result", "why", "steady", "files")]
        self.outputs = [self._upload, self._progress, self._cancel, *self._parts]

        def run(given: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
            if given is not None:
                name = request.session_hash or ""
                yield from self.follow(name, lambda case: page.claim(name, given)[0])

        def stop(request: gr.Request) -> None:
            page.sessions.of(request.session_hash or "").cancel(KIND)

        self._upload.upload(run, self._upload, self.outputs, **UPLOAD)
        self._cancel.click(stop, None, None, **EVENT)

    def follow(self, name: str, make: Callable[[Case], Received]) -> Iterator[dict[Any, Any]]:
        """Analyse the file that ``make`` gives for a new case of the visitor ``name``, and show it step by step."""
        case = self._page.sessions.of(name).begin(KIND)
        blank: dict[Any, Any] = dict.fromkeys(self._parts, "")
        yield {
            self._upload: None,
            self._progress: status_of("Opening"),
            self._cancel: gr.update(visible=True),
            **blank,
        }
        done = {self._cancel: gr.update(visible=False)}
        try:
            for said, shown in analyse(self._page, case, make(case)):
                yield {self._progress: said, **dict(zip(self._parts, shown, strict=False))}
            yield {self._progress: "", **done}
        except Stopped:
            if self._page.sessions.current(name, KIND, case):
                yield {self._progress: status_of("Stopped"), **done}
        except Exception as error:  # said to the visitor, without what it may hold
            yield {self._progress: problem(error), **done}


def analyse(page: Context, case: Case, received: Received) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the status, and what is shown so far: result, reasons, stability, files.

    Raises:
        Stopped: the visitor cancelled.
        UserError: the file is not taken, or the server is busy.
    """
    upload = page.receive(case, received)
    if upload.kind == "archive":
        raise Refused("not-an-image", "this is an archive", "use the tab Batch for it")
    yield from (_video if upload.kind == "video" else _image)(page, case, upload)


def _image(page: Context, case: Case, upload: Upload) -> Iterator[tuple[str, tuple[str, ...]]]:
    def ask(first: float, last: float, **wanted: Any) -> Any:
        def work(tell: Tell) -> Analysis:
            return page.analyser.image(upload, progress=part(tell, first, last), **wanted)

        return page.desk.start(work, case.stop)

    job = ask(0.0, 0.3, explain=False, stability=False)
    for step in job:
        yield status(step), ()
    quick = job.result()
    result = show_result(quick)
    if not quick.faces:
        yield "", (result, "", "", show_files(page, case, quick))
        return
    yield status_of("Looking for reasons"), (result,)
    job = ask(0.3, 0.7, explain=True, stability=False)
    for step in job:
        yield status(step), ()
    explained = job.result()
    yield status_of("Testing how steady the answer is"), (show_result(explained), show_why(explained))
    job = ask(0.7, 1.0, explain=False, stability=True)
    for step in job:
        yield status(step), ()
    whole = merge_stability(explained, job.result())
    yield "", (show_result(whole), show_why(whole), show_steady(whole), show_files(page, case, whole))


def _video(page: Context, case: Case, upload: Upload) -> Iterator[tuple[str, tuple[str, ...]]]:
    def work(tell: Tell) -> Analysis:
        return page.analyser.video(upload, progress=tell)

    job = page.desk.start(work, case.stop)
    for step in job:
        yield status(step), ()
    analysis = job.result()
    time = show_time(page, case, upload.path, analysis)
    yield "", (show_result(analysis) + time, show_why(analysis), "", show_files(page, case, analysis))


def show_result(analysis: Analysis) -> str:
    return render(
        "result.html",
        analysis=analysis,
        boxes=boxes(analysis),
        thresholds=thresholds(analysis),
        threshold=threshold,
    )


def show_why(analysis: Analysis) -> str:
    return render("why.html", analysis=analysis, id=_ID)


def show_steady(analysis: Analysis) -> str:
    rows = []
    for face in analysis.faces:
        if face.stability:
            limit, calibrated = threshold(analysis, face), face.opinion.low is not None
            words = steadiness(face.stability, limit, calibrated)
            rows.append((face, strip(face.stability, limit), words))
    return render("steady.html", analysis=analysis, rows=rows, id=_ID) if rows else ""


def show_files(page: Context, case: Case, analysis: Analysis) -> str:
    return render("files.html", analysis=analysis, links=page.offer_files(case, analysis), id=_ID)


def show_time(page: Context, case: Case, path: Path, analysis: Analysis) -> str:
    """The chart of every person, and a link for every frame that was looked at."""
    total = count_frames(path)

    def frame(number: int) -> Path:
        target = case.folder / f"frame-{number}.jpg"
        if not target.exists():
            try:
                found = next(read_frames(path, 1, name="the video", total=2 * number + 1)).pixels
            except (Unreadable, StopIteration) as error:
                raise UserError("this frame cannot be decoded again") from error
            image = Image.fromarray(found)
            image.thumbnail((_FRAME, _FRAME))
            image.save(target, quality=85)
        return target

    charts = []
    for face in analysis.faces:
        for each in face.frames:
            name = f"frame-{each.frame}.jpg"
            case.downloads.setdefault(name, lambda number=each.frame: frame(number))  # type: ignore[misc]
        links = [case.link(f"frame-{each.frame}.jpg") for each in face.frames]
        if face.frames:
            charts.append(curve(face, links, threshold(analysis, face), analysis.duration, total))
    return render("video.html", analysis=analysis, charts=charts, id=_ID) if charts else ""
