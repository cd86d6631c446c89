"""The tab Batch: many pictures, or a zip archive of them, into one table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from crossfake.datasets.decode import Unreadable
from crossfake.errors import UserError
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.results import Analysis
from crossfake.serve.intake.accepting import (
    Upload,
    display_name,
    unpack,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.context import (
    EVENT,
    UPLOAD,
    Context,
    area,
    part,
    problem,
    status,
    status_of,
    write_csv,
    write_json,
)
from crossfake.serve.web.desk import Stopped, Tell
from crossfake.serve.web.sessions import Case
from crossfake.serve.web.view import brief, jpeg, render, sentence

_KIND = "batch"
_EVERY = 1.5  # seconds between two tables
_ORDER = {"fake": 0, "uncertain": 1, "real": 2}


def build(page: Context) -> None:
    """Lay the tab out."""
    upload = gr.File(
        label="Drop pictures, or a zip archive of them, or choose files",
        file_count="multiple",
        elem_id="cf-batch-upload",
        elem_classes="cf-upload",
    )
    folder = gr.UploadButton(
        "Choose a whole folder", file_count="directory", elem_id="cf-batch-folder", size="sm"
    )
    area(
        f'<p class="cf-small">At most {page.limits.files} files. Videos are judged by their frames; '
        "reasons and stability are left to the tab Analyse.</p>"
    )
    with gr.Row(elem_classes="cf-running"):
        progress = area(elem_id="cf-batch-status", elem_classes="cf-status")
        cancel = gr.Button("Cancel", visible=False, size="sm", elem_classes="cf-cancel", min_width=90)
    shown = area("", elem_id="cf-batch-result")

    def run(given: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
        if not given:
            return
        name = request.session_hash or ""
        case = page.sessions.of(name).begin(_KIND)
        yield {upload: None, progress: status_of("Opening"), cancel: gr.update(visible=True), shown: ""}
        try:
            for said, table in judge(page, case, page.claim(name, given)):
                yield {progress: said} if table is None else {progress: said, shown: table}
            yield {progress: "", cancel: gr.update(visible=False)}
        except Stopped:
            if page.sessions.current(name, _KIND, case):
                yield {progress: status_of("Stopped"), cancel: gr.update(visible=False)}
        except Exception as error:
            yield {progress: problem(error), cancel: gr.update(visible=False)}

    def stop(request: gr.Request) -> None:
        page.sessions.of(request.session_hash or "").cancel(_KIND)

    for source in (upload, folder):
        source.upload(run, source, [upload, progress, cancel, shown], **UPLOAD)
    cancel.click(stop, None, None, **EVENT)


def judge(page: Context, case: Case, received: list[Received]) -> Iterator[tuple[str, str | None]]:
    """Yield the status, and now and then the table so far; at the end with its downloads.

    Raises:
        Stopped: the visitor cancelled.
        Refused: an archive as a whole is not taken, or there are too many files.
    """
    files = _receive(page, case, received)
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    shown = time.monotonic()
    for number, upload in enumerate(files):
        row, content = _blank(upload), {"name": upload.name_for_display, "error": upload.problem}
        if not upload.problem:

            def work(tell: Tell, upload: Upload = upload, number: int = number) -> Analysis:
                tell_all = part(tell, number / len(files), (number + 1) / len(files))
                return _analyse(page.analyser, upload, tell_all)

            job = page.desk.start(work, case.stop)
            try:
                for step in job:
                    yield status(step), None
                analysis = job.result()
                row, content = _row(upload, analysis), analysis.to_json()
            except (UserError, Unreadable) as error:
                row["remarks"] = sentence(getattr(error, "message", "this file is damaged"))
                content["error"] = row["remarks"]
        rows.append(row)
        found.append(content)
        upload.path.unlink(missing_ok=True)
        if time.monotonic() - shown > _EVERY:
            shown = time.monotonic()
            yield f"{number + 1} of {len(files)}", _table(rows, len(files), {})
    case.downloads |= {
        "batch.csv": lambda: write_csv(case.folder / "batch.csv", [_plain(row) for row in rows]),
        "batch.json": lambda: write_json(case.folder / "batch.json", found),
    }
    yield "", _table(rows, len(files), {kind: case.link(f"batch.{kind}") for kind in ("csv", "json")})


def _receive(page: Context, case: Case, received: list[Received]) -> list[Upload]:
    """All files, those of archives among them; one that is not taken has a ``problem``."""
    files: list[Upload] = []
    for each in received:
        _check_total(page, max(len(received), len(files)), files)
        try:
            upload = page.receive(case, each)
            if upload.kind == "archive":
                inside = case.folder / f"archive-{len(files)}"
                inside.mkdir()
                files += unpack(upload, inside, page.limits)
                upload.path.unlink()
            else:
                files.append(upload)
        except Refused as refused:
            if len(received) == 1:
                raise
            files.append(Upload(each.path, "unknown", "", 0, display_name(each.name), problem=str(refused)))
    _check_total(page, len(files), files)
    return files


def _check_total(page: Context, count: int, files: list[Upload]) -> None:
    """Refuse too much, archive by archive, before the next one is unpacked."""
    limits = page.limits
    if count > limits.files:
        raise Refused("too-many-files", f"these are {count} files", f"send {limits.files} at most")
    if sum(each.bytes for each in files if each.path.is_file()) > limits.bytes_archive:
        raise Refused("too-large", "these are too many bytes", "send fewer at once", 413)


def _analyse(analyser: Analyser, upload: Upload, tell: Tell) -> Analysis:
    if upload.kind == "video":
        return analyser.video(upload, progress=tell)
    return analyser.image(upload, explain=False, stability=False, progress=tell)


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
    judged = [face.opinion.probability for face in analysis.faces if face.verdict == analysis.verdict]
    remarks = {each.words for each in analysis.warnings}
    remarks |= {each.words for face in analysis.faces for each in face.warnings}
    picture = (
        analysis.picture
        if analysis.picture is not None
        else (analysis.faces[0].crop if analysis.faces else None)
    )
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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "sha256", "verdict", "probability", "faces", "remarks")
    return {key: row[key] for key in kept}


def _table(rows: list[dict[str, Any]], total: int, links: dict[str, str]) -> str:
    verdicts = [row["verdict"] for row in rows]
    counts = {verdict: verdicts.count(verdict) for verdict in _ORDER}
    counts["other"] = len(rows) - sum(counts.values())
    return render("batch.html", rows=rows, total=total, counts=counts, links=links)
