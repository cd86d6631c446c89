"""``synth grid``, ``synth interpolate`` and ``synth project``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.bounds import MOST
from crossfake.cli import THERE
from crossfake.errors import UserError
from crossfake.options import options
from crossfake.seeds import parse_seeds
from crossfake.synth.cli import synth
from crossfake.synth.settings import GenerateSettings, Move, ProjectSettings

_model = options(ProjectSettings, "model")
_move = options(GenerateSettings, "translate", "rotate")
_where = options(ProjectSettings, "device", "precision")
_label = click.option(
    "--label", type=click.IntRange(0, MOST), help="Number of the class.  [default: the first]"
)


@synth.command()
@_model
@click.option(
    "--seeds", default="1-100", help="Such as 1-100 or 1-5,7; each is image 0 of 'generate --seed'."
)
@click.option("--trunc", default="1", help="Truncation psi; several, as 0,0.5,1, make a column each.")
@click.option(
    "--mix", type=click.Choice(["coarse", "middle", "fine"]), help="Take these styles of --columns."
)
@click.option("--columns", help="Seeds whose styles are taken.  [default: those of --seeds]")
@_move
@click.option("--out", type=click.Path(path_type=Path), default=Path("grid.png"), help="The sheet, a PNG.")
@_label
@_where
def grid(
    model: Path | None,
    seeds: str,
    trunc: str,
    mix: str | None,
    columns: str | None,
    translate: tuple[float, float],
    rotate: float,
    out: Path,
    label: int | None,
    **where: Any,
) -> None:
    """Draw a sheet of images by seed, a truncation sweep, or a table of mixed styles."""
    from crossfake.images import save_png
    from crossfake.synth.sampling import latents

    rows, psis = parse_seeds(seeds), latents.parse_psis(trunc)
    how = Move(translate, rotate)
    if mix and len(psis) > 1:
        raise UserError("a table of mixed styles has one truncation", hint="give --trunc 0.7, say")
    if columns and not mix:
        raise UserError("--columns are for a table of mixed styles", hint="give --mix coarse with it")
    network = latents.open_model(model, **where)
    latents.move(network, how)
    if mix:
        others = parse_seeds(columns) if columns else rows
        sheet = latents.mixing_table(network, rows, others, mix, psis[0], label)
    else:
        sheet = latents.grid(network, rows, psis, label)
    save_png(sheet, out)
    click.echo(f"sheet: {out}")


@synth.command()
@_model
@click.option("--seeds", default="1-8", help="Seeds to pass, such as 1-8 or 3,14,15.")
@click.option("--space", type=click.Choice(["w", "z"]), help="  [default: w where the model has styles]")
@click.option("--frames", type=click.IntRange(1, 10_000), default=60, help="From a seed to the next.")
@click.option("--fps", type=click.IntRange(1, 120), default=30, help="Frames per second.")
@click.option("--trunc", type=float, default=1.0, help="Truncation psi.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("walk.mp4"), help="The film, *.mp4 or *.gif."
)
@_label
@_where
def interpolate(
    model: Path | None,
    seeds: str,
    space: str | None,
    frames: int,
    fps: int,
    trunc: float,
    out: Path,
    label: int | None,
    **where: Any,
) -> None:
    """Film a walk from seed to seed and back to the first."""
    from crossfake.synth.sampling import interpolation, latents

    numbers, (psi,) = parse_seeds(seeds), latents.parse_psis(str(trunc))
    network = latents.open_model(model, **where)
    space = space or ("w" if latents.has_styles(network) else "z")
    film = interpolation.interpolate(network, numbers, out, space, frames, fps, psi, label)
    click.echo(f"film: {film}, {frames * len(numbers) / fps:.1f} s")


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
