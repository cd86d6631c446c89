"""``detect tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, SHARDS, THERE, Existing, ManyValues, typed
from crossfake.detect.commands.options import FOLDER, device, precision, synthetic_defaults, view, window
from crossfake.errors import UserError

_BASE = ("model", "pretrained", "weights", "steps", "seed", "force", "device", "precision", "view", "window")


@click.command(cls=ManyValues)
@click.option("--space", default="scratch", help="YAML file of what varies, or scratch or finetune.")
@click.option("--method", type=click.Choice(["grid", "random", "bayes"]), default="bayes")
@click.option(
    "--sampler", type=click.Choice(["tpe", "gp"]), default="tpe", help="Of bayes: TPE or Gaussian process."
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    help="Which poor trials end early, by validation AP.",
)
@click.option("--real", type=SHARDS, multiple=True, help="Shards of reals; several may follow.")
@click.option("--fake", type=SHARDS, multiple=True, help="Shards of given fakes; several may follow.")
@click.option(
    "--with-synthetic", type=SHARDS, multiple=True, help="Your own fakes; alone: the newest generated."
)
@click.option("--model", default="cnn", help="As for 'detect train'; a space may name several.")
@click.option("--pretrained", is_flag=True, help="Start from timm's published weights.")
@click.option("--weights", type=THERE, help="Start from this weight file.")
@view
@window
@click.option("--steps", type=int, default=1500, help="Optimiser steps of the final training at most.")
@click.option("--trial-steps", type=int, help="Steps of a trial.  [default: as many]")
@click.option(
    "--trials", type=click.IntRange(min=1), help="How many in all.  [default: 20, or the whole grid]"
)
@click.option(
    "--minutes", type=float, help="Begin no trial later than this; the final training comes on top."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Trials at the same time.")
@click.option("--out", type=FOLDER, help="Folder of the search.  [default: runs/tune-MODEL]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    help="Of the search and all trials; the final training has the next.",
)
@click.option("--resume", is_flag=True, help="Go on with the search in --out, with its settings.")
@click.option(
    "--force", is_flag=True, help="Train although crops differ, or what a generator learned from is unknown."
)
@device
@precision
def tune(resume: bool, space: str, with_synthetic: tuple[Path, ...], **options: Any) -> None:
    """Search for better settings by validation AP, then train with the best.

    Test rows are never read. The same command again goes on where it was stopped; more --trials extend the search.
    """
    if resume and options["out"] is not None:
        Existing("config.yaml", wrong="holds no search to resume", hint=RUN.hint).check(options["out"])
    from crossfake.detect.tuning.tune import TuneSettings, format_comparison, format_trials, tune

    options["trials"] = options["trials"] or 0
    if resume:
        if options["out"] is None:
            raise UserError("which search is to be resumed?", mend="name it with --out")
        names = typed() & {"trials", "minutes", "workers"}
        settings = TuneSettings.resumed(options["out"], **{name: options[name] for name in names})
    else:
        settings = _settings(space, with_synthetic, options)
    result = tune(settings)
    if result["best"] is not None:
        click.echo(format_trials(result))
    if result["importance"]:
        told = ", ".join(f"{name} {share:.2f}" for name, share in result["importance"].items())
        click.echo(f"importance (fANOVA): {told}")
    if result["comparison"]:
        click.echo(format_comparison(result["comparison"]))
        click.echo(f"best detector: {Path(result['out']) / 'best'}")
        click.echo(
            f"measure it on test data: detect evaluate --bundle {Path(result['out']) / 'best'} --data DIR"
        )
    files = ("study.json", "history.png", "importance.png", "parallel.png")
    there = [name for name in files if (Path(result["out"]) / name).exists()]
    click.echo(f"search: {result['out']} ({', '.join(there)})")


def _settings(space: str, with_synthetic: tuple[Path, ...], options: dict[str, Any]) -> Any:
    from crossfake.detect.training.settings import TrainSettings
    from crossfake.detect.tuning.space import find_space
    from crossfake.detect.tuning.tune import TuneSettings

    real, synthetic = synthetic_defaults(options["real"], with_synthetic)
    out = options["out"] or Path("runs") / f"tune-{options['model']}"
    base = TrainSettings(
        real=real,
        fake=options["fake"],
        synthetic=synthetic,
        out=out,
        **{name: options[name] for name in _BASE},
    )
    names = ("method", "sampler", "pruner", "trials", "minutes", "trial_steps", "workers")
    return TuneSettings(base, find_space(space), **{name: options[name] for name in names})
