"""``synth``: train generators, make fakes in bulk, measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, ManyValues, command_group, report_of, typed
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.options import options, taken
from crossfake.synth.settings import EvaluateSettings, GenerateSettings, ImportSettings
from crossfake.synth.training.settings import TrainSettings

synth = command_group("synth", "Train generators, make fakes in bulk, measure them.")


@synth.command(cls=ManyValues)
@options(TrainSettings)
@click.option("--dry-run", is_flag=True, help="Measure a few steps, print the plan, and stop.")
def train(resume: bool, dry_run: bool, **options: Any) -> None:
    """Train a generator on real images."""
    out = options.pop("out") or Path("runs") / options["family"]
    if resume:
        RUN.check(out)
    elif not options["data"]:
        raise UserError("there is nothing to train on", hint="name shards of real images with --data DIR")
    from crossfake.device import rank_world
    from crossfake.runs import Run
    from crossfake.synth.training import train as training
    from crossfake.synth.training.runs import resumed

    if resume:
        settings = resumed(out, **{k: v for k, v in options.items() if k in typed()})
    else:
        data = options.pop("data")
        settings = TrainSettings(data[0] if len(data) == 1 else data, out, **options)
    if dry_run:
        click.echo(training.dry_run(settings))
        return
    run = training.train(settings)
    if rank_world()[0] > 0 or not Run(run).finished:
        return
    click.echo(
        f"run: {run}\nsamples: {run / 'samples'}\n"
        f"report: {report_of(run)} (anew: crossfake experiment report {run})\n"
        f"more fakes: synth generate --model {run} {'--photos SHARDS' if settings.window else '--n 50000'}"
    )


@synth.command()
def families() -> None:
    """List the kinds of generators."""
    from crossfake.synth.families.base import FAMILIES

    for name in FAMILIES.names():
        click.echo(f"{name:<14}{FAMILIES.get(name).summary}")


@synth.command()
@options(GenerateSettings, without=("device", "precision", "threads"))
@options(
    EvaluateSettings, "real", real={"required": False, "help": "Measure them against these reals in the end."}
)
@options(GenerateSettings, "device", "precision", "threads")
@options(ExecutorSettings)
def generate(real: Path | None, **options: Any) -> None:
    """Make fakes in bulk, as shards."""
    import json

    from crossfake.device import rank_world
    from crossfake.synth.quality.earlier import result_file
    from crossfake.synth.quality.evaluate import evaluate
    from crossfake.synth.quality.sources import check_reals
    from crossfake.synth.quality.table import format_table
    from crossfake.synth.sampling.generation import DONE, generate

    where = taken(ExecutorSettings, options)
    if real is not None:
        check_reals(real)  # hours of work come first
    try:
        out = generate(GenerateSettings(**options), where=where)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("run the same command again and it goes on from there") from interrupt
    facts = json.loads((out / DONE).read_text()) if (out / DONE).exists() else {}
    if facts and facts["rank"] == rank_world()[0]:  # of several processes the last one speaks
        alone = facts["processes"] == 1 and facts["made"] and facts["seconds"]
        rate = f", {facts['made'] / facts['seconds']:.0f} images/s" if alone else ""
        click.echo(f"{facts['n']:,} fakes of {facts['generator']}{rate}\nshards: {out}")
        if real is not None:
            settings = EvaluateSettings(real, out, device=options["device"], precision=options["precision"])
            click.echo(
                f"{format_table(evaluate(settings, where))}\npage: {result_file(settings).with_suffix('.html')}"
            )


@synth.command(cls=ManyValues)
@options(EvaluateSettings, without=("batch",))
@options(ExecutorSettings)
def evaluate(**options: Any) -> None:
    """Measure fakes against reals: fidelity, variety, memorisation, detectability. Writes a page, too."""
    from crossfake.synth.quality.earlier import result_file
    from crossfake.synth.quality.evaluate import evaluate
    from crossfake.synth.quality.table import format_table

    where = taken(ExecutorSettings, options)
    settings = EvaluateSettings(**options)
    click.echo(format_table(evaluate(settings, where)))
    click.echo(f"page: {result_file(settings).with_suffix('.html')}")


@synth.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@options(ImportSettings, without=("source",))
def import_model(**options: Any) -> None:
    """Read a published generator, or images made elsewhere.

    SOURCE is a pickle of StyleGAN2-ADA or StyleGAN3, a .pt file of rosinality's, a diffusers
    pipeline (a folder, or a name on the Hugging Face hub), or a shard folder of fakes. Nothing in a file is run.
    """
    from crossfake.datasets.splits import NAMES
    from crossfake.synth.importing.importer import import_model
    from crossfake.synth.sampling.models import load_model

    settings = ImportSettings(**options)
    model = load_model(import_model(settings), device="cpu")
    n, side = 1000, ""
    if model.takes:  # no more than there are, of a split that there is
        pool: Any = model.network
        split = next(name for name in NAMES if len(pool.rows(name)))
        n, side = min(n, len(pool.rows(split))), "" if split == "train" else f" --split {split}"
    click.echo(
        f"{model.name}, {model.size}×{model.size}: {settings.out}\n"
        f"fakes: synth generate --n {n} --model {settings.out}{side}"
    )


from crossfake.synth import latent_cli  # noqa: E402, F401  (it registers its commands)
