"""What the page does with a file, step by step, each part shown as soon as it is there."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.datasets.types import Box, Pixels
from crossfake.datasets.video import read_frames
from crossfake.detect.metadata.display import sections
from crossfake.detect.verdict import NOT_JUDGED
from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.results import Analysis
from crossfake.serve.engine.wording import sentence
from crossfake.serve.intake.accepting import Received, Upload, accept, accept_all
from crossfake.serve.intake.headers import Refused, refusal
from crossfake.serve.intake.limits import Limits
from crossfake.serve.showing import jpeg, render
from crossfake.serve.web.queue import JobQueue, Steps, Stopped, Tell
from crossfake.serve.web.security import log_fault
from crossfake.serve.web.visits import Case

_FRAME, _FULL = 960, 6000  # pixels of a video's frame on the page, and of a picture under the magnifier
_AROUND = 0.75  # of a drawn box's sides that are kept around it
_EVERY = 1.5  # seconds between two tables of a batch


class Worker:
    """Work on the cases of visitors.

    Args:
        analyser: the engine.
        limits: of uploads.
        queue: where long work waits for its turn.
        key: Ed25519 key that reports are signed with.
    """

    def __init__(self, analyser: Analyser, limits: Limits, queue: JobQueue, key: Path | None = None) -> None:
        self.analyser, self.limits, self.queue, self.key = analyser, limits, queue, key

    def run(self, case: Case, work: Callable[[Tell], Steps[None]]) -> None:
        """Work on a case in its turn; what goes wrong is said there.

        Raises:
            TryLater: too many wait.
        """

        def over(future: Future[None]) -> None:
            error = future.exception()
            if isinstance(error, Stopped):
                case.end(render("status.html", share=None, words="Stopped"))
            else:
                case.end(problem(error) if isinstance(error, Exception) else "")

        case.job = self.queue.start(work, case.stop)
        case.job.future.add_done_callback(over)

    def analyse(self, case: Case, received: Received, box: Box | None = None) -> None:
        """One picture or video: the verdict first; then, in its turn again, what explains it.

        Args:
            box: x, y, width and height in shares of a picture; what lies around it is judged alone.
        """

        def work(tell: Tell) -> Steps[None]:
            upload = accept(received.path, self.limits, received.name)
            if upload.kind == "image":
                if box is not None:
                    cut = _cut(upload.path, box, case.folder / "part.png")
                    upload = accept(cut, self.limits, f"part of {received.name}")
                case.downloads["picture.jpg"] = lambda: _full(upload.path, case.folder / "picture.jpg")
            for number, found in enumerate(self.analyser.stages(upload, progress=tell)):
                case.show(result=render("result.html", analysis=found, case=case))
                if not number and found.metadata:
                    case.show(metadata=render("said.html", panel=sections(found.metadata)))
                if number or found.kind == "video":
                    case.show(why=render("why.html", analysis=found) if found.faces else "")
                yield
            if found.kind == "video" and found.faces:
                self._offer_frames(case, upload.path, found)
                case.show(time=render("video.html", analysis=found, case=case))
            if any(face.stability for face in found.faces):
                case.show(steady=render("steady.html", analysis=found))
            case.show(traces=render("traces.html", analysis=found))
            self._offer_files(case, found)
            case.show(files=render("files.html", analysis=found, case=case))

        case.files = [received]
        self.run(case, work)

    def _offer_files(self, case: Case, analysis: Analysis) -> None:
        """The report and the figures, made when their links are followed."""

        def report(kind: Any) -> Path:
            from crossfake.serve.reports.signing import open_key
            from crossfake.serve.reports.writing import render as report_bytes

            target = case.folder / f"report.{kind}"  # makes no folder: the visitor's may be gone by now
            if not target.exists():
                write_bytes(target, report_bytes(analysis, kind, open_key(self.key)))
            return target

        def seal(kind: str) -> Path:
            from crossfake.serve.reports.signing import detached_jws, open_key

            target = case.folder / f"report.{kind}.jws"
            write_bytes(target, detached_jws(report(kind).read_bytes(), open_key(self.key)).encode())
            return target

        case.downloads |= {
            "report.html": lambda: report("html"),
            "report.pdf": lambda: report("pdf"),
            "report.html.jws": lambda: seal("html"),
            "report.pdf.jws": lambda: seal("pdf"),
            "analysis.json": lambda: _write_json(case.folder / "analysis.json", analysis.to_json()),
        }

    def _offer_frames(self, case: Case, path: Path, analysis: Analysis) -> None:
        """Every frame that was looked at, decoded again when its link is followed."""

        def frame(number: int) -> Path:
            target = case.folder / f"frame-{number}.jpg"
            if not target.exists():
                try:
                    found = next(read_frames(path, 1, name="the video", total=2 * number + 1)).pixels
                except (Unreadable, StopIteration) as error:
                    raise UserError("this frame cannot be decoded again") from error
                _save(found, target, _FRAME)
            return target

        for number in {each.frame for face in analysis.faces for each in face.frames}:
            case.downloads[f"frame-{number}.jpg"] = partial(frame, number)

    def compare(self, case: Case, received: Sequence[Received]) -> None:
        """Two pictures: each beside its prediction, and one over the other."""

        def work(tell: Tell) -> Steps[None]:
            uploads = [accept(each.path, self.limits, each.name) for each in received]
            if any(upload.kind != "image" for upload in uploads):
                raise Refused("not-an-image", "this is not a picture", "choose pictures to compare")
            found: list[Analysis] = []
            for _, analysis, refused in self.analyser.analyse_each(
                uploads, tell, explain=False, stability=False
            ):
                if refused:
                    raise refused
                found += [analysis] if analysis else []
                case.show(result=show_pair(found))
                yield

        self.run(case, work)

    def batch(self, case: Case, received: Sequence[Received]) -> None:
        """Many files: a table that grows, one after the other, each in its turn."""
        rows: list[BatchRow] = []
        found: list[dict[str, Any]] = []

        def work(tell: Tell) -> Steps[None]:
            files = accept_all(received, case.folder, self.limits)
            case.files = [Received(each.path, each.name_for_display) for each in files]
            shown = time.monotonic()
            for upload, analysis, refused in self.analyser.analyse_each(
                files, tell, explain=False, stability=False
            ):
                rows.append(_row(upload, analysis, refused))
                error = {"name": upload.name_for_display, "error": rows[-1].remarks}
                found.append(analysis.to_json() if analysis else error)
                if time.monotonic() - shown > _EVERY:
                    shown = time.monotonic()
                    case.show(result=render("table.html", rows=rows, total=len(files), case=case, over=False))
                yield
            case.downloads |= {
                "batch.csv": lambda: _write_csv(case.folder / "batch.csv", rows),
                "batch.json": lambda: _write_json(case.folder / "batch.json", found),
            }
            case.show(result=render("table.html", rows=rows, total=len(files), case=case, over=True))

        self.run(case, work)


@dataclass(frozen=True)
class BatchRow:
    """A file of a batch: the verdict, the highest probability of a face with it, and a picture to show."""

    name: str
    sha256: str
    verdict: str = NOT_JUDGED
    probability: float | None = None
    faces: int = 0
    remarks: str = ""
    calibrated: bool = True
    thumb: str = ""


def _row(upload: Upload, analysis: Analysis | None, refused: Refused | None) -> BatchRow:
    if analysis is None:
        return BatchRow(
            upload.name_for_display, upload.sha256, remarks=sentence(refused.message if refused else "")
        )
    own = [face.opinion for face in analysis.faces if face.verdict == analysis.verdict]
    remarks = {each.words for each in (*analysis.warnings, *(w for f in analysis.faces for w in f.warnings))}
    pictures = [analysis.picture, *(face.crop for face in analysis.faces)]
    return BatchRow(
        upload.name_for_display,
        upload.sha256,
        analysis.verdict,
        max((each.probability for each in own if each.probability is not None), default=None),
        len(analysis.faces),
        " ".join(sorted(remarks)),
        all(each.low is not None for each in own),
        next((jpeg(each, 96, 75) for each in pictures if each is not None), ""),
    )


def problem(error: Exception) -> str:
    """What went wrong, for people. Of a fault of our own no detail: it may hold names of files."""
    if isinstance(error, UserError | Unreadable):
        said: UserError = refusal(error)
    else:
        log_fault(error)
        said = UserError("something went wrong here", "try again, or another file")
    return render("problem.html", what=sentence(said.message), hint=sentence(said.hint or ""))


def show_pair(found: Sequence[Analysis]) -> str:
    """What is there of two pictures."""
    shapes = [each.width / each.height for each in found]
    return render("pair.html", found=found, same=max(shapes) / min(shapes) < 1.01)


# ---- files that are made


def _cut(path: Path, box: Box, target: Path) -> Path:
    """The part of a picture around a box; of its own pixels."""
    image = Image.fromarray(decode_image(path.read_bytes(), "the picture"))
    (x, y, w, h), (width, height) = box, image.size
    left, right = (round(width * min(1.0, max(0.0, at))) for at in (x - _AROUND * w, x + (1 + _AROUND) * w))
    top, bottom = (round(height * min(1.0, max(0.0, at))) for at in (y - _AROUND * h, y + (1 + _AROUND) * h))
    image.crop((left, top, right, bottom)).save(target)
    return target


def _full(path: Path, target: Path) -> Path:
    if not target.exists():
        _save(decode_image(path.read_bytes(), "the picture"), target, _FULL)
    return target


def _save(pixels: Pixels, target: Path, longest: int) -> None:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    image.save(target, quality=90)


def _write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _write_csv(path: Path, rows: Sequence[BatchRow]) -> Path:
    """A table that spreadsheets open: a cell that would be taken for a formula gets an apostrophe before it."""
    names = ("name", "sha256", "verdict", "probability", "faces", "remarks")
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(names)
        for row in rows:
            cells = [getattr(row, name) for name in names]
            table.writerow(
                [f"'{each}" if str(each)[:1] in ("=", "+", "@", "\t", "\r") else each for each in cells]
            )
    return path
