"""The whole loop on drawn faces: what ``make demo`` runs."""

from __future__ import annotations

import time
from pathlib import Path

import click

from crossfake.experiments.design.config import load
from crossfake.experiments.report.reporting import report
from crossfake.experiments.run.running import run
from crossfake.pages import duration

CONFIGS = Path(__file__).parent / "configs"
BEFORE = """\
crossfake demo: does training on one's own GAN fakes help a detector against a generator it never saw?
The faces are DRAWN by a program, not photos, so that nothing need be downloaded: this shows how the loop works,
and its numbers say nothing about photos. Folder: {out}"""
AFTER = """
All of this on your own photos of faces, in one command (hours on a CPU, less on a GPU):
  PHOTOS=/path/to/photos crossfake experiment run photos
"""


def demo(out: str | Path = "runs/demo", smoke: bool = False) -> Path:
    """Draw faces, train generators, make fakes, train detectors without and with them, and write the report.

    Interrupted, it goes on where it stopped when called again; finished, it only writes the report anew.

    Args:
        out: folder of the experiment.
        smoke: a version that takes seconds, to test that everything fits together.

    Returns:
        The HTML report.
    """
    started = time.monotonic()
    click.echo(BEFORE.format(out=out))
    folder = run(load(CONFIGS / ("smoke.yaml" if smoke else "demo.yaml")), out)
    page = report(folder)
    click.echo(
        AFTER + f"\nDone in {duration(time.monotonic() - started)}. Open the report:\n  {page.resolve()}"
    )
    return page
