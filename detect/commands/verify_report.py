"""``detect verify-report``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crossfake.cli import THERE
from crossfake.detect.commands import FOLDER


@click.command("verify-report")
@click.argument("file", type=FOLDER)
@click.option("--public-key", type=THERE, help="The sender's .pub.  [default: your own]")
def verify_report(file: Path, public_key: Path | None) -> None:
    """Say whether a report is as it was signed, and by whom.

    The exit code is 0 for a valid report of a known signer, and 1 for one that was changed or whose signer is not
    known. Anyone can sign with a key of their own: compare the fingerprint with one that the sender told you.
    """
    from crossfake.detect.app.reports import verify_report as verify
    from crossfake.detect.prediction.output import printable

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
