"""The tab Experiments: pages of finished runs, looked at in a frame that can do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import gradio as gr

from crossfake.serve.web.context import EVENT, Context, area
from crossfake.serve.web.view import render


def build(page: Context) -> None:
    """Lay the tab out."""
    found = page.reports.pages()
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
    shown = area(_show(found, None), elem_id="cf-experiments-result")

    def look() -> tuple[object, str]:
        now = page.reports.pages()
        return gr.update(choices=_choices(now), value=None), _show(now, None)

    choice.input(lambda name: _show(page.reports.pages(), name), choice, shown, **EVENT)
    again.click(look, None, [choice, shown], **EVENT)


def _choices(found: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"{title} ({path})", path) for path, title in found.items()]


def _show(found: Mapping[str, str], path: str | None) -> str:
    if path is not None and path in found:
        return render("shown.html", link=f"runs/{quote(path)}", name=path, title=f"Report {path}", words="")
    words = (
        "Choose a report above."
        if found
        else "No report is shown here. Whoever serves this page names them with detect serve --reports."
    )
    return render("shown.html", link="", name="", title="", words=words)
