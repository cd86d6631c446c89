"""``crossfake experiment``: run protocols and write their reports; ``crossfake demo``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from crossfake.cli import THERE, command_group
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.experiments.settings import ReportSettings, RunSettings
from crossfake.options import options, taken
from crossfake.pages import TERMINAL, plural

CONFIGS = Path(__file__).parent / "configs"

experiment = command_group("experiment", "Run protocols and write their reports.")


def find_config(name: str) -> Path:
    """A YAML file, or one that comes with crossfake, by its name.

    Raises:
        UserError: it is neither.
    """
    shipped = CONFIGS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    if shipped.is_file():
        return shipped
    known = ", ".join(path.stem for path in sorted(CONFIGS.glob("*.yaml")))
    raise UserError(f"there is no configuration {name}", hint=f"name a YAML file, or one of {known}")


@experiment.command()
@click.argument("config")
@options(RunSettings, "out")
@click.option("--dry-run", is_flag=True, help="Only the plan: cells, what they can show, and what they cost.")
@options(RunSettings, "quick", "workers")
@options(ExecutorSettings)
def run(dry_run: bool, **options: Any) -> None:
    """Run an experiment, or what is left of it, and write its report.

    CONFIG is a YAML file, or the name of one that 'experiment list' shows.
    """
    from crossfake.experiments.design.config import load

    where, wanted = taken(ExecutorSettings, options), RunSettings(**options)
    file = find_config(wanted.config)
    settings = load(file, wanted.quick)
    settings.check_paths()
    from crossfake.experiments.design.planning import plan
    from crossfake.experiments.report.reporting import report
    from crossfake.experiments.run import running
    from crossfake.experiments.run.executors import Executor, Local

    folder = wanted.folder(file)
    click.echo(plan(settings, folder, measure=dry_run))
    if dry_run:
        return
    chosen: Executor = Local(wanted.workers)
    if where.is_ray:
        from crossfake.experiments.run.cluster import Ray

        chosen = Ray(where.address, where.store)
    _name(report(running.run(settings, folder, chosen)))


@experiment.command("report")
@click.argument("folder", type=THERE)
@options(ReportSettings, "resamples", "scores")
def report_(**options: Any) -> None:
    """Write the report of an experiment or of a training run, finished or not, anew."""
    wanted = ReportSettings(**options)
    from crossfake.experiments.report.reporting import report
    from crossfake.experiments.report.run_reporting import run_report

    folder, scores = wanted.folder, wanted.scores
    if scores is not None:
        from crossfake.experiments.report.results import Results
        from crossfake.experiments.report.sheet import SCORES, TABLE, Sheet

        Sheet.of(Results(folder, wanted.resamples)).save(scores)
        click.echo(f"scores:  {scores / SCORES}, {scores / TABLE}")
        return
    there = (folder / "experiment.json").is_file()
    _name(report(folder, wanted.resamples) if there else run_report(folder))


@experiment.command("pack")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The archive.  [default: RUN.zip]")
@click.option("--pictures", is_flag=True, help="Keep example pictures in the report: they may show persons.")
def pack_(folder: Path, out: Path | None, pictures: bool) -> None:
    """Write one archive of an experiment that others can verify: configuration, scores, hashes and tables.

    It holds no pictures, no paths or command lines of this machine, and numbers in place of the names of persons
    and files.
    """
    from crossfake.experiments.report.packing import pack
    from crossfake.provenance import hash_file

    archive = pack(folder, out, pictures)
    click.echo(f"archive: {archive} ({archive.stat().st_size / 1e6:.1f} MB, sha256 {hash_file(archive)})")
    click.echo(f"check:   crossfake experiment verify {archive.name}")


@experiment.command()
@click.argument("folder", metavar="RUN", type=THERE)
def verify(folder: Path) -> None:
    """Compute the tables of an experiment anew from its stored scores, and say what differs.

    RUN is its folder, an archive that 'experiment pack' wrote, or a folder of 'experiment report --scores'.
    """
    from crossfake.experiments.report.packing import verify_archive
    from crossfake.experiments.report.sheet import FACTS, verify_sheet
    from crossfake.experiments.report.verifying import verify as differences

    sheet = verify_sheet if (folder / FACTS).is_file() else differences
    found = verify_archive(folder) if folder.is_file() else sheet(folder)
    for line in found:
        click.echo(line)
    if found:
        raise UserError(
            f"{folder}: {plural(len(found), 'number')} not as reported",
            hint="write the report anew, or ask why",
        )
    click.echo(f"{folder}: all numbers are those of the stored scores")


@experiment.command("list")
def list_() -> None:
    """Show the protocols, and the configurations that come with crossfake."""
    from crossfake.experiments.design.protocols import PROTOCOLS, explain

    configurations = {path.stem: path.read_text().splitlines()[0] for path in sorted(CONFIGS.glob("*.yaml"))}
    for title, entries in (
        ("protocols:", {name: explain(name) for name in PROTOCOLS.names()}),
        ("\nconfigurations:", {name: first.removeprefix("# ") for name, first in configurations.items()}),
    ):
        click.echo(title)
        for name, text in entries.items():
            indent = f"  {name:<27} "
            click.echo(
                textwrap.fill(
                    text,
                    TERMINAL,
                    initial_indent=indent,
                    subsequent_indent=" " * len(indent),
                    break_on_hyphens=False,
                )
            )


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the experiment.  [default: runs/demo]"
)
@click.option("--smoke", is_flag=True, help="Seconds instead of minutes: shows that it runs, means nothing.")
def demo(out: Path | None, smoke: bool) -> None:
    """The whole loop on drawn faces, in minutes, without any download."""
    from crossfake.experiments.demo import demo as run_demo

    run_demo(out or Path("runs") / ("smoke" if smoke else "demo"), smoke)


def _name(page: Path) -> None:
    tables = [
        str(page.with_name(name))
        for name in ("results.csv", "contrasts.csv", "results.tex", "methods.tex")
        if page.with_name(name).exists()
    ]
    if tables:
        click.echo(f"numbers: {', '.join(tables)}")
    click.echo(f"report:  {page}")
