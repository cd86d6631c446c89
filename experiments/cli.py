"""``crossfake experiment``: run protocols and write their reports; ``crossfake demo``."""

from __future__ import annotations

from pathlib import Path

import click

from crossfake.cli import command_group
from crossfake.errors import UserError

CONFIGS = Path(__file__).parent / "configs"
PROTOCOLS = {
    "cross-generator": "detectors × {without, with synthetic} × seeds, tested on generators never seen"
}

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
    raise UserError(f"there is no configuration {name}", mend=f"name a YAML file, or one of {known}")


@experiment.command()
@click.argument("protocol", type=click.Choice(list(PROTOCOLS)))
@click.option("--config", required=True, help="YAML file, or the name of one that 'experiment list' shows.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the experiment.  [default: runs/CONFIG]"
)
@click.option("--dry-run", is_flag=True, help="Check the configuration and say what would be run.")
def run(protocol: str, config: str, out: Path | None, dry_run: bool) -> None:
    """Run a protocol, or what is left of it, and write its report."""
    from crossfake.experiments import cross_generator
    from crossfake.experiments.config import load
    from crossfake.experiments.reporting import report

    file = find_config(config)
    settings = load(file)
    if dry_run:
        cross_generator.check(settings)
        cells = len(settings.detectors) * len(settings.seeds) * 2
        click.echo(f"{file}: {len(settings.generators)} generators, then {cells} detectors to train and test")
        return
    folder = cross_generator.run(settings, out or Path("runs") / file.stem)
    _name(report(folder))


@experiment.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--resamples", type=int, help="Of each test set, for the intervals.  [default: the configuration's]"
)
def report_(folder: Path, resamples: int | None) -> None:
    """Write the report of an experiment or of a training run, finished or not, anew."""
    from crossfake.experiments.reporting import report
    from crossfake.experiments.run_reporting import run_report

    _name(run_report(folder) if (folder / "config.yaml").is_file() else report(folder, resamples))


@experiment.command("list")
def list_() -> None:
    """Show the protocols, and the configurations that come with crossfake."""
    for name, text in PROTOCOLS.items():
        click.echo(f"{name}: {text}")
    for path in sorted(CONFIGS.glob("*.yaml")):
        first = path.read_text().splitlines()[0].removeprefix("# ")
        click.echo(f"  --config {path.stem:<12} {first}")


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
        str(page.with_name(name)) for name in ("results.csv", "results.tex") if page.with_name(name).exists()
    ]
    if tables:
        click.echo(f"numbers: {', '.join(tables)}")
    click.echo(f"report:  {page}")
