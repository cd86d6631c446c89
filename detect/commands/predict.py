"""``detect predict``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click

from crossfake.detect.commands import FOLDER, bundle_option, device, newest_bundle, precision
from crossfake.errors import UserError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=FOLDER)
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "csv_file", type=FOLDER, help="Write a CSV file too.")
@click.option("--frames", type=click.IntRange(min=1), default=32, help="Of each video, evenly spread.")
@click.option("--face-model", type=FOLDER, help="YuNet's ONNX file.")
@device
@precision
def predict(
    paths: tuple[Path, ...],
    bundle: Path | None,
    as_json: bool,
    csv_file: Path | None,
    frames: int,
    face_model: Path | None,
    **options: Any,
) -> None:
    """Judge images and videos, or all of them in folders."""
    from crossfake.detect.bundle import load
    from crossfake.detect.prediction import predict

    detector = load(bundle or newest_bundle(), face_model=face_model, **options)
    predictions = predict(paths, detector, frames)
    if csv_file:
        try:
            with open(csv_file, "w", newline="", errors="surrogateescape") as file:
                table = csv.DictWriter(file, ["path", "score", "verdict", "reason"], extrasaction="ignore")
                table.writeheader()
                table.writerows(vars(prediction) for prediction in predictions)
        except OSError as error:
            raise UserError(
                f"cannot write {csv_file} ({error.strerror})", mend="name another --csv"
            ) from error
    if as_json:
        click.echo(json.dumps([vars(prediction) for prediction in predictions], indent=2))
        return
    width = max(len(prediction.path) for prediction in predictions)
    for p in predictions:
        click.echo(
            f"{p.path:<{width}}  {'-' if p.score is None else f'{p.score:.3f}':>5}  {p.verdict}  {p.reason}".rstrip()
        )
    click.echo(f"\nscore: probability of fake; fake from {detector.threshold:.3f} on. It is not proof.")
