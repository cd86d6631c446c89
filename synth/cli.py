"""``synth``: train generators, make fakes in bulk, measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import RUN, SHARDS, THERE, Existing, ManyValues, command_group, report_of, typed
from crossfake.errors import UserError

synth = command_group("synth", "Train generators, make fakes in bulk, measure them.")

MODEL = Existing(
    "model.json",
    "model/model.json",
    wrong="holds no generator",
    hint="name a run of 'synth train' or a model folder",
)


class _Maker(Existing):
    """A model, or what the family ``reconstruct`` takes instead: any folder, or a name on the hub."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if ctx is not None and ctx.params.get("family") == "reconstruct":
            return Path(value)
        return super().convert(value, param, ctx)


MAKER = _Maker(*MODEL.holds, wrong=MODEL.wrong, hint=MODEL.hint)
_IMAGES = Existing(hint="name shards, a folder of pictures, or a model")
_PRECISION = click.Choice(["auto", "bf16", "fp32"])
_device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
_precision = click.option(
    "--precision", type=_PRECISION, default="auto", help="auto: bf16 where it is quick."
)


@synth.command(cls=ManyValues)
@click.option(
    "--data", type=SHARDS, multiple=True, help="Shards of real images, from 'crossfake data prepare'."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/FAMILY]")
@click.option("--family", default="stylegan2", help="Kind of generator: 'synth families' lists them.")
@click.option("--kimg", type=float, default=200.0, help="Length in thousands of images.")
@click.option("--minutes", type=float, help="Stop after so many minutes if that comes first.")
@click.option("--split", default="train", hidden=True)
@click.option(
    "--condition", default="", show_default=False, help="Column whose values are classes, such as source."
)
@click.option("--batch", type=int, default=0, help="Images per step; 0 chooses.")
@click.option("--channels", type=int, default=0, help="Width of the networks; 0 chooses.")
@click.option("--gamma", type=float, help="Weight of the gradient penalty.  [default: the family's]")
@click.option("--lr", type=float, help="Adam's step size.  [default: the family's]")
@click.option("--path-weight", type=float, help="Of path-length regularisation.  [default: the family's]")
@click.option("--mixing", type=float, help="Share of images made of two styles.  [default: the family's]")
@click.option(
    "--noise/--no-noise",
    default=None,
    help="Whether the layers of a style generator get noise.  [default: the family's]",
)
@click.option(
    "--augment",
    type=click.Choice(["none", "ada", "ada-all", "diffaugment"]),
    default="none",
    help="What is done to images before the discriminator sees them.",
)
@click.option(
    "--window", type=int, default=0, help="Side of windows of native photos to learn from; 0 is whole images."
)
@click.option(
    "--upsample",
    type=click.Choice(["nearest", "transposed", "pixelshuffle", "bilinear"]),
    help="How a decoder of windows enlarges.  [default: nearest]",
)
@click.option("--adversarial", type=float, default=0.0, help="Weight of a discriminator of patches.")
@click.option("--init", type=MODEL, help="Run or model to start from.")
@click.option("--freeze", type=int, default=0, help="Parts of the discriminator that keep its weights.")
@click.option("--watch", type=int, default=0, help="Images whose quality is measured at every snapshot.")
@click.option(
    "--snapshot-kimg", type=float, default=10.0, help="Distance between checkpoints and sample sheets."
)
@click.option("--seed", type=int, default=0)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out, with its settings.")
@click.option("--dry-run", is_flag=True, help="Measure a few steps, print the plan, and stop.")
@_device
@_precision
def train(resume: bool, dry_run: bool, **options: Any) -> None:
    """Train a generator on real images."""
    out = options.pop("out") or Path("runs") / options["family"]
    if resume:
        RUN.check(out)
    elif not options["data"]:
        raise UserError("there is nothing to train on", mend="name shards of real images with --data DIR")
    from crossfake.device import rank_world
    from crossfake.runs import Run
    from crossfake.synth.training import loop
    from crossfake.synth.training.settings import TrainSettings

    if resume:
        settings = TrainSettings.resumed(out, **{k: v for k, v in options.items() if k in typed()})
    else:
        data, upsample = options.pop("data"), options.pop("upsample") or ""
        settings = TrainSettings(data[0] if len(data) == 1 else data, out, upsample=upsample, **options)
    if dry_run:
        click.echo(loop.dry_run(settings))
        return
    run = loop.train(settings)
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
@click.option(
    "--n",
    type=int,
    default=0,
    show_default=False,
    help="Number of images.  [default: one of each of --photos]",
)
@click.option(
    "--model",
    type=MAKER,
    help="Run or model folder; for --family reconstruct an autoencoder.  [default: the newest finished run]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Shard folder.  [default: inside the run]")
