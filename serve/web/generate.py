"""The tab Generate: pictures of trained generators by seed, walks between seeds, mixed styles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.seeds import parse_seeds
from crossfake.serve.engine.generators import RunGenerators
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.analyse import Tab
from crossfake.serve.web.context import EVENT, Context, area, problem, status, status_of
from crossfake.serve.web.desk import Stopped, Tell
from crossfake.serve.web.sessions import Case
from crossfake.serve.web.view import render

_KIND = "generate"
_MOST = 32  # pictures at once
_STEPS = 12  # pictures from one seed of a walk to the next
_SIZE = 512  # pixels from which on pictures are not enlarged for Analyse


def build(page: Context, tabs: gr.Tabs, analyse: Tab) -> None:
    """Lay the tab out; a picture can be sent to the tab Analyse, which is then shown."""
    generators = page.generators
    names = generators.names() if generators else []
    if generators is None or not names:
        area(
            '<p class="cf-empty">There is no trained generator here yet. '
            "Train one with <code>synth train</code>, then reload this page.</p>"
        )
        return
    with gr.Row():
        model = gr.Dropdown(
            names, value=names[0], label="Generator", filterable=False, elem_id="cf-generator"
        )
        way = gr.Dropdown(
            ["Pictures", "Walk between seeds", "Mix styles"],
            value="Pictures",
            label="What to make",
            filterable=False,
        )
    with gr.Row():
        seeds = gr.Textbox(
            "1-8", label="Seeds", info="Numbers and ranges, such as 1-8 or 3,7,12", elem_id="cf-seeds"
        )
        psi = gr.Slider(
            0,
            1,
            0.7,
            step=0.05,
            label="Truncation",
            info="Low: typical faces. High: varied, and odder.",
            elem_id="cf-psi",
        )
    with gr.Row(visible=False) as mixing:
        columns = gr.Textbox("11-14", label="Styles of these seeds", elem_id="cf-columns")
        layers = gr.Radio(
            ["coarse", "middle", "fine"], value="coarse", label="Which styles", elem_id="cf-layers"
        )
    make = gr.Button("Make them", variant="primary", elem_id="cf-make")
    progress = area(elem_id="cf-generate-status", elem_classes="cf-status")
    shown = area("", elem_id="cf-generate-result")
    sent = gr.Textbox(visible="hidden", elem_id="cf-sent", label="Seed to send")
    go = gr.Button("Send", visible="hidden", elem_id="cf-go")  # page.js fills the field in, then presses this

    def run(
        name: str, what: str, text: str, trunc: float, others: str, which: str, request: gr.Request
    ) -> Iterator[Any]:
        case = page.sessions.of(request.session_hash or "").begin(_KIND)
        yield {progress: status_of("Waiting"), shown: ""}
        try:
            rows = parse_seeds(text, _MOST)

            def work(tell: Tell) -> str:
                tell(0.1, "Making pictures")
                return _made(generators, name, what, rows, trunc, others, which)

            job = page.desk.start(work, case.stop)
            for step in job:
                yield {progress: status(step)}
            yield {progress: "", shown: job.result()}
        except Stopped:
            return
        except Exception as error:
            yield {progress: problem(error)}

    def send(seed: str, name: str, trunc: float, request: gr.Request) -> Iterator[dict[Any, Any]]:
        def draw(case: Case) -> Received:
            number = parse_seeds(seed, _MOST)[0]
            target = case.folder / "made.png"
            _enlarged(generators.sample(name, [number], trunc)[0]).save(target)
            return Received(target, f"{Path(name).name}-seed-{number}.png")

        yield {tabs: gr.Tabs(selected="analyse")}
        yield from analyse.follow(request.session_hash or "", draw)

    def offer(name: str, what: str) -> dict[Any, Any]:
        if what != "Mix styles":
            return {mixing: gr.update(visible=False)}
        try:
            found = generators.layers(name)
            if not found:
                raise UserError("this generator has no styles to mix", hint="choose another one, or pictures")
        except Exception as error:
            return {mixing: gr.update(visible=False), progress: problem(error)}
        return {mixing: gr.update(visible=True), layers: gr.update(choices=list(found), value=found[0])}

    gr.on([way.change, model.change], offer, [model, way], [mixing, layers, progress], **EVENT)
    inputs = [model, way, seeds, psi, columns, layers]
    gr.on(
        [make.click, seeds.submit],
        run,
        inputs,
        [progress, shown],
        **EVENT,
    )
    go.click(send, [sent, model, psi], [tabs, *analyse.outputs], trigger_mode="multiple", **EVENT)


def _enlarged(picture: Images) -> Image.Image:
    """A small picture as large as one would publish it: in stamps no face is found."""
    image = Image.fromarray(picture)
    times = max(1, _SIZE // image.width)
    return image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS)


def _made(
    generators: RunGenerators, name: str, what: str, rows: list[int], psi: float, others: str, layers: str
) -> str:
    if what == "Pictures":
        pictures = generators.sample(name, rows, psi)
        return render("generate.html", pictures=list(zip(pictures, rows, strict=True)))
    if what == "Walk between seeds":
        if len(rows) > 6:
            raise UserError(f"a walk past {len(rows)} seeds is long", hint="name 2 to 6 seeds")
        return render("walk.html", pictures=generators.interpolate(name, rows, psi, _STEPS), seeds=rows)
    columns = parse_seeds(others, _MOST)
    if len(rows) * len(columns) > _MOST * 2:
        raise UserError("these are too many pairs to mix", hint=f"name at most {_MOST * 2} in all")
    seeds = ", ".join(map(str, rows))
    words = f"The {layers} styles of seeds {others} (columns) in the pictures of seeds {seeds} (rows)"
    return render("sheet.html", sheet=generators.mix(name, rows, columns, layers, psi), words=words)
