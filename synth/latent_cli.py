"""``synth grid``, ``synth interpolate`` and ``synth project``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import THERE
from crossfake.errors import UserError
from crossfake.options import options
from crossfake.synth.cli import synth
from crossfake.synth.settings import GridSettings, InterpolateSettings, ProjectSettings


@synth.command()
@options(GridSettings)
def grid(**options: Any) -> None:
    """Draw a sheet of images by seed, a truncation sweep, or a table of mixed styles."""
    settings = GridSettings(**options)
    from crossfake.synth.sampling.latents import draw_grid

    click.echo(f"sheet: {draw_grid(settings)}")


@synth.command()
@options(InterpolateSettings)
def interpolate(**options: Any) -> None:
    """Film a walk from seed to seed and back to the first."""
    settings = InterpolateSettings(**options)
    from crossfake.synth.sampling.interpolation import film

    written = film(settings)
    click.echo(f"film: {written}, {settings.frames * len(settings.seeds) / settings.fps:.1f} s")


@synth.command()
@click.argument("image", required=False, type=THERE)
@click.option("--batch", type=THERE, help="Shards of reals, or a folder of photos.")
@options(ProjectSettings, without=("photos",), out={"default": Path("projected"), "show_default": True})
def project(image: Path | None, batch: Path | None, **chosen: Any) -> None:
    """Find the styles that make a photo: IMAGE, or all of --batch as shards of hard fakes."""
    photos = image or batch
    if photos is None or (image and batch):
        raise UserError("there is not one thing to project", hint="name an IMAGE, or photos with --batch DIR")
    if image and not image.is_file():
        raise UserError(f"{image} is a folder", hint="give it with --batch")
    from crossfake.synth.sampling.projected import project_photo, project_set

    settings = ProjectSettings(photos=photos, **chosen)
    figures = project_photo(settings) if image else project_set(settings)
    facts = f"distance {figures['distance']:.3f} (the mean image's: {figures['distance_of_mean']:.3f})"
    click.echo(f"{facts}, {figures['psnr']:.1f} dB\nresults: {settings.out}")
