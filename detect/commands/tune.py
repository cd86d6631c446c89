"""``detect tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, Existing, ManyValues, typed
from crossfake.detect.commands.options import synthetic_defaults
from crossfake.detect.settings import TuneSettings
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.options import options, taken

_BASE = ("model", "pretrained", "weights", "steps", "seed", "force", "device", "precision", "view", "window")


@click.command(cls=ManyValues)
@options(TuneSettings, "space", "method", "sampler", "pruner", space={"default": "scratch"})
@options(
    TrainSettings,
    *("real", "fake", "synthetic", "model", "pretrained", "weights", "view", "window", "steps"),
    model={"help": "As for 'detect train'; a space may name several."},
    steps={"help": "Optimiser steps of the final training at most."},
)
@options(TuneSettings, "trial_steps", "trials", "minutes", "workers")
@options(
    TrainSettings,
    *("out", "seed", "resume", "force", "device", "precision"),
    out={"help": "Folder of the search.  [default: runs/tune-MODEL]"},
    seed={"help": "Of the search and all trials; the final training has the next."},
    resume={"help": "Go on with the search in --out, with its settings."},
)
@options(ExecutorSettings)
def tune(resume: bool, space: str, synthetic: tuple[Path, ...], **options: Any) -> None:
    """Search for better settings by validation AP, then train with the best.

    Test rows are never read. The same command again goes on where it was stopped; more --trials extend the search.
    """
    where = taken(ExecutorSettings, options)
    if resume and options["out"] is not None:
        Existing("config.yaml", wrong="holds no search to resume", hint=RUN.hint).check(options["out"])
    from crossfake.detect.tuning.tune import format_comparison, format_trials, resumed, tune

    if resume:
        if options["out"] is None:
            raise UserError("which search is to be resumed?", hint="name it with --out")
        names = typed() & {"trials", "minutes", "workers"}
        settings = resumed(options["out"], **{name: options[name] for name in names})
    else:
        settings = _settings(space, synthetic, options)
    result = tune(settings, where)
    if result["best"] is not None:
        click.echo(format_trials(result))
    if result["importance"]:
        importance = ", ".join(f"{name} {share:.2f}" for name, share in result["importance"].items())
        click.echo(f"importance (fANOVA): {importance}")
    if result["comparison"]:
        click.echo(format_comparison(result["comparison"]))
        click.echo(f"best detector: {Path(result['out']) / 'best'}")
        click.echo(
            f"measure it on test data: detect evaluate --bundle {Path(result['out']) / 'best'} --data DIR"
        )
    files = ("study.json", "history.png", "importance.png", "parallel.png")
    there = [name for name in files if (Path(result["out"]) / name).exists()]
    click.echo(f"search: {result['out']} ({', '.join(there)})")


def _settings(space: str, synthetic: tuple[Path, ...], options: dict[str, Any]) -> Any:
    from crossfake.detect.tuning.space import find_space

    real, synthetic = synthetic_defaults(options["real"], synthetic)
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