@click.option(
    "--trunc",
    type=float,
    default=1.0,
    help="Truncation psi; less than 1 trades variety for fewer odd images.",
)
@click.option("--seed", type=int, default=0)
@click.option("--split", help="What the rows' split column says.  [default: train; without --n the photos']")
@click.option(
    "--family",
    default="",
    is_eager=True,
    show_default=False,
    help="One to train nothing for: blend, swap or reconstruct.",
)
@click.option("--photos", type=SHARDS, help="Shards of reals, for a model that edits them.")
@click.option(
    "--match-spectrum",
    is_flag=True,
    help="Filter each fake to its photo's power spectrum: as sharp as it, other traces stay.",
)
@click.option("--label", type=int, help="Number of the class.  [default: all in turn]")
@click.option("--compile", is_flag=True, help="Translate the network first: pays from some 10,000 images on.")
@click.option("--real", type=_IMAGES, help="Measure them against these reals in the end.")
@_device
@_precision
def generate(real: Path | None, **options: Any) -> None:
    """Make fakes in bulk, as shards."""
    import json

    from crossfake.device import rank_world
    from crossfake.synth.quality.evaluate import (
        EvaluateSettings,
        evaluate,
    )
    from crossfake.synth.quality.sources import check_reals
    from crossfake.synth.quality.table import format_table
    from crossfake.synth.sampling.generation import DONE, GenerateSettings, generate

    if real is not None:
        check_reals(real)  # hours of work come first
    try:
        out = generate(GenerateSettings(**options))
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("run the same command again and it goes on from there") from interrupt
    facts = json.loads((out / DONE).read_text()) if (out / DONE).exists() else {}
    if facts and facts["rank"] == rank_world()[0]:  # of several processes the last one speaks
        alone = facts["processes"] == 1 and facts["made"] and facts["seconds"]
        rate = f", {facts['made'] / facts['seconds']:.0f} images/s" if alone else ""
        click.echo(f"{facts['n']:,} fakes of {facts['generator']}{rate}\nshards: {out}")
        if real is not None:
            settings = EvaluateSettings(real, out, device=options["device"], precision=options["precision"])
            click.echo(f"{format_table(evaluate(settings))}\npage: {settings.file.with_suffix('.html')}")


@synth.command(cls=ManyValues)
@click.option("--real", type=_IMAGES, required=True, help="Shards or pictures of reals.")
@click.option("--fake", type=_IMAGES, required=True, help="Shards or pictures of fakes, or a run.")
@click.option(
    "--dims",
    type=click.Choice(["2048", "768", "192", "64"]),
    default="2048",
    help="FID features; papers': 2048.",
)
@click.option("--inception", type=THERE, help="The FID network's file.")
@click.option(
    "--resize",
    type=click.Choice(["torch", "tf", "clean"]),
    help="[default: torch; clean for --features]",
)
@click.option("--features", multiple=True, help="One more network to compare by: timm:NAME.")
@click.option("--weights", type=THERE, multiple=True, help="The file of --features.")
@click.option(
    "--lpips-net", type=click.Choice(["alex", "vgg", "squeeze"]), default="alex", help="LPIPS network."
)
@click.option("--lpips-weights", type=THERE, help="torchvision's weights of that network.")
@click.option(
    "--metrics", default="all", help="Some of fid,fd,kid,prdc,lpips,memory,swd,spectrum,detectability."
)
@click.option("--real-split", help="Only reals of this split, or all.  [default: all but test]")
@click.option("--limit", type=int, help="At most so many images from each side.")
@click.option("--baseline", is_flag=True, help="Also compare one half of the reals with the other.")
@click.option("--trunc", type=float, default=1.0, help="Truncation psi of a run's images.")
@click.option("--sweep", default="", show_default=False, help="Truncations for a curve, such as 0.5,0.7,1.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Result file.  [default: quality.json beside the fakes]"
)
@click.option("--seed", type=int, default=0)
@_device
@_precision
def evaluate(dims: str, metrics: str, sweep: str, resize: str | None, **options: Any) -> None:
    """Measure fakes against reals: fidelity, variety, memorisation, detectability. Writes a page, too."""
    from crossfake.synth.quality.evaluate import (
        METRICS,
        EvaluateSettings,
        evaluate,
    )
    from crossfake.synth.quality.table import format_table
    from crossfake.synth.sampling.latents import parse_psis

    names = (
        METRICS if metrics == "all" else tuple(name.strip() for name in metrics.split(",") if name.strip())
    )
    psis = tuple(parse_psis(sweep)) if sweep else ()
    settings = EvaluateSettings(dims=int(dims), metrics=names, sweep=psis, resize=resize or "", **options)
    click.echo(format_table(evaluate(settings)))
    click.echo(f"page: {settings.file.with_suffix('.html')}")


@synth.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Model folder to write.")
@click.option("--name", default="", show_default=False, help="What rows call the generator.")
@click.option("--license", default="", show_default=False, help="For the card.")
@click.option("--url", default="", show_default=False, help="For the card: where it is from.")
@click.option("--prompt", default="", show_default=False, help="Of a pipeline that takes one.")
@click.option("--size", type=click.IntRange(8, 4096), default=64, help="Of a pipeline's images.")
def import_model(source: Path, out: Path, size: int, **facts: str) -> None:
    """Read a published generator, or images made elsewhere.

    SOURCE is a pickle of StyleGAN2-ADA or StyleGAN3 (StyleGAN2's networks), a .pt file of rosinality's, a diffusers
    pipeline (a folder, or a name on the Hugging Face hub), or a shard folder of fakes. Nothing in a file is run.
    """
    from crossfake.datasets.splits import NAMES
    from crossfake.synth.importing.importer import import_model
    from crossfake.synth.sampling.models import load_model

    model = load_model(import_model(source, out, facts, size), device="cpu")
    n, side = 1000, ""
    if model.takes:  # no more than there are, of a split that there is
        pool: Any = model.network
        split = next(name for name in NAMES if len(pool.rows(name)))
        n, side = min(n, len(pool.rows(split))), "" if split == "train" else f" --split {split}"
    click.echo(
        f"{model.name}, {model.size}×{model.size}: {out}\nfakes: synth generate --n {n} --model {out}{side}"
    )


from crossfake.synth import latent_cli  # noqa: E402, F401  (it registers its commands)
