"""The tab Experiments: pages of finished runs, looked at in a frame that can do nothing."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from crossfake.detect.app.page_context import EVENT, Context, area
from crossfake.detect.app.page_routes import run_file
from crossfake.detect.app.page_view import render
from crossfake.runs import Run

_DEEPEST, _MOST = 5, 500
_TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)


def build(page: Context) -> None:
    """Lay the tab out."""
    found = find_pages(page.runs) if page.runs else {}
    with gr.Row():
        choice = gr.Dropdown(
            _choices(found),
            value=None,
            label="Report",
            info="Pages of finished experiments, generators and detectors, the newest first",
            elem_id="cf-report",
            scale=4,
        )
        again = gr.Button("Look again", size="sm", scale=0, min_width=120, elem_id="cf-again")
    shown = area(_show(page.runs, None, len(found)), elem_id="cf-experiments-result")

    def look() -> tuple[object, str]:
        now = find_pages(page.runs) if page.runs else {}
        return gr.update(choices=_choices(now), value=None), _show(page.runs, None, len(now))

    choice.input(lambda name: _show(page.runs, name, 1), choice, shown, **EVENT)
    again.click(look, None, [choice, shown], **EVENT)


def find_pages(runs: Path) -> dict[str, str]:
    """HTML pages below a folder, by path, with their titles; the newest first.

    Those of a run that is not finished are left out; links to elsewhere are not followed.
    """
    found: list[tuple[float, str, str]] = []
    for folder, folders, files in os.walk(runs):
        here = Path(folder)
        depth = len(here.relative_to(runs).parts)
        folders[:] = [] if depth >= _DEEPEST else sorted(name for name in folders if not name.startswith("."))
        run = Run(here)
        if run.config_file.exists() and not run.finished and not (here / "report.html").exists():
            folders[:] = []
            continue
        for name in files:
            path = (here / name).relative_to(runs).as_posix()
            if name.endswith(".html") and run_file(runs, path):
                found.append((-(here / name).stat().st_mtime, path, _title(here / name)))
    return {path: title for _, path, title in sorted(found)[:_MOST]}


def _title(path: Path) -> str:
    with open(path, "rb") as file:
        match = _TITLE.search(file.read(4096))
    return html.unescape(" ".join(match[1].decode("utf-8", "replace").split())) if match else "Report"


def _choices(found: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"{title} ({path})", path) for path, title in found.items()]


def _show(runs: Path | None, path: str | None, count: int) -> str:
    if path and runs and run_file(runs, path):
        return render("shown.html", link=f"runs/{quote(path)}", name=path, title=f"Report {path}", words="")
    words = (
        "Choose a report above."
        if count
        else "There is no finished experiment here yet. Run one with crossfake experiment run."
    )
    return render("shown.html", link="", name="", title="", words=words)
