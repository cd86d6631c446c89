"""``detect ensemble``."""

from __future__ import annotations

import json
from typing import Any

import click

from crossfake.cli import ManyValues
from crossfake.detect.settings import BUNDLE, EnsembleSettings
from crossfake.options import options


@click.command(cls=ManyValues)
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE)
@options(EnsembleSettings, without=("bundles",))
def ensemble(**options: Any) -> None:
    """Make one detector of several.

    Its weights are fitted on validation rows: of the folders that the members were trained with, or of those named.
    """
    from crossfake.detect.bundle.bundle import CARD
    from crossfake.detect.ensemble import make_ensemble
    from crossfake.detect.training.weighing import format_shares

    run = make_ensemble(EnsembleSettings(**options))
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
