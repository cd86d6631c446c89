"""Settings that come from a run: it goes on, or another one is its control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from crossfake.detect.training.settings import TrainSettings
from crossfake.device import stored_device
from crossfake.errors import UserError
from crossfake.runs import Run

MATCHED = ("steps", "batch", "eval_every", "seed", "balance", "synthetic_per_generator")
_WHERE = (
    "real",
    "fake",
    "synthetic",
    "out",
    "device",
    "threads",
    "resume",
    "force",
    "match_steps",
    "stop_after",
)


def resumed(out: Path, **changed: Any) -> TrainSettings:
    """The settings that the run in ``out`` had, with some of them changed.

    Raises:
        UserError: there is no training, or it was begun with another model, tune or recipe.
    """
    run = Run(out)
    try:
        kept = _kept(run)
    except OSError as error:
        raise UserError(f"{out} holds no run to resume", hint="start it without --resume") from error
    for name in ("model", "tune", "recipe"):
        run.refuse_other(name, changed.get(name))
    return TrainSettings(**{**kept, **changed, "out": Path(out), "resume": True})


def control(run: Path, **changed: Any) -> TrainSettings:
    """The control of a run: its settings and data without its synthetic fakes, with some of them changed.

    Raises:
        UserError: there is no training, or it has not finished.
    """
    try:
        kept = _kept(Run(run))
    except OSError as error:
        raise UserError(f"{run} holds no training to match", hint="name a run of 'detect train'") from error
    fixed = {
        "synthetic": (),
        "synthetic_limit": 0,
        "stop_after": 0,
        "match_steps": run,
        "resume": False,
        "force": False,
    }
    if not changed.get("synthetic"):
        fixed |= {"synthetic_schedule": "constant", "pair": False}
    return matched(TrainSettings(**{**kept, **fixed, **changed}))


def matched(settings: TrainSettings) -> TrainSettings:
    """With as many steps as the run that ``match_steps`` names, and its batches, validations and seed.

    Raises:
        UserError: it is no training, or has not finished.
    """
    path = settings.match_steps
    if path is None or settings.stop_after:
        return settings
    other, lines = Run(path), Run(path).log_lines()
    if not other.config_file.exists() or not lines:
        raise UserError(f"{path} holds no training to match", hint="name a run of 'detect train'")
    config = other.config
    _check_training(other, config)
    if not other.finished:
        raise UserError(
            f"{path} has not finished: its control would make fewer steps",
            hint=f"finish it first with 'detect train --out {path} --resume'",
        )
    taken = {name: config[name] for name in MATCHED if name in config}
    return replace(settings, **taken, stop_after=lines[-1]["step"])


def differences(settings: TrainSettings) -> list[str]:
    """What besides the data is not as in the run that is matched: such a comparison changes several things."""
    if settings.match_steps is None or not (other := Run(settings.match_steps)).config_file.exists():
        return []
    config, own = other.config, asdict(settings)
    unlike = (
        *_WHERE,
        *MATCHED,
        "patience",
        *(() if settings.synthetic else ("synthetic_schedule", "synthetic_limit", "pair")),
    )
    names = [f.name for f in fields(settings) if f.name not in unlike]
    return [
        f"{name} {own[name]} instead of {config[name]}"
        for name in names
        if name in config and config[name] != (str(own[name]) if isinstance(own[name], Path) else own[name])
    ]


def _kept(run: Run) -> dict[str, Any]:
    config = run.config
    _check_training(run, config)
    kept = {f.name: config[f.name] for f in fields(TrainSettings) if f.name in config}
    for name in ("real", "fake", "synthetic"):
        kept[name] = tuple(Path(folder) for folder in kept[name])
    for name in ("weights", "match_steps"):
        kept[name] = Path(kept[name]) if kept.get(name) else None
    kept["device"] = stored_device(kept.get("device", "auto"))
    return kept


def _check_training(run: Run, config: Mapping[str, Any]) -> None:
    if config.get("kind") != "detect" or "synthetic" not in config:
        raise UserError(f"{run.path} holds no training", hint="name a run of 'detect train'")
