"""``detect explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import SHARDS, THERE, ManyValues
from crossfake.detect.commands.options import FOLDER, bundle_option, device, newest_bundle


@click.command(cls=ManyValues)
@click.argument("photos", nargs=-1, type=THERE)
@bundle_option
@click.option(
    "--method",
    default="auto",
    help="gradcam, gradcam++, hirescam, integrated-gradients, occlusion, rollout, spectrum or prototypes; auto takes "
    "what suits the model.",
)
@click.option(
    "--out", type=FOLDER, help="Folder for pictures and figures.  [default: explanations in the run]"
)
@click.option("--check", is_flag=True, help="Test the method on validation images: is what it shows true?")
@click.option(
    "--data",
    type=SHARDS,
    multiple=True,
    help="Shards to check on and to compare with; several may follow.  [default: those of the training]",
)
@click.option("--images", type=int, default=64, help="At most so many for each figure of --check.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0)
@click.option("--face-model", type=THERE, help="YuNet's ONNX file.")
@device
def explain(bundle: Path | None, **options: Any) -> None:
    """Show what in each face speaks for fake, and test whether that is so."""
    from crossfake.detect.explain.checks import format_table
    from crossfake.detect.explain.explaining import ExplainSettings, explain

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
