"""What the page does with a file, step by step, each part shown as soon as it is there."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.datasets.types import Box
from crossfake.datasets.video import count_frames, read_frames
from crossfake.detect.metadata.display import sections
from crossfake.detect.verdict import NO_ANSWER
from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.results import Analysis
from crossfake.serve.intake.accepting import Upload, accept, display_name, unpack
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.queue import JobQueue, Stopped, Tell
from crossfake.serve.web.view import (
    boxes,
    brief,
    curve,
    jpeg,
    problem,
    render,
    sentence,
    steadiness,
    strip,
    threshold,
    thresholds,
)
from crossfake.serve.web.visits import Case

_FRAME, _FULL = 960, 6000  # pixels of a video's frame on the page, and of a picture under the magnifier
_AROUND = 0.75  # of a drawn box's sides that are kept around it
_EVERY = 1.5  # seconds between two tables of a batch
_ORDER = {"fake": 0, "uncertain": 1, NO_ANSWER: 2, "real": 3}
_SIDES = ("first", "second")


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

    def run(self, case: Case, work: Callable[[Tell], None], more: bool = False) -> None:
        """Work on a case in its turn; what goes wrong is said there.

        Args:
            more: it goes on with what was let in already.

        Raises:
            TryLater: too many wait.
        """

        def guarded(tell: Tell) -> None:
            try:
                work(tell)
            except Stopped:
                case.end(render("status.html", share=None, words="Stopped"))
            except Exception as error:  # whatever goes wrong is told on the page
                case.end(problem(error))

        case.job = self.queue.start(guarded, case.stop, more)

    # ---- one picture or video

    def analyse(self, case: Case, received: Received, box: Box | None = None) -> None:
        """The verdict first; then, in its turn again, where the detector looked and how steady it is.

        Args:
            box: x, y, width and height in shares of a picture; what lies around it is judged alone.
        """

        def first(tell: Tell) -> None:
            upload = accept(received.path, self.limits, received.name)
            if box is not None and upload.kind == "image":
                cut = _cut(upload.path, box, case.folder / "part.png")
                upload = accept(cut, self.limits, f"part of {received.name}")
            if upload.kind == "archive":
                raise Refused("not-an-image", "this is an archive", "use the tab Batch for it")
            if upload.kind == "video":
                self._finish(case, upload, self.analyser.video(upload, progress=tell))
                return
            case.downloads["picture.jpg"] = lambda: _full(upload.path, case.folder / "picture.jpg")
            turns = [tell]  # what tells of progress, of each turn
            stages = self.analyser.stages(upload, progress=lambda share, words: turns[-1](share, words))

            def following(tell: Tell) -> None:
                turns.append(tell)
                last = quick
                for last in stages:
                    case.show(result=show_result(last, case), why=render("why.html", analysis=last))
                self._finish(case, upload, last)

            quick = next(stages)
            case.show(result=show_result(quick, case), metadata=show_metadata(quick))
            if quick.faces:
                self.run(case, following, more=True)
            else:
                self._finish(case, upload, quick)

        case.files = [received]
        self.run(case, first)

    def _judge(self, upload: Upload, tell: Tell) -> Analysis:
        """The verdict alone."""
        if upload.kind == "video":
            return self.analyser.video(upload, progress=tell)
        return self.analyser.image(upload, explain=False, stability=False, progress=tell)

    def _finish(self, case: Case, upload: Upload, analysis: Analysis) -> None:
        shown = {"result": show_result(analysis, case), "metadata": show_metadata(analysis)}
        if analysis.kind == "video" and analysis.faces:
            shown["time"] = self._time(case, upload.path, analysis)
        if analysis.faces:
            shown["why"] = render("why.html", analysis=analysis)
            shown["steady"] = show_steady(analysis)
        shown["traces"] = render("traces.html", analysis=analysis)
        self._offer_files(case, analysis)
        case.show(**shown, files=render("files.html", analysis=analysis, case=case))
        case.end()

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

    def _time(self, case: Case, path: Path, analysis: Analysis) -> str:
        """The chart of every person, and a link for every frame that was looked at."""
        total = count_frames(path)

        def frame(number: int) -> Path:
            target = case.folder / f"frame-{number}.jpg"
            if not target.exists():
                try:
                    found = next(read_frames(path, 1, name="the video", total=2 * number + 1)).pixels
                except (Unreadable, StopIteration) as error:
                    raise UserError("this frame cannot be decoded again") from error
                _save(found, target, _FRAME)
            return target

        charts = []
        for face in analysis.faces:
            for each in face.frames:
                case.downloads[f"frame-{each.frame}.jpg"] = lambda number=each.frame: frame(number)  # type: ignore[misc]
            links = [f"{case.path}/frame-{each.frame}.jpg" for each in face.frames]
            if any(each.probability is not None for each in face.frames):
                charts.append(curve(face, links, threshold(analysis, face), analysis.duration, total))
        return render("video.html", analysis=analysis, charts=charts) if charts else ""

    # ---- two pictures

    def compare(self, case: Case, received: Sequence[Received]) -> None:
        """Each beside its prediction, and one over the other."""

        def work(tell: Tell) -> None:
            found: list[Analysis] = []
            for number, each in enumerate(received):
                upload = accept(each.path, self.limits, each.name)
                if upload.kind != "image":
                    raise Refused("not-an-image", "this is not a picture", "choose a picture to compare")
                its_part = part(tell, number / len(received), (number + 1) / len(received))
                found.append(self._judge(upload, its_part))
                case.show(result=show_pair(found))
            case.end()

        self.run(case, work)

    # ---- many

    def batch(self, case: Case, received: list[Received]) -> None:
        """A table that grows: one file after the other, each in its turn, so that others come in between."""
        rows: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        files: list[Upload] = []
        shown = time.monotonic()

        def table(over: bool = False) -> str:
            return render(
                "table.html", rows=rows, total=len(files), case=case, counts=_counts(rows), over=over
            )

        def unpacked(tell: Tell) -> None:
            files.extend(self._files(case, received))
            case.files = [Received(each.path, each.name_for_display) for each in files]
            following()

        def following() -> None:
            nonlocal shown
            if len(rows) < len(files):
                if rows and time.monotonic() - shown > _EVERY:
                    shown = time.monotonic()
                    case.show(result=table())
                self.run(case, one, more=True)
                return
            case.downloads |= {
                "batch.csv": lambda: _write_csv(case.folder / "batch.csv", [_summary(row) for row in rows]),
                "batch.json": lambda: _write_json(case.folder / "batch.json", found),
            }
            case.show(result=table(over=True))
            case.end()

        def one(tell: Tell) -> None:
            upload, number = files[len(rows)], len(rows)
            row, content = _blank(upload), {"name": upload.name_for_display, "error": upload.problem}
            tell(number / len(files), f"{number + 1} of {len(files)}")
            if not upload.problem:
                try:
                    its_part = part(tell, number / len(files), (number + 1) / len(files))
                    analysis = self._judge(upload, its_part)
                    row, content = _row(upload, analysis), analysis.to_json()
                except (UserError, Unreadable) as error:
                    row["remarks"] = sentence(getattr(error, "message", "this file is damaged"))
                    content["error"] = row["remarks"]
            rows.append(row)
            found.append(content)
            following()

        self.run(case, unpacked)

    def _files(self, case: Case, received: list[Received]) -> list[Upload]:
        """All files, those of archives among them; one that is not taken has a ``problem``.

        Raises:
            Refused: an archive is not taken, or all together are too much, before the next one is unpacked.
        """
        files: list[Upload] = []
        for each in received:
            try:
                upload = accept(each.path, self.limits, each.name)
                if upload.kind == "archive":
                    inside = case.folder / f"archive-{len(files)}"
                    inside.mkdir()
                    files += unpack(upload, inside, self.limits)
                    upload.path.unlink()
                else:
                    files.append(upload)
            except Refused as refused:
                if len(received) == 1:
                    raise
                files.append(
                    Upload(each.path, "unknown", "", 0, display_name(each.name), problem=str(refused))
                )
            if len(files) > self.limits.files:
                words = f"send {self.limits.files} at most"
                raise Refused("too-many-files", f"these are {len(files)} files", words)
            if sum(file.bytes for file in files) > self.limits.bytes_archive:
                raise Refused("too-large", "these are too many bytes", "send fewer at once", 413)
        return files


# ---- what is shown


def show_result(analysis: Analysis, case: Case | None = None) -> str:
    return render(
        "result.html",
        analysis=analysis,
        case=case,
        boxes=boxes(analysis),
        thresholds=thresholds(analysis),
        threshold=threshold,
    )


def show_metadata(analysis: Analysis) -> str:
    return render("said.html", panel=sections(analysis.metadata)) if analysis.metadata else ""


def show_steady(analysis: Analysis) -> str:
    rows = []
    for face in analysis.faces:
        if face.stability:
            limit, calibrated = threshold(analysis, face), face.opinion.low is not None
            words = steadiness(face.stability, calibrated)
            rows.append((face, strip(face.stability, limit), words))
    return render("steady.html", analysis=analysis, rows=rows) if rows else ""


def show_pair(found: Sequence[Analysis]) -> str:
    """What is there of two pictures."""
    sides = [
        {"title": f"The {side} picture", "analysis": each, "boxes": boxes(each)}
        for side, each in zip(_SIDES, found, strict=False)
    ]
    shapes = [each.width / each.height for each in found]
    return render("pair.html", sides=sides, same=max(shapes) / min(shapes) < 1.01)


def part(tell: Tell, first: float, last: float) -> Tell:
    """Progress of a part of the work: its 0 to 1 is ``first`` to ``last`` of the whole."""
    return lambda share, words: tell(first + share * (last - first), words)


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


def _save(pixels: Any, target: Path, longest: int) -> None:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    image.save(target, quality=90)


def _write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table that spreadsheets open: a cell that would be taken for a formula gets an apostrophe before it."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["file"])
        writer.writeheader()
        for row in rows:
            made = {k: f"'{v}" if str(v)[:1] in ("=", "+", "@", "\t", "\r") else v for k, v in row.items()}
            writer.writerow(made)
    return path


# ---- rows of a batch


def _blank(upload: Upload) -> dict[str, Any]:
    return {
        "name": upload.name_for_display,
        "verdict": "not judged",
        "probability": None,
        "brief": "",
        "faces": 0,
        "remarks": sentence(upload.problem),
        "order": len(_ORDER),
        "thumb": "",
        "sha256": upload.sha256,
    }


def _row(upload: Upload, analysis: Analysis) -> dict[str, Any]:
    """A line of the table: the verdict of the file, and the highest probability of a face with that verdict."""
    found = [face.opinion.probability for face in analysis.faces if face.verdict == analysis.verdict]
    judged = [each for each in found if each is not None]
    remarks = {each.words for each in analysis.warnings}
    remarks |= {each.words for face in analysis.faces for each in face.warnings}
    pictures = [analysis.picture, *(face.crop for face in analysis.faces)]
    picture = next((each for each in pictures if each is not None), None)
    return {
        **_blank(upload),
        "verdict": analysis.verdict,
        "probability": max(judged, default=None),
        "brief": brief(max(judged), analysis.faces[0].opinion.low is not None) if judged else "",
        "faces": len(analysis.faces),
        "remarks": " ".join(sorted(remarks)),
        "order": _ORDER.get(analysis.verdict, len(_ORDER)),
        "thumb": "" if picture is None else jpeg(picture, 96, 75),
    }


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("name", "sha256", "verdict", "probability", "faces", "remarks")}


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    verdicts = [row["verdict"] for row in rows]
    counts = {verdict: verdicts.count(verdict) for verdict in _ORDER}
    return {**counts, "other": len(rows) - sum(counts.values())}
