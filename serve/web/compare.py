"""The tab Compare: two pictures, each beside its prediction, and one over the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from crossfake.serve.engine.results import Analysis
from crossfake.serve.intake.headers import Refused
from crossfake.serve.web.context import UPLOAD, Context, area, part, problem, status, status_of
from crossfake.serve.web.desk import Stopped, Tell
from crossfake.serve.web.view import boxes, render

_SIDES = ("first", "second")


def build(page: Context) -> None:
    """Lay the tab out."""
    with gr.Row(elem_classes="cf-two"):
        uploads = [
            gr.File(label=f"The {side} picture", elem_id=f"cf-compare-{side}", elem_classes="cf-upload")
            for side in _SIDES
        ]
    progress = area(elem_id="cf-compare-status", elem_classes="cf-status")
    shown = area("", elem_id="cf-compare-result")
    held: dict[str, gr.State] = {side: gr.State() for side in _SIDES}

    def taker(side: str, upload: gr.File) -> None:
        other = held[_SIDES[side == _SIDES[0]]]

        def run(given: Any, beside: Analysis | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
            if given is None:
                return
            name = request.session_hash or ""
            case = page.sessions.of(name).begin(f"compare {side}")
            yield {upload: None, progress: status_of("Opening")}
            try:
                taken = page.receive(case, page.claim(name, given)[0])
                if taken.kind != "image":
                    raise Refused("not-an-image", "this is not a picture", "choose a picture to compare")

                def work(tell: Tell) -> Analysis:
                    return page.analyser.image(
                        taken,
                        explain=False,
                        stability=False,
                        progress=part(tell, 0.0, 1.0),
                    )

                job = page.desk.start(work, case.stop)
                for step in job:
                    yield {progress: status(step)}
                found = job.result()
                pair = [found, beside] if side == _SIDES[0] else [beside, found]
                yield {progress: "", held[side]: found, shown: show(*pair)}
            except Stopped:
                return
            except Exception as error:
                yield {progress: problem(error)}

        upload.upload(run, [upload, other], [upload, progress, shown, held[side]], **UPLOAD)

    for side, upload in zip(_SIDES, uploads, strict=True):
        taker(side, upload)


def show(first: Analysis | None, second: Analysis | None) -> str:
    """What is there of the two."""
    sides = [
        {"title": f"The {side} picture", "analysis": found, "boxes": boxes(found)}
        for side, found in zip(_SIDES, (first, second), strict=True)
        if found is not None and found.picture is not None
    ]
    same = len(sides) == 2 and first is not None and second is not None and _alike(first, second)
    return render("compare.html", sides=sides, same=same)


def _alike(first: Analysis, second: Analysis) -> bool:
    """Whether two pictures have one shape, to a percent."""
    return abs(first.width / first.height / (second.width / second.height) - 1) < 0.01
