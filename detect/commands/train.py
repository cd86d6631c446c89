"""``detect train``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, SHARDS, THERE, Existing, ManyValues, typed
from crossfake.detect.commands.options import FOLDER, device, precision, synthetic_defaults, view, window
from crossfake.errors import UserError

_GROUPS = {
    "Data": ("real", "fake", "balance", "force"),
    "Your own fakes": (
        "with_synthetic", "synthetic_ratio", "synthetic_schedule", "synthetic_per_generator", "synthetic_limit",
        "match_steps",
    ),
    "Network": ("model", "option", "pretrained", "weights", "tune", "layer_decay"),
    "Images": ("view", "window", "pair", "recipe", "augment", "benign", "mixup", "label_smoothing"),
    "Learning": ("loss", "steps", "batch", "lr", "ema", "eval_every", "patience", "seed"),
}  # fmt: skip


_MATCHED = Existing("config.yaml", wrong="holds no training to match", hint="name a run of 'detect train'")


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
@click.option("--real", type=SHARDS, multiple=True, help="Shards of reals; several may follow.")
@click.option("--fake", type=SHARDS, multiple=True, help="Shards of given fakes; several may follow.")
@click.option(
    "--with-synthetic", type=SHARDS, multiple=True, help="Your own fakes; alone: the newest generated."
)
@click.option(
    "--synthetic-ratio", type=float, default=0.5, help="Share of synthetic among the fakes of a batch."
)
@click.option(
    "--synthetic-schedule",
    type=click.Choice(["constant", "warmup", "curriculum"]),
    default="constant",
    help="warmup: the ratio rises from 0. curriculum: easily detected fakes come first.",
)
@click.option(
    "--synthetic-per-generator/--synthetic-per-image",
    default=True,
    help="Draw your generators equally often, or in proportion to their images.",
)
@click.option(
    "--synthetic-limit", type=click.IntRange(min=0), default=0, help="Train on so many of your fakes; 0: all."
)
@click.option(
    "--match-steps",
    type=_MATCHED,
    metavar="RUN",
    help="Control of RUN: its settings, its data without its synthetic fakes, and as many steps.",
)
@click.option(
    "--balance",
    type=click.Choice(["source", "none"]),
    default="source",
    help="Draw the sources and generators of a class equally often, or as many as there are.",
)
@click.option("--model", default="cnn", help="A detector's name, or any timm model: resnet18, vgg16, …")
@click.option(
    "--option", multiple=True, metavar="NAME=VALUE", help="An option of the model's own: head=nearest, say."
)
@click.option("--pretrained", is_flag=True, help="Start from published weights.")
@click.option("--weights", type=THERE, help="Start from this weight file.")
@click.option(
    "--tune",
    type=click.Choice(["scratch", "full", "probe", "gradual"]),
    help="What is trained: all; the head (probe); stage after stage (gradual).  "
    "[default: scratch, or full with weights]",
)
@click.option(
    "--layer-decay", type=float, default=1.0, help="Step size of a stage relative to the next: 0.75, say."
)
@view
@window
@click.option(
    "--pair", is_flag=True, help="Put each fake beside the real that it was made of, changed alike."
)
@click.option(
    "--recipe",
    type=click.Choice(
        [
            *("wang2020", "robust", "sbi", "plain"),
            *("native", "native-compression", "native-rescaling", "native-strong"),
        ]
    ),
    default="wang2020",
    help="What is done to the images. sbi makes its fakes from the reals; native… are for windows.",
)
@click.option("--augment", type=float, default=0.5, help="Probability of each of the recipe's changes.")
@click.option("--benign", is_flag=True, help="Retouch a quarter of the reals: such photos are no fakes.")
@click.option("--mixup", type=float, default=0.0, help="Alpha of mixup: 0.2, say.")
@click.option(
    "--loss",
    type=click.Choice(["bce", "contrastive"]),
    default="bce",
    help="contrastive: also draw the features of a class together.",
)
@click.option("--label-smoothing", type=float, default=0.0, help="Take so much certainty from the labels.")
@click.option("--steps", type=int, default=1500, help="Optimiser steps at most.")
@click.option("--batch", type=int, default=64, help="Images per step, half of them real.")
@click.option("--lr", type=float, default=1e-3, help="AdamW's largest step size.")
@click.option("--ema", type=float, default=0.0, help="Average the weights with this decay: 0.999, say.")
@click.option("--eval-every", type=int, default=100, help="Steps between validations.")
@click.option("--patience", type=int, default=5, help="Validations without a better AP before stopping.")
@click.option("--seed", type=int, default=0)
@click.option("--out", type=FOLDER, help="Run folder.  [default: runs/detect-MODEL]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, with its settings.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, how fast and how long.")
@click.option(
    "--force", is_flag=True, help="Train although crops differ, or what a generator learned from is unknown."
)
@device
@precision
def train(
    resume: bool, dry_run: bool, with_synthetic: tuple[Path, ...], option: tuple[str, ...], **options: Any
) -> None:
    """Train a detector on reals and fakes."""
    if resume and options["out"] is not None:
        RUN.check(options["out"])
    from crossfake.detect.training import loop
    from crossfake.detect.training.settings import MATCHED, TrainSettings
    from crossfake.detect.training.weighing import format_shares
    from crossfake.device import rank_world
    from crossfake.runs import Run

    options["options"] = dict(map(_pair, option))
    chosen = {name: options[name] for name in typed() & set(options)}
    chosen |= {"options": options["options"]} if option else {}
    if resume:
        if options["out"] is None:
            raise UserError("which run is to be resumed?", mend="name it with --out")
        if with_synthetic:
            raise UserError(
                "--resume goes on with the fakes that the run has", mend="leave --with-synthetic out"
            )
        settings = TrainSettings.resumed(options["out"], **{k: v for k, v in chosen.items() if k != "out"})
    elif options["match_steps"] is not None:
        if taken := sorted(set(chosen) & set(MATCHED)):
            raise UserError(
                f"--match-steps takes {taken[0]} from the run that it matches",
                mend=f"leave --{taken[0].replace('_', '-')} out",
            )
        run = chosen.pop("match_steps")
        _, synthetic = synthetic_defaults((run,), with_synthetic)
        chosen["out"] = options["out"] or _free(run.with_name(f"{run.name}-control"))
        settings = TrainSettings.matched(run, **chosen, synthetic=synthetic)
    else:
        options["real"], synthetic = synthetic_defaults(options["real"], with_synthetic)
        options["out"] = options["out"] or _free(Path("runs") / f"detect-{options['model']}")
        settings = TrainSettings(synthetic=synthetic, **options)
    if dry_run:
        click.echo(loop.dry_run(settings))
        return
    run = loop.train(settings)
    if rank_world()[0] > 0 or not Run(run).finished:
        return
    card = run / "model" / "bundle.json"
    if card.exists():
        facts = json.loads(card.read_text())
        click.echo(format_shares(facts[loop.WEIGHED]))
        click.echo(f"validation AP {facts['validation_ap']:.4f}, threshold {facts['threshold']:.3f}")
        click.echo(facts["audit"]["summary"])
    click.echo(f"run: {run}\njudge a picture: detect predict PHOTO --bundle {run}")


def _pair(text: str) -> tuple[str, Any]:
    """``head=nearest``, ``tower_size=224``: what JSON can read is no string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text!r} names no value", mend="write --option NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that is not taken."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
