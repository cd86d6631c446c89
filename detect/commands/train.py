"""``detect train``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, ManyValues, typed
from crossfake.detect.commands.options import synthetic_defaults
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.options import options

_GROUPS = {
    "Data": ("real", "fake", "balance", "force"),
    "Your own fakes": (
        "synthetic",
        "synthetic_ratio",
        "synthetic_schedule",
        "synthetic_per_generator",
        "synthetic_limit",
        "match_steps",
    ),
    "Network": ("model", "option", "pretrained", "weights", "tune", "layer_decay"),
    "Images": ("view", "window", "pair", "recipe", "augment", "benign", "mixup", "label_smoothing"),
    "Learning": ("loss", "steps", "batch", "lr", "ema", "eval_every", "patience", "seed"),
}


class _Grouped(ManyValues):
    """Options under headings; there are too many for one list."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {parameter.name: parameter.get_help_record(ctx) for parameter in self.get_params(ctx)}
        named = {name for names in _GROUPS.values() for name in names}
        rest = tuple(str(name) for name in records if name not in named)
        for title, names in (*_GROUPS.items(), ("Run", rest)):
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records[name])])


@click.command(cls=_Grouped)
@options(TrainSettings, without=("options", "weight_decay", "stop_after"))
@click.option(
    "--option", multiple=True, metavar="NAME=VALUE", help="An option of the model's own: head=nearest, say."
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, how fast and how long.")
def train(
    resume: bool, dry_run: bool, synthetic: tuple[Path, ...], option: tuple[str, ...], **options: Any
) -> None:
    """Train a detector on reals and fakes."""
    if resume and options["out"] is not None:
        RUN.check(options["out"])
    from crossfake.detect.training import train as training
    from crossfake.detect.training.runs import MATCHED, control, resumed
    from crossfake.detect.training.weighing import format_shares
    from crossfake.device import rank_world
    from crossfake.runs import Run

    options["options"] = dict(map(_pair, option))
    chosen = {name: options[name] for name in typed() & set(options)}
    chosen |= {"options": options["options"]} if option else {}
    if resume:
        if options["out"] is None:
            raise UserError("which run is to be resumed?", hint="name it with --out")
        if synthetic:
            raise UserError(
                "--resume goes on with the fakes that the run has", hint="leave --with-synthetic out"
            )
        settings = resumed(options["out"], **{k: v for k, v in chosen.items() if k != "out"})
    elif options["match_steps"] is not None:
        if taken := sorted(set(chosen) & set(MATCHED)):
            raise UserError(
                f"--match-steps takes {taken[0]} from the run that it matches",
                hint=f"leave --{taken[0].replace('_', '-')} out",
            )
        run = chosen.pop("match_steps")
        _, synthetic = synthetic_defaults((run,), synthetic)
        chosen["out"] = options["out"] or _free(run.with_name(f"{run.name}-control"))
        settings = control(run, **chosen, synthetic=synthetic)
    else:
        options["real"], synthetic = synthetic_defaults(options["real"], synthetic)
        options["out"] = options["out"] or _free(Path("runs") / f"detect-{options['model']}")
        settings = TrainSettings(synthetic=synthetic, **options)
    if dry_run:
        click.echo(training.dry_run(settings))
        return
    run = training.train(settings)
    if rank_world()[0] > 0 or not Run(run).finished:
        return
    card = run / "model" / "bundle.json"
    if card.exists():
        facts = json.loads(card.read_text())
        click.echo(format_shares(facts[training.WEIGHED]))
        click.echo(f"validation AP {facts['validation_ap']:.4f}, threshold {facts['threshold']:.3f}")
        click.echo(facts["audit"]["summary"])
    click.echo(f"run: {run}\njudge a picture: detect predict PHOTO --bundle {run}")


def _pair(text: str) -> tuple[str, Any]:
    """``head=nearest``, ``tower_size=224``: what JSON can read is no string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text!r} names no value", hint="write --option NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that is not taken."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
