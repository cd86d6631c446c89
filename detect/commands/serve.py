"""``detect serve``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from crossfake.cli import THERE, ManyValues
from crossfake.detect.commands import BUNDLE, FOLDER, device, newest_bundle

GENERATORS = "crossfake.generators"  # entry points that open the generators of a folder of runs


@click.command(cls=ManyValues)
@click.option(
    "--bundle",
    "bundles",
    type=BUNDLE,
    multiple=True,
    help="Run of 'detect train' or a bundle; repeated, several side by side.  [default: the newest finished run]",
)
@click.option(
    "--host", default="127.0.0.1", help="Name or address to listen on; beyond this machine with a token."
)
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="0: a free one.")
@click.option("--token", envvar="CROSSFAKE_TOKEN", show_envvar=True, help="That callers must bear.")
@click.option("--runs", type=FOLDER, default=Path("runs"), help="Generators that the page offers.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A page below --runs, or a folder of pages, that the page shows to all; repeated.  [default: none]",
)
@click.option("--public-url", help="How browsers reach it through a proxy: https://facts.example.")
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy whose word on who asks is taken (X-Forwarded-For); repeated.",
)
@click.option("--no-page", is_flag=True, help="The API alone.")
@click.option(
    "--rate",
    type=click.IntRange(1, 10**6),
    default=60,
    help="Requests and uploads per minute of one client.",
)
@click.option("--concurrent", type=click.IntRange(min=1), default=2, help="Analyses of the API at once.")
@click.option("--face-model", type=THERE, help="YuNet's ONNX file.")
@device
def serve(bundles: tuple[Path, ...], rate: int, no_page: bool, **options: Any) -> None:
    """Serve a page where anyone can analyse a picture or a video, and an API beside it.

    Uploads stay in a private folder until they are answered. See docs/api.md for the API, docs/page.md for the page.
    """
    from crossfake.detect.app.serving import ServeSettings
    from crossfake.detect.app.serving import serve as run

    options |= {"page": not no_page, "requests_per_minute": rate}
    ServeSettings(bundles or (Path(),), **options)  # a wrong option is said before a bundle is looked for
    settings = ServeSettings(bundles or (newest_bundle(),), **options)

    def generators() -> Any:
        opened = [entry.load()(settings.runs) for entry in entry_points(group=GENERATORS) if settings.page]
        return opened[-1] if opened else None

    run(settings, generators, click.echo)
