"""``detect train``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click

from crossfake.cli import NEWEST, ManyValues, typed
from crossfake.detect.commands import FOLDER, device, precision
from crossfake.errors import UserError


@click.command(cls=ManyValues)
@click.option("--real", type=FOLDER, multiple=True, help="Shards of reals; several may follow.")
@click.option("--fake", type=FOLDER, multiple=True, help="Shards of given fakes; several may follow.")
@click.option(
    "--with-synthetic", type=FOLDER, multiple=True, help="Your own fakes; alone: the newest generated."
)
@click.option("--model", default="cnn", help="cnn, or any timm model: resnet18, vgg16, densenet121, …")
@click.option("--pretrained", is_flag=True, help="Start from timm's published weights.")
@click.option("--weights", type=FOLDER, help="Start from this weight file.")
@click.option("--out", type=FOLDER, help="Run folder.  [default: runs/detect-MODEL]")
@click.option("--steps", type=int, default=1500, help="Optimiser steps at most.")
@click.option("--batch", type=int, default=64, help="Images per step, half of them real.")
@click.option("--lr", type=float, default=1e-3, help="AdamW's largest step size.")
@click.option("--augment", type=float, default=0.5, help="Probability of blur and of JPEG.")
@click.option(
    "--synthetic-ratio", type=float, default=0.5, help="Share of synthetic among the fakes of a batch."
)
@click.option("--patience", type=int, default=5, help="Validations without a better AP before stopping.")
@click.option("--seed", type=int, default=0)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, with its settings.")
@click.option("--force", is_flag=True, help="Train although the folders were cropped differently.")
@device
@precision
def train(resume: bool, with_synthetic: tuple[Path, ...], **options: Any) -> None:
    """Train a detector on reals and fakes."""
    from crossfake.detect.training import TrainSettings, train

    if resume:
        if options["out"] is None:
            raise UserError("which run is to be resumed?", mend="name it with --out")
        names = typed() & set(options) - {"out"}
        settings = TrainSettings.resumed(options["out"], **{name: options[name] for name in names})
    else:
        options["real"], synthetic = _defaults(options["real"], with_synthetic)
        options["out"] = options["out"] or _free(Path("runs") / f"detect-{options['model']}")
        settings = TrainSettings(synthetic=synthetic, **options)
    run = train(settings)
    card = run / "model" / "bundle.json"
    if card.exists():
        facts = json.loads(card.read_text())
        click.echo(f"validation AP {facts['validation_ap']:.4f}, threshold {facts['threshold']:.3f}")
        click.echo(facts["audit"]["summary"])
    click.echo(f"run: {run}\njudge a picture: detect predict PHOTO --bundle {run}")


def _defaults(
    real: tuple[Path, ...], synthetic: tuple[Path, ...]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """``--with-synthetic`` alone is the newest generated set; without ``--real``, the reals behind that generator."""
    from crossfake.runs import Run, newest_synthetic

    if not any(str(folder) == NEWEST for folder in synthetic):
        return real, synthetic
    newest = newest_synthetic()
    if newest is None:
        raise UserError(
            "there are no generated fakes under runs/",
            mend="make some with 'synth train --data DIR' and 'synth generate --n 50000', or try 'crossfake demo'",
        )
    click.echo(f"--with-synthetic: taking the newest generated fakes, {newest}")
    if not real:
        run = Run(newest.parent)
        if not run.config_file.exists() or "data" not in run.config:
            raise UserError(f"the reals behind {newest} are not known", mend="name reals with --real DIR")
        real = (Path(run.config["data"]),)
        click.echo(f"no --real given: taking the reals that its generator was trained on, {real[0]}")
    return real, tuple(newest if str(folder) == NEWEST else folder for folder in synthetic)


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that is not taken."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
