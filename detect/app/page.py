"""The page of ``detect serve``: tabs in one calm screen, on Gradio, with nothing fetched from elsewhere."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: nothing is told to anybody

try:
    import gradio as gr
except ImportError as error:
    from crossfake.errors import MissingDependency

    raise MissingDependency("gradio", extra="app") from error

import matplotlib.pyplot  # noqa: F401  Gradio uses it at every event, even while another thread is importing it

from crossfake import __version__
from crossfake.detect.app import page_analyse, page_batch, page_compare, page_experiments, page_generate
from crossfake.detect.app.analysis import Analyser
from crossfake.detect.app.generators import Generators
from crossfake.detect.app.intake import session_folder
from crossfake.detect.app.limits import Limits
from crossfake.detect.app.page_context import Context, area
from crossfake.detect.app.page_desk import Desk
from crossfake.detect.app.page_routes import Narrow, add_routes
from crossfake.detect.app.page_sessions import Sessions
from crossfake.detect.app.page_view import render

if TYPE_CHECKING:
    from fastapi import FastAPI

_STATIC = Path(__file__).parent / "static"
_SWEEP, _OLD = 60, 600  # seconds: how often uploads that nobody took over are deleted, and from which age
_PLACES, _WAITING = 2, 16


def mount_page(
    app: FastAPI,
    analyser: Analyser,
    limits: Limits,
    *,
    generators: Generators | None = None,
    runs: Path | None = None,
    key: Path | None = None,
) -> None:
    """Mount the page at ``/``: last, because it answers for every path that nothing else does.

    Args:
        app: the application.
        analyser: the engine.
        limits: of uploads.
        generators: for the tab Generate.
        runs: folder whose finished reports the tab Experiments shows.
        key: Ed25519 key that reports are signed with.
    """
    context = Context(
        analyser, limits, Desk(_PLACES, _WAITING), Sessions(), generators=generators, runs=runs, key=key
    )
    blocks = create_page(context)
    add_routes(app, context.sessions, runs)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
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
    mounted = app.router.routes[-1]
    mounted.app = Narrow(mounted.app)  # type: ignore[attr-defined]


def create_page(page: Context) -> gr.Blocks:
    """The page itself. Uploads go to a private folder that is deleted when the server stops."""
    stack = session_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(stack.__enter__())

    def leave() -> None:
        page.desk.close()
        page.sessions.close_all()
        stack.__exit__(None, None, None)

    def over(request: gr.Request) -> None:
        page.sessions.close(request.session_hash or "")

    atexit.register(leave)
    with gr.Blocks(
        title="crossfake", analytics_enabled=False, delete_cache=(_SWEEP, _OLD), fill_width=True
    ) as blocks:
        area(
            '<header class="cf-head"><h1>crossfake</h1><p>Is this face real or made by a machine? '
            "An estimate with its reasons, never proof.</p></header>"
        )
        with gr.Tabs(elem_id="cf-tabs") as tabs:
            with gr.Tab("Analyse", id="analyse"):
                analyse = page_analyse.Tab(page)
            with gr.Tab("Compare", id="compare"):
                page_compare.build(page)
            with gr.Tab("Batch", id="batch"):
                page_batch.build(page)
            with gr.Tab("Generate", id="generate"):
                page_generate.build(page, tabs, analyse)
            with gr.Tab("Experiments", id="experiments"):
                page_experiments.build(page)
        area(render("about.html", facts=page.analyser.about()), elem_id="cf-about")
        area(f'<footer class="cf-small">crossfake {__version__}</footer>')
        blocks.unload(over)
    blocks.queue(default_concurrency_limit=8, max_size=256, api_open=False)
    return blocks


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _theme() -> gr.themes.Base:
    """Gradio's plainest theme with the fonts that are on the visitor's machine; colours are in page.css."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="stone", radius_size="sm", font=list(sans), font_mono=list(mono)
    )
