"""``crossfake data``: prepare image sets, verify them, look at them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crossfake.cli import SHARDS, THERE, ManyValues, command_group, typed
from crossfake.errors import UserError

data = command_group("data", "Prepare, split, audit, verify and look at image sets.")

_FOLDER = click.Path(path_type=Path)
_generator = click.option(
    "--generator",
    default="",
    show_default=False,
    metavar="NAME",
    help="What made the fakes: a name that you choose; 'folders' takes each sub-folder's.  "
    "[default: the source's name]",
)


class _Prepare(ManyValues):
    """Lets ``--labels real=A fake=B`` stand for ``--labels real=A --labels fake=B``, with SOURCE after it or before."""

    @staticmethod
    def _owned(args: list[str]) -> list[list[str]]:
        owned: list[list[str]] = []
        for first, *rest in ManyValues._owned(args):
            alone = [word for word in rest if first == "--labels" and "=" not in word]
            owned += [[first, *(word for word in rest if word not in alone)], *([word] for word in alone)]
        return owned


@data.command(cls=_Prepare)
@click.argument("source")
@click.option("--out", type=_FOLDER, required=True, help="Shard folder to write.")
@click.option("--size", type=int, default=64, help="Height and width in pixels.")
@click.option(
    "--pixels",
    type=click.Choice(["aligned", "native"]),
    default="aligned",
    help="native: cut out upright at the photo's own pixels, rows of their own sizes.",
)
@click.option("--min-size", type=int, default=128, help="Least side of native crops; others are left out.")
@click.option(
    "--shrink",
    type=float,
    default=0.0,
    show_default=False,
    help="Make native crops smaller, to a share between this and 0.85.",
)
@click.option(
    "--crop",
    type=click.Choice(["face", "square", "center", "none"]),
    default="face",
    help="face: aligned; square: upright around a face; center: the middle; none: all of it.",
)
@click.option(
    "--margin",
    type=float,
    default=0.0,
    show_default="1.3 for faces",
    help="Side of the crop relative to the face; 1.3 is FFHQ's framing.",
)
@click.option(
    "--edge",
    type=click.Choice(["skip", "reflect", "clip"]),
    show_default="skip; clip for native pixels",
    help="A picture that ends too close to the face: leave it out, mirror it there, or end there.",
)
@click.option(
    "--faces",
    type=click.Choice(["largest", "all", "mask"]),
    default="largest",
    help="Which of several faces; mask: the one that the data set marks.",
)
@click.option("--min-face", type=int, default=0, help="Least side of a face, in pixels.")
@click.option("--min-sharpness", type=float, default=0.0, help="Least variance of the Laplacian; try 20.")
@click.option("--max-yaw", type=float, default=90.0, help="Most degrees that a head may be turned.")
@click.option(
    "--min-confidence", type=float, default=0.6, help="Of the face detector; falls with occlusion; try 0.8."
)
@click.option("--frames", type=int, default=32, help="Of each video, evenly spread.")
@click.option("--split", default="0.8/0.1/0.1", help="Shares of train, val and test.")
@click.option(
    "--name",
    default="",
    show_default=False,
    help="What the source column says.  [default: the folder's name]",
)
@click.option(
    "--label",
    type=click.Choice(["real", "fake"]),
    help="What the images are for which nothing else says it.",
)
@click.option(
    "--labels",
    multiple=True,
    metavar="real=A,B fake=C",
    help="What folders are, or values of a table's label; several may follow, skip=D leaves out.",
)
@_generator
@click.option("--only", type=click.Choice(["real", "fake"]), help="One class of a set with both.")
@click.option(
    "--variant", default="", show_default=False, help="Of a set with several versions: c23, c40, raw."
)
@click.option("--limit", type=int, help="Stop after so many images or videos.")
@click.option(
    "--codec", type=click.Choice(["raw", "webp", "original"]), default="raw", help="How rows are stored."
)
@click.option("--workers", type=int, default=0, help="Processes; 0 is one per core.")
@click.option("--face-model", type=THERE, help="YuNet's ONNX file.")
@click.option("--seed", type=int, default=0)
def prepare(**options: Any) -> None:
    """Turn SOURCE into shards.

    SOURCE is a folder of images and videos, a zip archive, a published data set, a CSV or JSONL manifest, a shard
    folder, or a name such as toyfaces. The layout is recognised, or named as NAME:PATH ('crossfake data sources').
    """
    from crossfake.datasets.prepare import PrepareSettings, prepare

    settings = PrepareSettings(**options)
    wrong = "size" if settings.native else "min_size"
    if wrong in typed():
        raise UserError(
            f"--{wrong.replace('_', '-')} is not for {options['pixels']} pixels",
            mend=f"leave it out, or give --pixels {'aligned' if wrong == 'size' else 'native'}",
        )
    click.echo(prepare(settings).table())


@data.command()
def sources() -> None:
    """List the layouts that can be read."""
    from crossfake.datasets.sources.base import SOURCES

    for name in SOURCES.names():
        source = SOURCES.get(name)
        made_from = f"; made from {' and '.join(source.derived_from)}" if source.derived_from else ""
        click.echo(f"{name:<22}{source.about}{made_from}")


@data.command()
@click.argument("name")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write.")
def fixture(name: str, out: Path) -> None:
    """Write a miniature of the layout NAME.

    It has drawn faces, to try things out without the data set.
    """
    from crossfake.datasets.sources.base import SOURCES

    try:
        made = SOURCES.get(name)().fixture(out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", mend="name another --out") from error
    click.echo(
        f"a miniature of {name}: read it with 'crossfake data prepare {made} --crop none --out SHARDS'"
    )


def _classes(required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options naming the sources of both classes."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, what in (("--fake", "fakes"), ("--real", "real pictures")):
            help = f"Sources of {what}; several may follow."
            command = click.option(name, multiple=True, required=required, help=help)(command)
        return command

    return add


@data.command(cls=ManyValues)
@_classes(required=True)
@click.option("--out", type=_FOLDER, help="Folder for audit.json and audit.html.  [default: print only]")
@click.option("--limit", type=int, default=1000, help="Pictures of each class that are looked at.")
@click.option("--warn", type=float, default=0.6, help="AUC above which a probe warns.")
@click.option("--fail", type=float, default=0.75, help="AUC above which a probe fails.")
@click.option("--split", multiple=True, help="Only rows of this split; may be given several times.")
@click.option("--workers", type=int, default=0, help="Processes; 0 is one per core.")
@click.option("--face-model", type=THERE, help="YuNet's ONNX file.")
@click.option("--seed", type=int, default=0)
def audit(**options: Any) -> None:
    """Find what gives the classes away besides forgery.

    File format, compression, size, colours, background, duplicates, …: whatever separates real from fake here is what
    a detector would learn. Exit code 1 if anything does.
    """
    from crossfake.datasets.audit.audit import (
        audit,
    )
    from crossfake.datasets.audit.settings import AuditSettings

    found = audit(AuditSettings(**options))
    click.echo(found.table())
    if options["out"]:
        click.echo(f"\nwith pictures: {options['out'] / 'audit.html'}")
    if found.verdict == "fail":
        sys.exit(1)


@data.command(cls=ManyValues)
@_classes(required=False)
@click.option(
    "--like", type=THERE, help="Treat new data as an earlier laundering did: the same crop, size and quality."
)
@click.option("--out", type=_FOLDER, required=True, help="Folder for the shards, real/ and fake/.")
@_generator
@click.option("--size", type=int, default=0, show_default="chosen", help="Height and width in pixels.")
@click.option("--quality", type=int, default=0, show_default="chosen", help="JPEG quality for everything.")
@click.option(
    "--pixels",
    type=click.Choice(["aligned", "native"]),
    default="aligned",
    help="native: resize nothing, compress everything alike.",
)
@click.option("--min-size", type=int, default=128, help="Least side of native crops; others are left out.")
@click.option(
    "--crop",
    type=click.Choice(["face", "square", "center", "none"]),
    default="face",
    help="How a photo becomes square.",
)
@click.option("--margin", type=float, default=0.0, show_default="1.3 for faces", help="Side of the crop.")
@click.option("--limit", type=int, help="Pictures of each source.")
@click.option("--split", default="0.8/0.1/0.1", help="Shares of train, val and test.")
@click.option("--workers", type=int, default=0, help="Processes; 0 is one per core.")
@click.option("--face-model", type=THERE, help="YuNet's ONNX file.")
@click.option("--seed", type=int, default=0)
def launder(**options: Any) -> None:
    """Give both classes one crop, size and compression.

    They are chosen from all pictures together, without looking at the label. With --like they are those of an earlier
    laundering: so are the fakes of a new generator made ready to test on.
    """
    follow = {"crop", "size", "quality", "margin", "pixels", "min_size"}
    if options["like"] and (taken := typed() & follow):
        name = min(taken).replace("_", "-")
        raise UserError(f"--{name} follows from {options['like']}", mend=f"leave --{name} or --like out")
    from crossfake.datasets.launder import LaunderSettings, launder

    done = launder(LaunderSettings(**options))
    click.echo(done.table())
    named = {label: done.folders(label) for label in ("real", "fake")}
    if all(named.values()):
        words = [f"--{label} {' '.join(map(str, folders))}" for label, folders in named.items()]
        click.echo(f"\nwhat remains: crossfake data audit {' '.join(words)}")


@data.command()
@click.argument("folders", nargs=-1, required=True, type=SHARDS)
@click.option("--split", default="0.8/0.1/0.1", help="Shares of train, val and test.")
@click.option(
    "--redeal", is_flag=True, help="Deal anew what was dealt before, and say which models that ends."
)
@click.option(
    "--check",
    is_flag=True,
    help="Decide nothing. Exit code 0: the splits are disjoint; 1: they leak, and where; 2: not checked.",
)
@click.option("--radius", type=int, default=32, help="Most differing bits, of 256, between near-duplicates.")
@click.option(
    "--embedding", default="", show_default=False, help="timm model whose features are compared too."
)
@click.option("--weights", type=THERE, help="Its weights file.  [default: timm's own]")
@click.option("--cosine", type=float, default=0.95, help="Least cosine of near-duplicates' features.")
@click.option("--identities", is_flag=True, help="Keep together what a face recogniser takes for one person.")
@click.option(
    "--identity-model", type=_FOLDER, help="An ONNX file such as OpenCV's SFace.  [default: dlib's]"
)
@click.option(
    "--identity-threshold",
    type=float,
    help="Distance of dlib's or cosine of the ONNX file's, for any number of faces.  [default: as published or "
    "stricter]",
)
@click.option("--face-model", type=_FOLDER, help="YuNet's ONNX file.")
@click.option("--workers", type=int, default=0, help="Processes; 0 is one per core.")
@click.option("--seed", type=int, default=0)
def split(check: bool, **options: Any) -> None:
    """Split FOLDERS together, nothing alike on two sides.

    What belongs together (a person, a video, a source photo, near-duplicates in whichever folder) goes to one side.
    A row that has a split never moves: where what belongs together is on two sides already, rows are set aside. Split
    before anything is trained, with --redeal to lose none. The shards stay as they are: decisions go to splits.csv.
    """
    from crossfake.datasets import leaks

    settings = leaks.SplitSettings(**options)
    if not check:
        click.echo(leaks.split(settings).text())
        return
    if settings.redeal:
        raise UserError("--check decides nothing, --redeal does", mend="give one of them")
    report = leaks.check(settings)
    click.echo(report.text())
    if report.offences:
        sys.exit(1)


@data.command()
@click.argument("folder", type=SHARDS)
def verify(folder: Path) -> None:
    """Check every shard and row of FOLDER.

    Exit code 1 if anything is wrong.
    """
    from crossfake.datasets.verify import verify

    problems = verify(folder)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo(f"{folder}: every shard and row is as it was written")


@data.command()
@click.argument("source")
@click.option("--out", type=_FOLDER, help="Folder for the sheets.  [default: the shard folder, or this one]")
def inspect(source: str, out: Path | None) -> None:
    """Count what SOURCE holds, and draw contact sheets.

    SOURCE is anything that 'prepare' takes: shards, a data set, a folder.
    """
    from crossfake.datasets.inspect import inspect

    click.echo(inspect(source, out))
