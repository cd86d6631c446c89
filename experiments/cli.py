"""``crossfake experiment``: run protocols and write their reports; ``crossfake demo``."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from crossfake.cli import THERE, command_group
from crossfake.errors import UserError
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the experiment.  [default: runs/CONFIG, with --quick runs/CONFIG-quick]",
)
@click.option("--dry-run", is_flag=True, help="Only the plan: cells, what they can show, and what they cost.")
@click.option("--quick", is_flag=True, help="The short version that the configuration has under 'quick'.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="Where cells run.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, help="Cells at a time on this machine.")
@click.option("--address", help="Of a Ray cluster; without it one is started here.")
@click.option("--store", help="URL (s3://, gs://, file://) that Ray's machines fetch shards from.")
def run(
    config: str,
    out: Path | None,
    dry_run: bool,
    quick: bool,
    executor: str,
    workers: int,
    address: str | None,
    store: str | None,
) -> None:
    """Run an experiment, or what is left of it, and write its report.

    CONFIG is a YAML file, or the name of one that 'experiment list' shows.
    """
    from crossfake.experiments.design.config import load

    if executor == "local" and (address or store):
        raise UserError("--address and --store are for Ray", hint="add --executor ray")
    file = find_config(config)
    settings = load(file, quick)
    settings.check_paths()
    from crossfake.experiments.design.planning import plan
    from crossfake.experiments.report.reporting import report
    from crossfake.experiments.run import running
    from crossfake.experiments.run.executors import Executor, Local

    folder = out or Path("runs") / f"{file.stem}{'-quick' if quick else ''}"
    click.echo(plan(settings, folder, measure=dry_run))
    if dry_run:
        return
    chosen: Executor = Local(workers)
    if executor == "ray":
        from crossfake.experiments.run.cluster import Ray

        chosen = Ray(address, store)
    _name(report(running.run(settings, folder, chosen)))


@experiment.command("report")
@click.argument("folder", type=THERE)
@click.option(
    "--resamples",
    type=click.IntRange(100, 10**6),
    help="Of each test set, for the intervals.  [default: the configuration's]",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Folder for a small table of all scores, and the results that follow from it.",
)
def report_(folder: Path, resamples: int | None, scores: Path | None) -> None:
    """Write the report of an experiment or of a training run, finished or not, anew."""
    from crossfake.experiments.report.reporting import report
    from crossfake.experiments.report.run_reporting import run_report

    experiment_there = (folder / "experiment.json").is_file()
    if scores is not None:
        from crossfake.experiments.report.results import Results
        from crossfake.experiments.report.sheet import SCORES, TABLE, Sheet

        Sheet.of(Results(folder, resamples)).save(scores)
        click.echo(f"scores:  {scores / SCORES}, {scores / TABLE}")
        return
    _name(report(folder, resamples) if experiment_there else run_report(folder))


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
