"""``detect``: train detectors, evaluate them, judge pictures."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import click

from crossfake.cli import NEWEST, ManyValues, command_group, typed
from crossfake.errors import UserError

detect = command_group("detect", "Train detectors, evaluate them, judge pictures.")

_FOLDER = click.Path(path_type=Path)
_device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
_precision = click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto")


@detect.command(cls=ManyValues)
@click.option("--real", type=_FOLDER, multiple=True, help="Shards of reals; several may follow.")
@click.option("--fake", type=_FOLDER, multiple=True, help="Shards of given fakes; several may follow.")
@click.option(
    "--with-synthetic", type=_FOLDER, multiple=True, help="Your own fakes; alone: the newest generated."
)
@click.option("--model", default="cnn", help="cnn, or any timm model: resnet18, vgg16, densenet121, …")
@click.option("--pretrained", is_flag=True, help="Start from timm's published weights.")
@click.option("--weights", type=_FOLDER, help="Start from this weight file.")
@click.option("--out", type=_FOLDER, help="Run folder.  [default: runs/detect-MODEL]")
@click.option("--steps", type=int, default=1500, help="Optimiser steps at most.")
@click.option("--batch", type=int, default=64, help="Images per step, half of them real.")
@click.option("--lr", type=float, default=1e-3, help="AdamW's largest step size.")
@click.option("--augment", type=float, default=0.5, help="Probability of blur and of JPEG.")
@click.option(
    "--synthetic-ratio", type=float, default=0.5, help="Share of synthetic among the fakes of a batch."
)
@click.option("--patience", type=int, default=5, help="Validations without a better AP before stopping.")
@click.option("--seed", type=int, default=0)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, with its settings.")
@click.option("--force", is_flag=True, help="Train although the folders were cropped differently.")
@_device
@_precision
def train(resume: bool, with_synthetic: tuple[Path, ...], **options: Any) -> None:
    """Train a detector on reals and fakes."""
    from crossfake.detect.training import TrainSettings, train

    if resume:
        if options["out"] is None:
            raise UserError("which run is to be resumed?", mend="name it with --out")
        names = typed() & set(options) - {"out"}
        settings = TrainSettings.resumed(options["out"], **{name: options[name] for name in names})
    else:
        options["real"], synthetic = _defaults(options["real"], with_synthetic)
        options["out"] = options["out"] or _free(Path("runs") / f"detect-{options['model']}")
        settings = TrainSettings(synthetic=synthetic, **options)
    run = train(settings)
    card = run / "model" / "bundle.json"
    if card.exists():
        facts = json.loads(card.read_text())
        click.echo(f"validation AP {facts['validation_ap']:.4f}, threshold {facts['threshold']:.3f}")
        click.echo(facts["audit"]["summary"])
    click.echo(f"run: {run}\njudge a picture: detect predict PHOTO --bundle {run}")


def _defaults(
    real: tuple[Path, ...], synthetic: tuple[Path, ...]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """``--with-synthetic`` alone is the newest generated set; without ``--real``, the reals behind that generator."""
    from crossfake.runs import Run, newest_synthetic

    if not any(str(folder) == NEWEST for folder in synthetic):
        return real, synthetic
    newest = newest_synthetic()
    if newest is None:
        raise UserError(
            "there are no generated fakes under runs/",
            mend="make some with 'synth train --data DIR' and 'synth generate --n 50000', or try 'crossfake demo'",
        )
    click.echo(f"--with-synthetic: taking the newest generated fakes, {newest}")
    if not real:
        run = Run(newest.parent)
        if not run.config_file.exists() or "data" not in run.config:
            raise UserError(f"the reals behind {newest} are not known", mend="name reals with --real DIR")
        real = (Path(run.config["data"]),)
        click.echo(f"no --real given: taking the reals that its generator was trained on, {real[0]}")
    return real, tuple(newest if str(folder) == NEWEST else folder for folder in synthetic)


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that is not taken."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


@detect.command(cls=ManyValues)
@click.option(
    "--bundle", type=_FOLDER, help="Run of 'detect train' or a bundle.  [default: the newest finished run]"
)
@click.option("--data", type=_FOLDER, multiple=True, help="Shards of reals and of fakes; several may follow.")
@click.option("--split", default="test", help="Rows to use; 'all' takes every row.")
@click.option("--out", type=_FOLDER, help="Folder for the results.  [default: evaluation in the run]")
@click.option("--bootstrap", type=int, default=1000, help="Resamples for the intervals.")
@click.option("--seed", type=int, default=0)
@click.option("--force", is_flag=True, help="Evaluate although the data was cropped differently.")
@_device
@_precision
def evaluate(bundle: Path | None, **options: Any) -> None:
    """Measure a detector on test data."""
    from crossfake.detect.evaluation import EvaluateSettings, evaluate, format_table

    result = evaluate(EvaluateSettings(bundle or _newest_bundle(), **options))
    click.echo(format_table(result))
    overall = result["overall"]
    kind = "95% intervals by bootstrap over groups"
    click.echo(
        f"\nn = {overall['n_real'] + overall['n_fake']:,} images in {overall['n_groups']:,} groups; {kind}"
    )
    click.echo(f"threshold {result['threshold']:.3f} from validation")
    for note in result["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"results: {result['out']}")


@detect.command()
@click.argument("paths", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--bundle", type=_FOLDER, help="Run of 'detect train' or a bundle.  [default: the newest finished run]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "csv_file", type=_FOLDER, help="Write a CSV file too.")
@click.option("--frames", type=click.IntRange(min=1), default=32, help="Of each video, evenly spread.")
@click.option("--face-model", type=_FOLDER, help="YuNet's ONNX file.")
@_device
@_precision
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

    detector = load(bundle or _newest_bundle(), face_model=face_model, **options)
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


def _newest_bundle() -> Path:
    from crossfake.runs import newest_run

    run = newest_run("detect")
    if run is None:
        raise UserError(
            "there is no trained detector under runs/", mend="train one, or name one with --bundle"
        )
    click.echo(f"no --bundle given: taking the newest finished run, {run}", err=True)
    return run
