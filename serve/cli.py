"""``detect serve`` and ``detect verify-report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from crossfake.cli import THERE, ManyValues
from crossfake.errors import UserError
from crossfake.options import options
from crossfake.serve.settings import ServeSettings


@click.command(cls=ManyValues)
@options(ServeSettings, without=("page", "limits"))
@click.option("--no-page", is_flag=True, help="The API alone.")
def serve(bundles: tuple[Path, ...], no_page: bool, **chosen: Any) -> None:
    """Serve a page where anyone can analyse a picture or a video, and an API beside it.

    Uploads stay in a private folder until they are answered. See docs/api.md for the API, docs/page.md for the page.
    """
    from crossfake.serve.server import serve as run

    chosen["page"] = not no_page
    ServeSettings(bundles or (Path(),), **chosen)  # a wrong option is said before a bundle is looked for
    run(ServeSettings(bundles or _default_set(chosen["models"]), **chosen), click.echo)


def _default_set(models: Path) -> tuple[Path, ...]:
    """The newest finished run, and every bundle of a folder: detectors that look at different things."""
    from crossfake.runs import newest_run

    run = newest_run("detect")
    found = (*([run] if run else []), *sorted(file.parent for file in models.glob("*/bundle.json")))
    if not found:
        raise UserError(
            f"there is no trained detector under runs/ and no bundle in {models}",
            hint="train one, import one with 'detect import', or name one with --bundle",
        )
    click.echo(f"no --bundle given: taking {', '.join(map(str, found))}", err=True)
    return found


@click.command("verify-report")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public-key", type=THERE, help="The sender's .pub.  [default: your own]")
def verify_report(file: Path, public_key: Path | None) -> None:
    """Say whether a report is as it was signed, and by whom.

    The exit code is 0 for a valid report of a known signer, and 1 for one that was changed or whose signer is not
    known. Anyone can sign with a key of their own: compare the fingerprint with one that the sender told you.
    """
    from crossfake.detect.prediction.output import printable
    from crossfake.serve.reports.writing import verify_report as verify

    found = verify(file, public_key)
    colour = {"valid": "green", "changed": "red"}.get(found.status, "yellow")
    click.echo(f"{click.style(found.status, fg=colour, bold=True)}: {found.problem or 'as it was signed'}")
    if found.signer:
        click.echo(f"signer:   {found.signer}")
    if found.status != "changed":
        # anyone can sign anything: nothing in it may be missing, or steer the terminal
        said = found.payload.get("analysis")
        name, sha256, verdict, when, version = (
            printable(str(said.get(key, "–")) if isinstance(said, dict) else "–")
            for key in ("name", "sha256", "verdict", "when", "version")
        )
        click.echo(f"file:     {name}, sha256 {sha256}")
        click.echo(f"verdict:  {verdict}, {when}, crossfake {version}")
    if found.status == "unknown signer":
        click.echo(
            "Compare the fingerprint with one that the sender told you, or name their key with --public-key."
        )
    sys.exit(not found.valid)
