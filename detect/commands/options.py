"""What the commands of ``detect`` take when nothing is named."""

from __future__ import annotations

from pathlib import Path

import click

from crossfake.cli import NEWEST
from crossfake.errors import UserError


def newest_bundle() -> Path:
    """The newest finished run below ``runs/``; says on standard error that it is taken.

    Raises:
        UserError: there is none.
    """
    from crossfake.runs import newest_run

    run = newest_run("detect")
    if run is None:
        raise UserError(
            "there is no trained detector under runs/", hint="train one, or name one with --bundle"
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
            hint="make some with 'synth train --data DIR' and 'synth generate --n 50000', or try 'crossfake demo'",
        )
    click.echo(f"--with-synthetic: taking the newest generated fakes, {newest}")
    if not real:
        run = Run(newest.parent)
        if not run.config_file.exists() or "data" not in run.config:
            raise UserError(f"the reals behind {newest} are not known", hint="name reals with --real DIR")
        data = run.config["data"]
        real = (Path(data),) if isinstance(data, str) else tuple(map(Path, data))
        named = " and ".join(map(str, real))
        click.echo(f"no --real given: taking the reals that its generator was trained on, {named}")
    return real, tuple(newest if str(folder) == NEWEST else folder for folder in synthetic)
