"""``detect calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import ManyValues
from crossfake.detect.commands.options import newest_bundle
from crossfake.detect.settings import CalibrateSettings
from crossfake.options import options


@click.command(cls=ManyValues)
@options(CalibrateSettings)
def calibrate(bundle: Path | None, coverage: float, novelty: Any, **options: Any) -> None:
    """Make a detector's scores probabilities, and let it abstain.

    Only validation rows are used: those of its training, each kind of image counting as in training batches.
    Name folders where they were moved. The old card stays beside the new one as bundle.json.before.
    """
    from crossfake.detect.bundle.novelty import noticed_words
    from crossfake.detect.calibrate import BEFORE, calibrate, format_table
    from crossfake.detect.training.weighing import format_shares

    settings = CalibrateSettings(
        bundle=bundle or newest_bundle(),
        coverage=coverage or None,
        novelty=None if novelty == "none" else novelty,
        **options,
    )
    result = calibrate(settings)
    reals, fakes = result["images"]
    click.echo(format_shares(result["card"]["validation_shares"]) + "\n")
    click.echo(format_table(result))
    click.echo(
        f"\n{reals:,} reals and {fakes:,} fakes of the validation set in {result['groups']:,} groups; temperature, "
        "beta and isotonic by cross-validation over groups; 95% intervals by bootstrap over groups"
    )
    prior = result["card"]["calibration"]["prior"]
    click.echo(f"chosen: {result['chosen']}; threshold {result['card']['threshold']:.3f}")
    click.echo(f"probabilities hold where {prior:.1%} of the images are fake (--prior)")
    if settings.coverage:
        real, fake = result["abstains"]
        click.echo(
            f"coverage {settings.coverage:.0%}: abstains on {real:.1%} of the reals and {fake:.1%} of the fakes"
        )
    if settings.novelty:
        click.echo(
            f"novelty {settings.novelty}: out of distribution beyond {settings.quantile:.1%} of validation"
        )
        click.echo(noticed_words(result["card"]["novelty"]))
    for note in result["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"bundle: {result['bundle']} (the old card: {BEFORE})")
