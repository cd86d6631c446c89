"""``synth``: train generators, make fakes in bulk, measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import command_group, typed
from crossfake.errors import UserError

synth = command_group("synth", "Train generators, make fakes in bulk, measure them.")

_PRECISION = click.Choice(["auto", "bf16", "fp32"])
_device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
_precision = click.option(
    "--precision", type=_PRECISION, default="auto", help="auto: bf16 where it is quick."
)


@synth.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Shards of real images, from 'crossfake data prepare'."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/FAMILY]")
@click.option("--family", default="stylegan2", help="stylegan2 or dcgan.")
@click.option("--kimg", type=float, default=200.0, help="Length in thousands of images.")
@click.option("--minutes", type=float, help="Stop after so many minutes if that comes first.")
@click.option("--split", default="train", help="Rows of the shards to train on.")
@click.option("--batch", type=int, default=0, help="Images per step; 0 chooses.")
@click.option("--channels", type=int, default=0, help="Width of the networks; 0 chooses.")
@click.option("--gamma", type=float, help="Weight of R1.  [default: 0.0002·size²/batch]")
@click.option("--lr", type=float, help="Adam's step size.  [default: the family's]")
@click.option(
    "--snapshot-kimg", type=float, default=10.0, help="Distance between checkpoints and sample sheets."
)
@click.option("--seed", type=int, default=0)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out, with its settings.")
@_device
@_precision
def train(resume: bool, **options: Any) -> None:
    """Train a generator on real images."""
    from crossfake.synth.training import TrainSettings, train

    out = options.pop("out") or Path("runs") / options["family"]
    if resume:
        settings = TrainSettings.resumed(out, **{k: v for k, v in options.items() if k in typed()})
    elif options["data"] is None:
        raise UserError("there is nothing to train on", mend="name shards of real images with --data DIR")
    else:
        settings = TrainSettings(out=out, **options)
    run = train(settings)
    click.echo(f"run: {run}\nsamples: {run / 'samples'}\nmore fakes: synth generate --n 50000 --model {run}")


@synth.command()
@click.option("--n", type=int, required=True, help="Number of images.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Run or model folder.  [default: the newest finished run]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Shard folder.  [default: inside the run]")
@click.option(
    "--trunc",
    type=float,
    default=1.0,
    help="Truncation psi; less than 1 trades variety for fewer odd images.",
)
@click.option("--seed", type=int, default=0)
@click.option("--split", default="train", help="What the rows' split column says.")
@_device
@_precision
def generate(**options: Any) -> None:
    """Make fakes in bulk, as shards."""
    import json

    from crossfake.synth.generation import DONE, GenerateSettings, generate

    out = generate(GenerateSettings(**options))
    if (out / DONE).exists():
        facts = json.loads((out / DONE).read_text())
        rate = (
            f", {facts['made'] / facts['seconds']:.0f} images/s" if facts["made"] and facts["seconds"] else ""
        )
        click.echo(f"{facts['n']:,} fakes of {facts['generator']}{rate}\nshards: {out}")
