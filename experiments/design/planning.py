"""What an experiment will do, can show and will cost, said before hours are spent."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from crossfake.datasets.shards import ShardSet
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import measure_speed
from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, DetectorConfig, GeneratorConfig
from crossfake.experiments.design.estimating import Sketch, disk, lasting, left_out, making, stand_in
from crossfake.experiments.design.protocols import ELSEWHERE, Design
from crossfake.experiments.run.cells import read_card
from crossfake.experiments.run.running import check, settings_of
from crossfake.experiments.run.stages import prepared_folder, trainable
from crossfake.pages import duration, plural
from crossfake.stats.significance import minimum_detectable

_STEPS = 4  # of training that are timed per detector
_SHARE = 0.1  # of fakes made to train on that are made to test on as well


def plan(config: Config, out: Path, measure: bool = False) -> str:
    """The plan in words.

    Args:
        config: of the experiment.
        out: its folder; cells that are there give times.
        measure: time a few steps of detectors that have no cell there yet; and where photos are to be prepared, a few
            photos and a few steps of each generator, so that time, disk and what can be shown are known.

    Raises:
        UserError: the configuration is wrong.
    """
    found = check(config)
    cells = config.cache or out / "cells"
    count = sum(_cells(config, found, detector) for detector in config.detectors)
    made = [g.name for g in config.generators if not g.dir]
    unlike = any(each.only or each.seeds or each.data or each.bundle for each in config.detectors)
    lines = [
        f"{config.name}, {config.protocol}: {plural(count, 'cell')}"
        + (
            ":"
            if unlike
            else f" = {plural(len(config.detectors), 'detector')} × "
            f"{plural(len(found.conditions), 'condition')} × {plural(len(config.seeds), 'seed')}"
        ),
        *(_trained(config, found, detector) for detector in config.detectors if unlike),
        f"conditions: {'; '.join(condition.name for condition in found.conditions)}",
        f"tests: {_tests(found)}",
    ]
    if made:
        lines.append(f"made first: fakes of {', '.join(made)}")
        lines += left_out(config) if measure else []
    with tempfile.TemporaryDirectory(prefix="crossfake-") as folder:
        work, sketch, reals = Path(folder), None, config.seen_as(config.data[0]).real
        if config.prepare:
            prepared = prepared_folder(config, out)
            if (prepared / "done").exists():
                reals = (*reals, prepared)
            elif measure:
                sketch = Sketch.make(config, work)
                lines.append(sketch.line(config.prepare["source"]))
        lines += _detectable(config, found, reals, sketch)
        lines += _cost(config, found, cells, measure, sketch, reals, work)
        if sketch is not None:
            lines += _making(config, sketch, out, work)
    return "\n".join(lines)


def _conditions(found: Design, detector: DetectorConfig) -> list[str]:
    if detector.bundle:
        return [ELSEWHERE]
    return [c.name for c in found.conditions if not detector.only or c.name in detector.only]


def _cells(config: Config, found: Design, detector: DetectorConfig) -> int:
    return len(_conditions(found, detector)) * len(config.seeds_of(detector))


def _trained(config: Config, found: Design, detector: DetectorConfig) -> str:
    """Cells of one detector, where not all have the same."""
    seen = f" on {detector.data}" if detector.data else ""
    seeds = ", ".join(map(str, config.seeds_of(detector)))
    return (
        f"  {detector.name}{seen}: {plural(_cells(config, found, detector), 'cell')} "
        f"({'; '.join(_conditions(found, detector))}; seeds {seeds})"
    )


def _making(config: Config, sketch: Sketch, out: Path, work: Path) -> list[str]:
    """What comes before the detectors."""
    size = ShardSet(sketch.reals).size or 0
    parts, total, needed, unknown = (
        [lasting("prepare", sketch.seconds)],
        sketch.seconds,
        3.0 * size**2 * sketch.faces,
        [],
    )
    for generator in config.generators:
        if generator.dir or generator.model:
            continue
        found = making(config, generator, sketch.reals, work)
        if found is None:
            unknown.append(generator.name)
            continue
        total, needed = total + found[0], needed + found[1]
        if found[0]:
            parts.append(lasting(generator.name, found[0]))
    lines = [f"before that: {', '.join(parts)}; {duration(total)} together (a few steps of each were timed)"]
    if unknown:
        lines.append(
            f"time of {', '.join(unknown)}: unknown, {sketch.looked_at} photos are too few to try it"
        )
    return [*lines, f"{disk(needed, out)}, without the detectors"]


def _tests(found: Design) -> str:
    plain = [test.name for test in found.tests if test.base == test.name]
    changed = len(found.tests) - len(plain)
    return ", ".join(plain) + (f", and {changed} perturbed" if changed else "")


def _count(folders: tuple[Path, ...], label: int, split: str | None) -> int:
    try:
        return sum(len(ShardSet(folder).select(label=label, split=split)) for folder in folders)
    except UserError:
        return 0


def _groups(reals: tuple[Path, ...]) -> int:
    """Of the test split: people, photos or videos, which pictures come in."""
    sets = [ShardSet(folder) for folder in reals]
    return len(
        {group for s in sets for group in s.columns["group"][s.select(label=0, split="test")].tolist()}
    )


def _to_test(generator: GeneratorConfig, trained: bool) -> int:
    if generator.dir:
        return _count(generator.dir, 1, "test" if trained else None)
    return max(1, round(generator.n * _SHARE)) if trained else generator.n


def _detectable(config: Config, found: Design, reals: tuple[Path, ...], sketch: Sketch | None) -> list[str]:
    """The smallest difference that each contrast would show four times in five."""
    generators = {g.name: g for g in config.seen_as(config.data[0]).generators}
    trained = {name for condition in found.conditions for name in condition.trained_on}
    own = _count(reals, 0, "test")
    grouped = _groups(reals) / own if own else 1.0
    own += sketch.tested if sketch else 0
    lines = ["there are too few reals of the test split to show anything"] if sketch and own < 2 else []
    for contrast in found.contrasts:
        names = [test.fake for test in found.tests if test.name in contrast.tests]
        fakes = [_to_test(generators[name], name in trained) for name in names]
        if own > 1 and fakes and min(fakes) > 1:
            n_fake, seeds = round(float(np.mean(fakes))), len(config.seeds)
            least = minimum_detectable(own, n_fake, seeds, groups_per_row=grouped)
            chance = "one seed: training's chance is not in it" if seeds == 1 else f"{seeds} seeds"
            lines.append(
                f"'{contrast.name}': a difference in AUC below {least:.3f} would probably not show on one of these "
                f"tests with one detector (n = {own:,} and {n_fake:,}, {chance}, power 0.8; correlation 0.5 and "
                "spread of seeds 0.02 assumed)"
            )
    return lines


def _cost(
    config: Config,
    found: Design,
    cells: Path,
    measure: bool,
    sketch: Sketch | None,
    reals: tuple[Path, ...],
    work: Path,
) -> list[str]:
    total, unknown, size = 0.0, [], 0.0
    for detector in config.detectors:
        if detector.bundle:
            continue
        times, sizes = _finished(cells, detector)
        each = statistics.median(times) if times else None
        if each is None and measure:
            seen = config.seen_as(detector.data)
            mine = (sketch.reals,) if sketch else seen.real or reals
            each = _timed(seen, found, detector, mine, work)
        if each is None:
            unknown.append(detector.name)
            continue
        trained = [name for name in _conditions(found, detector) if not found.condition(name).ensemble]
        number = len(trained) * len(config.seeds_of(detector))
        total += each * number
        size += (statistics.median(sizes) if sizes else 0.0) * number
    lines = []
    if total:
        disk = f" and {size / 2**20:,.0f} MB" if size else ""
        lines.append(
            f"training takes about {duration(total)}{disk} in all, cells that are there already included"
        )
    if unknown:
        why = "their data are not there yet" if measure else "--dry-run measures it"
        lines.append(f"time of {', '.join(unknown)}: unknown, {why}")
    return lines


def _finished(cells: Path, detector: DetectorConfig) -> tuple[list[float], list[int]]:
    """Seconds and bytes of the detector's cells that are there."""
    times, sizes = [], []
    for folder in cells.glob("*"):
        card = read_card(folder)
        if card and card["detector"] == detector.name:
            times.append(card["seconds"])
            sizes.append(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
    return times, sizes


def _timed(
    config: Config, found: Design, detector: DetectorConfig, reals: tuple[Path, ...], work: Path
) -> float | None:
    """Seconds that a training takes, from a few of its steps; None where there is nothing to take them on.

    Fakes that are not made yet are stood in for: how long a step takes is up to their size and number alone.
    """
    folders = {g.name: g.dir for g in config.generators}
    fakes: tuple[Path, ...] = ()
    mine = _conditions(found, detector)
    for condition in (c for c in found.conditions if c.name in mine and not c.ensemble):
        if all(folders[name] and all(f.exists() for f in folders[name]) for name in condition.trained_on):
            fakes = trainable([f for name in condition.fakes + condition.synthetic for f in folders[name]])
            break
    else:
        condition = found.conditions[0]
    if reals and not fakes:
        made = work / "fakes" if (work / "fakes").exists() else stand_in(reals[0], work)
        fakes = (made,) if made else ()
    if not reals or not fakes:
        return None
    settings = TrainSettings(
        real=reals,
        fake=fakes,
        out=Path(),
        model=detector.model,
        **{"device": config.device, **settings_of(config, detector, condition)},
    )
    return measure_speed(settings, _STEPS) * settings.steps
