"""``crossfake data``: prepare image sets, verify them, look at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from crossfake.cli import command_group

data = command_group("data", "Prepare, verify and look at image sets.")

_FOLDER = click.Path(path_type=Path)


@data.command()
@click.argument("source")
@click.option("--out", type=_FOLDER, required=True, help="Shard folder to write.")
@click.option("--size", type=int, default=64, help="Height and width in pixels.")
@click.option(
    "--crop",
    type=click.Choice(["face", "center", "none"]),
    default="face",
    help="How a photo becomes square.",
)
@click.option(
    "--margin",
    type=float,
    default=1.0,
    help="Side of the crop; 1 is FFHQ's framing, less suits tightly cut photos.",
)
@click.option("--split", default="0.8/0.1/0.1", help="Shares of train, val and test.")
@click.option("--name", default="", help="What the source column says.  [default: the folder's name]")
@click.option("--label", type=click.Choice(["real", "fake"]), default="real", help="What the images are.")
@click.option("--generator", default="", help="What made the fakes.  [default: the source's name]")
@click.option("--limit", type=int, help="Stop after so many images.")
@click.option(
    "--codec", type=click.Choice(["raw", "webp", "original"]), default="raw", help="How rows are stored."
)
@click.option("--workers", type=int, default=0, help="Processes; 0 is one per core.")
@click.option("--face-model", type=_FOLDER, help="YuNet's ONNX file.")
@click.option("--seed", type=int, default=0)
def prepare(**options: Any) -> None:
    """Turn SOURCE (a folder of images, toyfaces, lfw, olivetti or a shard folder) into shards."""
    from crossfake.datasets.prepare import PrepareSettings, prepare

    result = prepare(PrepareSettings(**options))
    click.echo(result.table())


@data.command()
@click.argument("folder", type=_FOLDER)
def verify(folder: Path) -> None:
    """Check every shard and row of FOLDER; exit code 1 if anything is wrong."""
    from crossfake.datasets.verify import verify

    problems = verify(folder)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo(f"{folder}: every shard and row is as it was written")


@data.command()
@click.argument("folder", type=_FOLDER)
@click.option("--sheet", type=_FOLDER, help="Where the contact sheet goes.  [default: FOLDER/sheet.png]")
def inspect(folder: Path, sheet: Path | None) -> None:
    """Count what FOLDER holds, and draw a contact sheet."""
    from crossfake.datasets.inspect import inspect

    click.echo(inspect(folder, sheet or folder / "sheet.png"))
