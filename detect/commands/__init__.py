"""The sub-commands of ``detect``, one module each, and what they share."""

from __future__ import annotations

from pathlib import Path

import click

from crossfake.errors import UserError

FOLDER = click.Path(path_type=Path)
device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
precision = click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto")
scoring_precision = click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="fp32"
)  # thresholds are of float32
bundle_option = click.option(
    "--bundle", type=FOLDER, help="Run of 'detect train' or a bundle.  [default: the newest finished run]"
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
