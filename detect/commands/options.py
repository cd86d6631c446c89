"""The sub-commands of ``detect``, one module each, and what they share."""

from __future__ import annotations

from pathlib import Path

import click

from crossfake.cli import NEWEST, Existing
from crossfake.errors import UserError

FOLDER = click.Path(path_type=Path)
BUNDLE = Existing(
    "bundle.json",
    "model/bundle.json",
    wrong="holds no detector",
    hint="name a run of 'detect train' or a bundle folder",
)
device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
precision = click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto")
scoring_precision = click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="fp32"
)  # thresholds are of float32
view = click.option(
    "--view",
    type=click.Choice(["aligned", "native"]),
    default="aligned",
    help="See images resampled to one size, or windows of native ones.",
)
window = click.option("--window", type=int, default=128, help="Side of a native view's windows.")
bundle_option = click.option(
    "--bundle", type=BUNDLE, help="Run of 'detect train' or a bundle.  [default: the newest finished run]"
)


def newest_bundle() -> Path:
    from crossfake.runs import newest_run

    run = newest_run("detect")
    if run is None:
        raise UserError(
            "there is no trained detector under runs/", mend="train one, or name one with --bundle"
        )
    click.echo(f"no --bundle given: taking the newest finished run, {run}", err=True)
    return run


def synthetic_defaults(
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
        data = run.config["data"]
        real = (Path(data),) if isinstance(data, str) else tuple(map(Path, data))
        named = " and ".join(map(str, real))
        click.echo(f"no --real given: taking the reals that its generator was trained on, {named}")
    return real, tuple(newest if str(folder) == NEWEST else folder for folder in synthetic)
