"""``detect import``."""

from __future__ import annotations

from pathlib import Path

import click

from crossfake.cli import THERE
from crossfake.detect.settings import ImportSettings
from crossfake.errors import UserError
from crossfake.options import options


@click.command("import")
@click.argument("source", required=False, type=THERE)
@options(ImportSettings, without=("source",), name={"required": False}, out={"required": False})
@click.option("--list", "listed", is_flag=True, help="Say what can be read, and what each of them looks at.")
def import_detector(
    source: Path | None,
    name: str | None,
    out: Path | None,
    backbone: Path | None,
    table: Path | None,
    listed: bool,
) -> None:
    """Read a published detector into a bundle.

    SOURCE is the authors' file: what torch.save wrote, safetensors, or Keras's .h5. Nothing in it is run.
    """
    from crossfake.detect.importing.table import listing, load_table

    if listed:
        click.echo(listing(load_table(table)))
        return
    if source is None or name is None or out is None:
        raise UserError(
            "a file, its name and a folder are needed",
            hint="give FILE --as NAME --out models/NAME, or --list to see the names",
        )
    from crossfake.detect.bundle.bundle import load
    from crossfake.detect.importing.importer import import_detector

    detector = load(import_detector(source, name, out, table, backbone), device="cpu")
    facts = detector.card["published"]
    for key in ("paper", "licence", "looks at", "trained on"):
        click.echo(f"{key}: {facts[key]}")
    click.echo(f"{detector.card['model']}: {out}\njudge pictures: detect predict --bundle {out} PICTURE")
