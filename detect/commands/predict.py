"""``detect predict``."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from crossfake.cli import THERE
from crossfake.detect.commands.options import newest_bundle
from crossfake.detect.settings import EvaluateSettings, LoadSettings, PredictSettings
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.options import options, taken

_Judged = TypeVar("_Judged")


@click.command()
@click.argument("paths", nargs=-1, required=True)
@options(
    EvaluateSettings,
    "bundle",
    bundle={
        "multiple": True,
        "help": "Run of 'detect train' or a bundle; repeated, several side by side.  "
        "[default: the newest finished run]",
    },
)
@options(PredictSettings, "faces", "prior")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), help="Write a CSV file too, a row per face."
)
@options(PredictSettings, "metadata", "trust", "annotate", "frames")
@options(LoadSettings, "windows")
@options(PredictSettings, "allow_urls")
@options(LoadSettings, "face_model", "backend")
@options(PredictSettings, "workers", workers={"default": 0})
@options(LoadSettings, "device", "precision")
@options(ExecutorSettings)
def predict(
    paths: tuple[str, ...],
    bundle: tuple[Path, ...],
    as_json: bool,
    csv_file: Path | None,
    **options: Any,
) -> None:
    """Judge images and videos: files, folders, zip archives, patterns, and for '-' a list on stdin.

    A line per face: real, fake or uncertain, the probability of fake with its interval, and what makes the picture
    hard to judge. A detector that was not tested on strangers' pictures ('detect evaluate') gives no reliable answer
    and no number. A file is as bad as its worst face. Where a file itself names a generator, a line before says so.
    What cannot be judged is listed with the reason; the exit code is 2 when that is all of it. The keys of --json are
    described in crossfake.detect.prediction.output. With several bundles the table says which of them looked at what.
    """
    for name in paths:
        if name != "-" and "://" not in name and not glob.has_magic(name):
            THERE.check(Path(name))
    from crossfake.detect.bundle.bundle import load
    from crossfake.detect.prediction import several
    from crossfake.detect.prediction.output import Summary, write_json, write_table, writing_csv
    from crossfake.detect.prediction.predict import plan
    from crossfake.detect.prediction.predict import predict as judge

    where = taken(ExecutorSettings, options)
    opened = taken(LoadSettings, options)
    settings = PredictSettings(**options)
    faces, annotate = settings.faces, settings.annotate
    bundles = bundle or (newest_bundle(),)
    if where.is_ray and len(bundles) > 1:
        raise UserError("Ray's workers judge with one detector", hint="give one --bundle")
    # with Ray this machine only says how pictures are cut
    how = asdict(opened) | ({"device": "auto"} if where.is_ray else {})
    detectors = [load(each, **how) for each in bundles]
    if len(bundles) > 1:
        named = several.name_detectors(bundles, detectors, faces)
        counts = several.Counts(named)
        judged = _with_bar(counts.counting(several.judge(paths, named, settings)))
        judged = several.writing_csv(judged, csv_file) if csv_file else judged
        if as_json:
            several.write_json(judged, named, counts, sys.stdout)
        else:
            several.write_table(judged, named, counts, click.echo)
        if annotate:
            click.echo(f"annotated copies, a folder for each detector: {annotate}", err=True)
        _check_judged(counts.judged)
        return
    detector = detectors[0]
    for theirs in detector.published:
        click.echo(
            f"note: {theirs['name']} was trained elsewhere; it looks at {theirs['looks at']}", err=True
        )
    if note := plan(detector, faces).note:
        click.echo(f"note: {note}", err=True)
    summary = Summary()
    predictions = summary.counting(judge(paths, detector, settings, where, opened.device))
    if csv_file:
        predictions = writing_csv(predictions, csv_file)
    if not sys.stdout.isatty():  # where the table runs by, it shows the progress itself
        predictions = _with_bar(predictions)
    if as_json:
        write_json(predictions, sys.stdout, detector, note)
        click.echo(summary.line("listed in the document"), err=True)
    else:
        write_table(predictions, click.echo, detector.fitness.basis())
    if annotate:
        click.echo(f"annotated copies: {annotate}", err=True)
    _check_judged(summary.judged)


def _check_judged(count: int) -> None:
    if not count:
        raise UserError("nothing could be judged", hint="the reasons are listed above")


def _with_bar(predictions: Iterator[_Judged]) -> Iterator[_Judged]:
    from crossfake.progress import tqdm

    with tqdm(desc="predict", unit="file", delay=1) as bar:
        for prediction in predictions:
            yield prediction
            bar.update()
