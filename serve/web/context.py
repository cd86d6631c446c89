"""What all tabs of the page share: the analyser, the desk, the visitors, and how an upload becomes an analysis."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from crossfake.datasets.decode import Unreadable
from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.generators import RunGenerators
from crossfake.serve.engine.results import Analysis
from crossfake.serve.intake.accepting import Upload, accept
from crossfake.serve.intake.limits import Limits
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.desk import Desk, Step
from crossfake.serve.web.run_pages import Reports
from crossfake.serve.web.sessions import Case, Sessions
from crossfake.serve.web.uploads import not_sent
from crossfake.serve.web.view import render, sentence

_LOG = logging.getLogger("crossfake.app")

# Events: none is in Gradio's API, and what runs long waits at our own desk, not in Gradio's queue
EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
# Files come as Gradio got them: else it makes an empty temporary file for each
UPLOAD: dict[str, Any] = {"trigger_mode": "multiple", "preprocess": False, **EVENT}

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Context:
    """Made once a server.

    Attributes:
        analyser: the engine.
        limits: of uploads.
        desk: where long work waits for its turn.
        sessions: the visitors.
        generators: for the tab Generate; None: there are none.
        reports: what the tab Experiments shows.
        key: Ed25519 key that reports are signed with.
    """

    analyser: Analyser
    limits: Limits
    desk: Desk
    sessions: Sessions
    generators: RunGenerators | None = None
    reports: Reports = field(default_factory=Reports)
    key: Path | None = None

    def claim(self, name: str, given: Any) -> list[Received]:
        """The files that an event of a page names, if its visitor sent them and no event took them yet.

        Args:
            name: of the page's session.
            given: what Gradio passes on for one file or several.

        Raises:
            Refused: one of them is anything else. No path is looked at before that.
        """
        visitor = self.sessions.of(name).visitor
        items = given if isinstance(given, list) else [given]
        if not items or not all(isinstance(each, dict) for each in items):
            raise not_sent()
        return [self.sessions.uploads.claim(visitor, each.get("path")) for each in items]

    def receive(self, case: Case, received: Received) -> Upload:
        """Take a file over into a case and check it.

        Raises:
            Refused: it is not taken.
        """
        if received.problem is not None:
            raise received.problem
        return accept(case.take(received.path), self.limits, name=received.name)

    def offer_files(self, case: Case, analysis: Analysis) -> dict[str, str]:
        """Links to the report and the figures of an analysis, made when they are followed."""

        def report(kind: Any) -> Path:
            from crossfake.serve.reports.signing import open_key
            from crossfake.serve.reports.writing import render as report_bytes

            target = case.folder / f"report.{kind}"  # makes no folder: the visitor's may be gone by now
            if target.exists():
                return target
            write_bytes(target, report_bytes(analysis, kind, open_key(self.key)))
            return target

        def figures() -> Path:
            return write_json(case.folder / "analysis.json", analysis.to_json())

        case.downloads |= {
            "report.html": lambda: report("html"),
            "report.pdf": lambda: report("pdf"),
            "analysis.json": figures,
        }
        return {kind: case.link(name) for kind, name in _LINKS.items()}


_LINKS = {"html": "report.html", "pdf": "report.pdf", "json": "analysis.json"}


def area(html: str = "", *, elem_id: str | None = None, elem_classes: str | None = None) -> gr.Markdown:
    """A place for HTML of :func:`~crossfake.serve.web.view.render`.

    Gradio's own HTML component runs templates with ``eval``, which the headers forbid. Markdown leaves a block of HTML
    alone, as long as it has no empty line: ``render`` writes none.
    """
    return gr.Markdown(
        html,
        sanitize_html=False,
        latex_delimiters=[],
        elem_id=elem_id,
        elem_classes=["cf-area", elem_classes or ""],
    )


def part(tell: Progress, first: float, last: float) -> Progress:
    """Progress of a part of the work: its 0 to 1 is ``first`` to ``last`` of the whole."""
    return lambda share, words: tell(first + share * (last - first), words)


def status(step: Step) -> str:
    return render("status.html", share=step.share, words=step.words or "Starting")


def status_of(words: str) -> str:
    return render("status.html", share=None, words=words)


def problem(error: Exception) -> str:
    """What went wrong, for people. Of a fault of our own no detail: it may hold names of files."""
    if isinstance(error, UserError):
        return render("problem.html", what=sentence(error.message), hint=sentence(error.hint or ""))
    if isinstance(error, Unreadable):
        return render(
            "problem.html",
            what="This file cannot be opened: it is damaged.",
            hint="Save or send it again, if possible from where it comes.",
        )
    for place in traceback.extract_tb(error.__traceback__)[-1:]:
        _LOG.error("%s in %s, line %s", type(error).__name__, place.filename, place.lineno)
    return render("problem.html", what="Something went wrong here.", hint="Try again, or another file.")


def merge_stability(analysis: Analysis, later: Analysis) -> Analysis:
    """An analysis with the stability that was measured later, and the warning that came of it."""
    measured = {face.person: face for face in later.faces}
    faces = tuple(
        dataclasses.replace(face, stability=found.stability, warnings=found.warnings)
        if (found := measured.get(face.person))
        else face
        for face in analysis.faces
    )
    return dataclasses.replace(analysis, faces=faces, seconds=analysis.seconds + later.seconds)


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table that spreadsheets open: a cell that would be taken for a formula gets an apostrophe before it."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["file"])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    key: f"'{value}" if str(value)[:1] in ("=", "+", "@", "\t", "\r") else value
                    for key, value in row.items()
                }
            )
    return path
