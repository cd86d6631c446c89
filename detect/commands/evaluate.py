"""``detect evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import ManyValues
from crossfake.detect.commands.options import newest_bundle
from crossfake.detect.settings import EvaluateSettings
from crossfake.executor import ExecutorSettings
from crossfake.options import options, taken
from crossfake.pages import plural


@click.command(cls=ManyValues)
@options(EvaluateSettings)
@options(ExecutorSettings)
def evaluate(bundle: Path | None, **options: Any) -> None:
    """Measure a detector on test data.

    What it does on sources and generators that it did not learn from is written into its bundle: without such a test
    on reals and on fakes, 'detect predict' and the page give no answer. Name both in --data.
    """
    from crossfake.detect.evaluation.benign import format_benign
    from crossfake.detect.evaluation.evaluate import evaluate
    from crossfake.detect.evaluation.table import format_table, worst_lines

    where = taken(ExecutorSettings, options)
    result = evaluate(EvaluateSettings(bundle or newest_bundle(), **options), where)
    click.echo(format_table(result))
    overall = result["overall"]
    kind = (
        "95% intervals by bootstrap over groups, all of them on the page"
        if result["bootstrap"]
        else "no intervals"
    )
    images = plural(overall["n_real"] + overall["n_fake"], "image")
    click.echo(f"\nn = {images} in {plural(overall['n_groups'], 'group')}; {kind}")
    if overall["ap_chance"] is not None:
        click.echo(f"chance: AUC 0.5, AP {overall['ap_chance']:.3f} (the share of fakes)")
    click.echo(f"threshold {result['threshold']:.3f}, {result['threshold_from']}")
    if overall["oracle_accuracy"] is not None:
        click.echo(
            f"accuracy {overall['accuracy']:.3f} there, {overall['accuracy_at_half']:.3f} at 0.5; the oracle's, "
            f"chosen on these very images, {overall['oracle_accuracy']:.3f} at {overall['oracle_threshold']:.3f}"
        )
    for line in worst_lines(result):
        click.echo(line)
    if result["benign"]:
        click.echo(format_benign(result["benign"]))
    for line in result["fitness"]["lines"]:
        click.echo(line)
    for note in result["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"results: {result['out']}, start with evaluation.html")
