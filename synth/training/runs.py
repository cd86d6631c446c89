"""The settings of a run that goes on, and the plan that follows from settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from crossfake.device import compute_dtype, pick_device, stored_device
from crossfake.errors import UserError
from crossfake.runs import Run
from crossfake.synth.families.base import FAMILIES, log2_size
from crossfake.synth.training.learner import Plan
from crossfake.synth.training.settings import TrainSettings


def resumed(out: Path, **changed: Any) -> TrainSettings:
    """The settings that the run in ``out`` had, with some of them changed: a longer ``kimg``, say."""
    try:
        config = Run(out).config
    except OSError as error:
        raise UserError(f"{out} holds no run to resume", hint="start it without --resume") from error
    if config.get("kind") != "synth" or "family" not in config:
        raise UserError(f"{out} holds no training of a generator", hint="name a run of 'synth train'")
    for name in ("family", "channels", "condition", "freeze", "window", "upsample"):
        Run(out).refuse_other(name, changed.get(name))
    # what was chosen for the resolution and device then is kept, so that the run goes on as it began
    kept = {field.name: config[field.name] for field in fields(TrainSettings) if field.name in config}
    init = Path(kept["init"]) if kept.get("init") else None
    paths = {"data": tuple(folders_of(kept["data"])), "init": init, "out": Path(out)}
    kept["device"] = stored_device(kept.get("device", "auto"))
    return TrainSettings(**{**kept, **paths, **changed, "freeze": kept.get("freeze", 0), "resume": True})


def folders_of(data: Path | str | Sequence[Path | str]) -> list[Path]:
    """One folder or several, as a list."""
    return [Path(data)] if isinstance(data, Path | str) else [Path(folder) for folder in data]


def make_plan(settings: TrainSettings, size: int, classes: int = 0) -> Plan:
    """What was not said is the family's own, or follows Karras et al. 2020b's ``auto`` configuration, with a smaller
    batch on a CPU: early on, steps count for more."""
    if not settings.window:
        log2_size(size)
    family, device = FAMILIES.get(settings.family), pick_device(settings.device)
    on_gpu = device.type == "cuda"
    recipe = family.recipe if on_gpu else family.recipe_cpu or family.recipe
    batch = settings.batch or (max(4, min(64, 4096 * 32 // size**2)) if on_gpu else family.batch_cpu)

    def chosen(name: str) -> Any:
        asked = getattr(settings, name)
        return getattr(recipe, name) if asked is None else asked

    gamma = chosen("gamma")
    return Plan(
        size=size,
        batch=batch,
        channels=settings.channels or (family.channels_gpu if on_gpu else family.channels_cpu),
        classes=classes,
        gamma=0.0002 * size**2 / batch if gamma is None else gamma,
        lr=settings.lr or recipe.lr,
        path_weight=chosen("path_weight"),
        mixing=chosen("mixing"),
        noise=chosen("noise"),
        augment=settings.augment,
        upsample=settings.upsample or ("nearest" if settings.window else ""),
        adversarial=settings.adversarial,
        freeze=settings.freeze,
        family=family,
        recipe=recipe,
        device=device,
        dtype=compute_dtype(device, settings.precision),
    )
