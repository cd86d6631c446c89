"""``detect export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crossfake.cli import ManyValues
from crossfake.detect.commands.options import newest_bundle
from crossfake.detect.settings import ExportSettings
from crossfake.options import options


@click.command(cls=ManyValues)
@options(ExportSettings)
def export(bundle: Path | None, **options: Any) -> None:
    """Write a detector as one file for other programs.

    Images go in as they are, uint8 [N, size, size, 3], cropped as for training; logit, features and calibrated
    probability come out. A detector of native pixels takes windows; a script beside its ONNX file cuts them, averages
    and calibrates. The file is compared with the original and only kept if they agree.
    """
    from crossfake.detect.bundle.export import TOLERANCE, export

    result = export(ExportSettings(bundle or newest_bundle(), **options))
    click.echo(
        f"logits agree to {result['deviation']:.1e} (at most {TOLERANCE:g}) on {result['checked']} {result['on']}"
    )
    if "ap_int8" in result:
        lost = result["ap"] - result["ap_int8"]
        click.echo(
            f"int8: AP {result['ap_int8']:.4f}, {lost:+.4f} lost of {result['ap']:.4f} on {result['measured']:,} "
            f"images; scores move by up to {result['score_deviation']:.3f}"
        )
    click.echo(f"{result['out']}: {result['bytes'] / 1e6:.1f} MB")
    if "driver" in result:
        click.echo(f"score cut-out faces: python {result['driver']} FACE.png")
