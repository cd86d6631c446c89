"""The page of ``detect serve``: tabs in one calm screen, on Gradio, with nothing fetched from elsewhere."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import sys
import traceback
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: nothing is told to anybody

try:
    import gradio as gr
except ImportError as error:
    from crossfake.errors import MissingDependency

    raise MissingDependency("gradio", extra="app") from error

import gradio.queueing
import gradio.route_utils
import gradio.routes
import gradio.utils
import matplotlib.pyplot  # noqa: F401  Gradio uses it at every event, even while another thread is importing it

from crossfake import __version__
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.generators import RunGenerators
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web import analyse, batch, compare, experiments, generate
from crossfake.serve.web.context import Context, area
from crossfake.serve.web.desk import Desk
from crossfake.serve.web.gate import Gate
from crossfake.serve.web.routes import add_routes
from crossfake.serve.web.run_pages import Reports
from crossfake.serve.web.sessions import Sessions
from crossfake.serve.web.uploads import Uploads
from crossfake.serve.web.view import render

if TYPE_CHECKING:
    from fastapi import FastAPI

_STATIC = Path(__file__).parent / "static"
_SWEEP = 60  # seconds: how often what nobody took over, and who left without a word, is looked for
_LOG = logging.getLogger("crossfake.app")
_PLACES, _WAITING = 2, 16


def mount_page(
    app: FastAPI,
    analyser: Analyser,
    limits: Limits,
    *,
    generators: RunGenerators | None = None,
    reports: Reports | None = None,
    key: Path | None = None,
    public_url: str | None = None,
) -> None:
    """Mount the page at ``/``: last, because it answers for every path that nothing else does.

    Args:
        app: the application.
        analyser: the engine.
        limits: of uploads.
        generators: for the tab Generate.
        reports: what the tab Experiments shows.
        key: Ed25519 key that reports are signed with.
        public_url: the address that visitors come by, where it is another than the server's own.
    """
    context = Context(
        analyser, limits, Desk(_PLACES, _WAITING), Sessions(Uploads(limits)), generators=generators,
        reports=reports or Reports(), key=key,
    )  # fmt: skip
    blocks = create_page(context)
    add_routes(app, context.sessions, context.reports)
    _sweep_now_and_then(app, context.sessions)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=public_url,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        allowed_paths=[],
        favicon_path=str(_STATIC / "favicon.png"),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=max(limits.bytes_image, limits.bytes_video, limits.bytes_archive),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=_static("page.css"),  # Gradio gives its rules more weight than its own
        head=f"<style>{_static('colours.css')}</style><script>{_static('page.js')}</script>",
    )
    # Gradio checks which files an event may name only once this is set, and mounting does not set it
    blocks.has_launched = True
    mounted = app.router.routes[-1]
    secure = (public_url or "").startswith("https:")
    mounted.app = Gate(mounted.app, blocks, context.sessions, secure)  # type: ignore[attr-defined]


def create_page(page: Context) -> gr.Blocks:
    """The page itself. Uploads go to a private folder that is deleted when the server stops."""
    os.environ["GRADIO_TEMP_DIR"] = str(page.sessions.uploads.root)
    _quiet()

    def leave() -> None:
        page.desk.close()
        page.sessions.close_all()

    def over(request: gr.Request) -> None:
        page.sessions.close(request.session_hash or "")

    atexit.register(leave)
    with gr.Blocks(title="crossfake", analytics_enabled=False, fill_width=True) as blocks:
        area(
            '<header class="cf-head"><h1>crossfake</h1><p>Is this face real or made by a machine? '
            "An estimate with its reasons, never proof.</p></header>"
        )
        with gr.Tabs(elem_id="cf-tabs") as tabs:
            with gr.Tab("Analyse", id="analyse"):
                first = analyse.Tab(page)
            with gr.Tab("Compare", id="compare"):
                compare.build(page)
            with gr.Tab("Batch", id="batch"):
                batch.build(page)
            with gr.Tab("Generate", id="generate"):
                generate.build(page, tabs, first)
            with gr.Tab("Experiments", id="experiments"):
                experiments.build(page)
        area(render("about.html", facts=page.analyser.about()), elem_id="cf-about")
        area(f'<footer class="cf-small">crossfake {__version__}</footer>')
        blocks.unload(over)
    blocks.queue(default_concurrency_limit=8, max_size=256, api_open=False)
    return blocks


def _sweep_now_and_then(app: FastAPI, sessions: Sessions) -> None:
    lifespan = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def sweeping(app: FastAPI) -> AsyncIterator[Any]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP)
                await asyncio.to_thread(sessions.sweep)

        async with lifespan(app) as state:
            task = asyncio.create_task(sweep())
            try:
                yield state
            finally:
                task.cancel()

    app.router.lifespan_context = sweeping


def _quiet() -> None:
    """Gradio prints tracebacks, whose messages quote what clients sent: say where it broke instead."""

    def place(*_: object, **__: object) -> str:
        error = sys.exception()
        if error is not None:
            at = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error("%s in %s, line %s", type(error).__name__, at.filename, at.lineno)
        return ""

    silent = types.SimpleNamespace(print_exc=place, format_exc=place)
    for module in (gradio.queueing, gradio.routes, gradio.route_utils, gradio.utils):
        module.traceback = silent  # type: ignore[attr-defined]


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _theme() -> gr.themes.Base:
    """Gradio's plainest theme with the fonts that are on the visitor's machine; colours are in page.css."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="stone", radius_size="sm", font=list(sans), font_mono=list(mono)
    )
