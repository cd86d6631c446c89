"""``detect explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import THERE, ManyValues
from crossfake.detect.commands.options import newest_bundle
from crossfake.detect.settings import ExplainSettings
from crossfake.options import options


@click.command(cls=ManyValues)
@click.argument("photos", nargs=-1, type=THERE)
@options(ExplainSettings, without=("photos",))
def explain(bundle: Path | None, **options: Any) -> None:
    """Show what in each face speaks for fake, and test whether that is so."""
    from crossfake.detect.explain.checks import format_table
    from crossfake.detect.explain.explaining import explain

    ExplainSettings(bundle or Path(), **options)  # a wrong option is said before a bundle is looked for
    result = explain(ExplainSettings(bundle or newest_bundle(), **options))
    explained = result["explained"]
    width = max((len(one.path) for one in explained), default=0)
    for one in explained:
        score = "-" if one.score is None else f"{one.score:.3f}"
        click.echo(
            f"{one.path:<{width}}  face {one.face}  {score:>5}  {one.verdict}  {one.picture or one.reason}"
        )
    if result["check"]:
        click.echo(format_table(result["check"]))
    click.echo(f"method: {result['method']}\nresults: {result['out']}")
