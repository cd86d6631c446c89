"""``detect ensemble``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from crossfake.cli import SHARDS, ManyValues
from crossfake.detect.settings import BUNDLE, CalibrateSettings
from crossfake.options import options


@click.command(cls=ManyValues)
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE)
@click.option("--real", type=SHARDS, multiple=True, help="Shards of reals.  [default: those of the members]")
@click.option("--fake", type=SHARDS, multiple=True, help="Shards of fakes.  [default: those of the members]")
@click.option(
    "--method",
    type=click.Choice(["mean", "weighted", "stacked"]),
    default="weighted",
    help="All alike, weights that sum to 1, or logistic regression.",
)
@click.option("--force", is_flag=True, help="Go on where it cannot be known what a member was trained on.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/detect-ensemble"), help="Run folder."
)
@options(CalibrateSettings, "device")
def ensemble(
    bundles: tuple[Path, ...],
    real: tuple[Path, ...],
    fake: tuple[Path, ...],
    method: str,
    out: Path,
    **options: Any,
) -> None:
    """Make one detector of several.

    Its weights are fitted on validation rows: of the folders that the members were trained with, or of those named.
    """
    from crossfake.detect.bundle.bundle import CARD
    from crossfake.detect.ensemble import make_ensemble
    from crossfake.detect.training.weighing import format_shares

    run = make_ensemble(bundles, real, fake, out, method, **options)
    facts = json.loads((run / "model" / CARD).read_text())
    click.echo(format_shares(facts["validation_shares"]) + "\n")
    width = max(len(member["path"]) for member in facts["members"])
    for member in facts["members"]:
        click.echo(
            f"{member['path']:<{width}}  weight {member['weight']:7.3f}  AP {member['validation_ap']:.4f}"
        )
    click.echo(f"{'ensemble':<{width}}                  AP {facts['validation_ap']:.4f} on validation")
    for note in facts["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"run: {run}\nmeasure it on test data: detect evaluate --bundle {run} --data DIR")
