"""``crossfake data``: prepare image sets, verify them, look at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from crossfake.cli import SHARDS, ManyValues, command_group, typed
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.settings import LaunderSettings, PrepareSettings, SplitSettings
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.options import options, taken

data = command_group("data", "Prepare, split, audit, verify and look at image sets.")


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
@options(PrepareSettings, without=("source", "history", "enlarge"))
@options(ExecutorSettings)
def prepare(**options: Any) -> None:
    """Turn SOURCE into shards.

    SOURCE is a folder of images and videos, a zip or WebDataset tar, parquet, a published data set, a CSV or JSONL
    manifest, a shard folder, the URL of any of these (s3://…), or a name such as toyfaces. The layout is recognised,
    or named as NAME:PATH ('crossfake data sources').
    """
    from crossfake.datasets.prepare import prepare

    where = taken(ExecutorSettings, options)
    settings = PrepareSettings(**options)
    wrong = "size" if settings.native else "min_size"
    if wrong in typed():
        raise UserError(
            f"--{wrong.replace('_', '-')} is not for {options['pixels']} pixels",
            hint=f"leave it out, or give --pixels {'aligned' if wrong == 'size' else 'native'}",
        )
    click.echo(prepare(settings, where).table())


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
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def fixture(name: str, out: Path) -> None:
    """Write a miniature of the layout NAME.

    It has drawn faces, to try things out without the data set.
    """
    from crossfake.datasets.sources.base import SOURCES

    try:
        made = SOURCES.get(name)().fixture(out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", hint="name another --out") from error
    click.echo(
        f"a miniature of {name}: read it with 'crossfake data prepare {made} --crop none --out SHARDS'"
    )


@data.command(cls=ManyValues)
@options(AuditSettings, real={"required": True}, fake={"required": True})
@options(ExecutorSettings)
def audit(**options: Any) -> None:
    """Find what gives the classes away besides forgery.

    File format, compression, size, colours, background, duplicates, …: whatever separates real from fake here is what
    a detector would learn. Exit code 1 if anything does.
    """
    from crossfake.datasets.audit.audit import (
        audit,
    )

    where = taken(ExecutorSettings, options)
    found = audit(AuditSettings(**options), where)
    click.echo(found.table())
    if options["out"]:
        click.echo(f"\nwith pictures: {options['out'] / 'audit.html'}")
    if found.verdict == "fail":
        sys.exit(1)


@data.command(cls=ManyValues)
@options(LaunderSettings)
def launder(**options: Any) -> None:
    """Give both classes one crop, size and compression.

    They are chosen from all pictures together, without looking at the label. With --like they are those of an earlier
    laundering: so are the fakes of a new generator made ready to test on.
    """
    follow = {"crop", "size", "quality", "margin", "pixels", "min_size"}
    if options["like"] and (taken := typed() & follow):
        name = min(taken).replace("_", "-")
        raise UserError(f"--{name} follows from {options['like']}", hint=f"leave --{name} or --like out")
    from crossfake.datasets.launder import launder

    done = launder(LaunderSettings(**options))
    click.echo(done.table())
    named = {label: done.folders(label) for label in ("real", "fake")}
    if all(named.values()):
        words = [f"--{label} {' '.join(map(str, folders))}" for label, folders in named.items()]
        click.echo(f"\nwhat remains: crossfake data audit {' '.join(words)}")


@data.command()
@click.argument("folders", nargs=-1, required=True, type=SHARDS)
@click.option(
    "--check",
    is_flag=True,
    help="Decide nothing. Exit code 0: the splits are disjoint; 1: they leak, and where; 2: not checked.",
)
@options(SplitSettings, without=("folders", "fresh"))
@options(ExecutorSettings)
def split(check: bool, **options: Any) -> None:
    """Split FOLDERS together, nothing alike on two sides.

    What belongs together (a person, a video, a source photo, near-duplicates in whichever folder) goes to one side.
    A row that has a split never moves: where what belongs together is on two sides already, rows are set aside. Split
    before anything is trained, with --redeal to lose none. The shards stay as they are: decisions go to splits.csv.
    """
    from crossfake.datasets import leaks

    where = taken(ExecutorSettings, options)
    settings = SplitSettings(**options)
    if not check:
        click.echo(leaks.split(settings, where).text())
        return
    if settings.redeal:
        raise UserError("--check decides nothing, --redeal does", hint="give one of them")
    report = leaks.check(settings, where)
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the sheets.  [default: the shard folder, or this one]",
)
def inspect(source: str, out: Path | None) -> None:
    """Count what SOURCE holds, and draw contact sheets.

    SOURCE is anything that 'prepare' takes: shards, a data set, a folder.
    """
    from crossfake.datasets.inspect import inspect

    click.echo(inspect(source, out))
