"""Search for better training settings, by validation alone, and training with the best of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import time
import typing
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from crossfake.detect.settings import TuneSettings
from crossfake.detect.tables import aligned
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import WEIGHED
from crossfake.detect.tuning.final import finish, held_out
from crossfake.detect.tuning.space import load_space, typed_value
from crossfake.detect.tuning.trials import (
    STOP,
    TrialPlan,
    as_text,
    ended_trials,
    import_optuna,
    open_study,
    recover,
    run_trial,
    trial_folder,
    trial_settings,
)
from crossfake.detect.view import View
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.files import write_json, write_text
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stopping import Stopper
from crossfake.workers import map_in_order

_SPACE, _RESULT = "space.yaml", "study.json"
_HOPELESS = 5  # trials that may fail before the first that does not


def resumed(out: Path, **changed: Any) -> TuneSettings:
    """The settings that the search in ``out`` had, with some of them changed.

    Raises:
        UserError: there is no search.
    """
    config = Run(out).config if Run(out).config_file.is_file() else {}
    if config.get("kind") != "tune":
        raise UserError(f"{out} holds no search to resume", hint="start it without --resume")
    hints = typing.get_type_hints(TrainSettings)
    base = {name: typed_value(value, hints[name]) for name, value in config["base"].items() if name in hints}
    names = {field.name for field in dataclasses.fields(TuneSettings)} - {"base", "space"}
    kept = {name: config[name] for name in names if name in config}
    return TuneSettings(
        TrainSettings(**{**base, "out": Path(out)}), Path(out) / _SPACE, **{**kept, **changed}
    )


def tune(settings: TuneSettings, where: ExecutorSettings = LOCAL) -> dict[str, Any]:
    """Search, then train with the default and with the best settings; everything is below ``base.out``.

    A trial is a training on the train rows, valued by its best average precision on the validation rows, which count
    as in batches of the default settings whatever the trial's are. Test rows are out of reach: trials read through
    :func:`crossfake.detect.training.train.train`, which opens none. The same call again goes on where the search was
    stopped, and more ``trials`` extend it.

    Args:
        settings: of the search.
        where: what runs the trials; this process proposes their settings, and trains with the best. Those that run at
            once know nothing of each other, here as there.

    Returns:
        What ``study.json`` holds: ``trials`` (settings, values, seeds, durations, data hashes), ``best``,
        ``importance``, and ``comparison`` of the default with the best settings on the validation rows, which is
        optimistic; it is None when the user stopped before.

    Raises:
        UserError: bad settings, space or data, a folder with another search, or no trial succeeded.
        MissingDependency: Optuna is not installed.
    """
    import_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "a search starts its trials itself", hint="start it without torchrun, with --workers N"
        )
    plan, final, data = _planned(settings)
    out = settings.base.out
    held, weighed = held_out(final, data)
    facts = {
        **{name: value for name, value in asdict(settings).items() if name not in ("base", "space")},
        "space": plan.space.describe(),
        "data_hashes": data.hashes(),
        "validation_hash": held.digest,
        WEIGHED: weighed.describe(),
        "base": asdict(settings.base),
    }
    run = _opened(settings, facts)
    with _alone(out), Stopper() as stopper:
        recover(plan)
        with where.connected():
            stopped = _search(plan, settings, stopper, where)
        result = _record(plan, facts)
        _write(result, out)
        reasons = [trial["reason"] for trial in result["trials"] if trial["state"] == "failed"]
        if result["best"] is None and reasons:
            raise UserError(f"no trial succeeded ({reasons[0]})", hint=f"see {out / 'trials'}")
        if result["best"] is not None:
            _pictures(plan, result, out)
            if not stopped:
                result["comparison"] = finish(plan, final, result["best"], data, settings.bootstrap)
                _write(result, out)
    if result["comparison"] is None:
        tqdm.write(f"stopped: continue with 'detect tune --out {out} --resume'")
    else:
        run.finish({"val_ap": result["best"]["value"], "trial": result["best"]["number"]})
    return {**result, "out": str(out)}


def _planned(settings: TuneSettings) -> tuple[TrialPlan, TrainSettings, TrainingData]:
    """What trials do, what the final training starts from, and the data."""
    base = dataclasses.replace(settings.base, resume=False)
    space = load_space(settings.space, base)
    if settings.trial_steps is not None and "steps" in {**space.searched, **space.fixed}:
        raise UserError("both --trial-steps and the space give steps", hint="leave one of them out")
    final = dataclasses.replace(base, **space.fixed)
    trials = settings.trials or 20
    if settings.method == "grid":
        points = math.prod(len(values) for values in space.grid().values())
        trials = min(settings.trials or points, points)
    trial = dataclasses.replace(final, steps=settings.trial_steps or final.steps)
    threads = max(1, torch.get_num_threads() // settings.workers) if settings.workers > 1 else 0
    plan = TrialPlan(trial, space, settings.method, settings.sampler, settings.pruner, trials, threads)
    alone = RECIPES.get(final.recipe).reals_only
    data = TrainingData.open(
        base.real,
        base.fake,
        base.synthetic,
        base.force,
        alone,
        base.synthetic_limit,
        View(base.view, base.window),
    )
    return plan, final, data


def _opened(settings: TuneSettings, facts: dict[str, Any]) -> Run:
    """The run folder, new or that of the same search; a search goes on only with what it began with."""
    out = settings.base.out
    old = Run(out).config if Run(out).config_file.is_file() else None
    if old is not None:
        if old.get("kind") != "tune":
            raise UserError(f"{out} holds a run of another kind", hint="name another --out")
        if WEIGHED not in old:
            raise UserError(
                f"the search in {out} began when every validation image counted alike: new trials cannot be compared",
                hint="name another --out",
            )
        free = ("trials", "minutes", "workers", "bootstrap", "base")
        pairs = [(name, old.get(name), facts[name]) for name in facts if name not in free]
        pairs += [
            (name, value, facts["base"][name])
            for name, value in old["base"].items()
            if name in facts["base"] and name not in ("out", "resume", "device", "threads")
        ]
        for name, before, now in pairs:
            if name == "data_hashes":  # the data, wherever it lies by now
                before, now = sorted((before or {}).values()), sorted(now.values())
            if as_text(before) != as_text(now):
                raise UserError(
                    f"the search in {out} began with another {name}",
                    hint="name another --out, or go on as it was with --resume",
                )
    run = Run.create(out, facts, kind="tune", resume=old is not None)
    if settings.space.resolve() != (out / _SPACE).resolve():
        write_text(out / _SPACE, settings.space.read_text(encoding="utf-8"))
    return run


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two searches in one folder would take each other's running trials for lost ones."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(out / "tune.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another 'detect tune' is at work in {out}", hint="wait for it, or name another --out"
            ) from error
        yield


def _search(plan: TrialPlan, settings: TuneSettings, stopper: Stopper, where: ExecutorSettings) -> bool:
    """Run the trials that are still to be done; returns whether the user asked to stop."""
    study = open_study(plan)
    done = ended_trials(study)
    if not done and plan.method != "grid" and not study.get_trials(deepcopy=False):
        known = plan.space.params(plan.base)
        if known is not None:  # what the search has to beat
            study.enqueue_trial(known)
    counts: dict[str, int] = {}
    if settings.minutes is not None:
        plan = dataclasses.replace(plan, deadline=time.time() + 60 * settings.minutes)
    with tqdm(total=plan.trials, initial=len(done), unit="trial", desc=f"tune ({plan.method})") as bar:
        tickets = (number for number in range(len(done), plan.trials) if not stopper.asked)
        if where.is_ray:
            from crossfake.detect.tuning.cluster import run_trials

            ends = run_trials(plan, tickets, settings.workers, where, lambda: stopper.asked)
        else:
            workers = min(settings.workers or 1, max(1, plan.trials - len(done)))
            ends = (how for _, how in map_in_order(functools.partial(run_trial, plan), tickets, workers))
        for ended in ends:
            if ended == "stopped" or stopper.asked:
                (plan.base.out / STOP).touch()
                return True
            if ended == "skipped":
                break
            counts[ended] = counts.get(ended, 0) + 1
            bar.update()
            complete = [float(t.value or 0) for t in ended_trials(study) if t.state.name == "COMPLETE"]
            bar.set_postfix({"best": f"{max(complete, default=0):.4f}", **counts})
            if counts.get("failed", 0) >= _HOPELESS and not complete:
                break
    return stopper.asked


def _record(plan: TrialPlan, facts: dict[str, Any]) -> dict[str, Any]:
    """Every trial in plain words, the best of them, and how much each setting mattered."""
    study = open_study(plan)
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    trials = []
    for trial in ended_trials(study):
        attributes = trial.user_attrs
        failed = trial.state.name == "FAIL"
        trials.append(
            {
                "number": trial.number,
                "state": names[trial.state.name],
                "value": None if failed else trial.value,
                "params": trial.params,
                "settings": asdict(trial_settings(plan, trial.params, trial_folder(plan, trial.number)))
                if set(trial.params) == set(plan.space.searched)
                else None,
                "seed": attributes.get("seed"),
                "seconds": attributes.get("seconds"),
                "step": attributes.get("step", trial.last_step),
                "validation": {str(step): value for step, value in trial.intermediate_values.items()},
                "same_as": attributes.get("same_as"),
                "reason": attributes.get("reason", "its process was killed") if failed else "",
                "data_hashes": attributes.get("data_hashes", facts["data_hashes"]),
                "validation_hash": attributes.get("validation_hash", facts["validation_hash"]),
            }
        )
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: (trial["value"], -trial["number"]), default=None)
    return {**facts, "trials": trials, "best": best, "importance": _importance(study), "comparison": None}


def _write(result: dict[str, Any], out: Path) -> None:
    write_json(out / _RESULT, result, default=str)


def _importance(study: Any) -> dict[str, float]:
    """fANOVA (Hutter et al. 2014); empty when there are too few trials or all came out the same."""
    optuna = import_optuna()
    values = [trial.value for trial in ended_trials(study) if trial.state.name == "COMPLETE"]
    if len(values) < 4 or len(set(values)) < 2:
        return {}
    found = optuna.importance.get_param_importances(study, evaluator=_fanova())
    return {name: float(value) for name, value in found.items()}


def _fanova() -> Any:
    return import_optuna().importance.FanovaImportanceEvaluator(seed=0)


def _pictures(plan: TrialPlan, result: dict[str, Any], out: Path) -> None:
    from crossfake.detect.tuning.pictures import draw_study

    draw_study(open_study(plan), result["trials"], out, _fanova() if result["importance"] else None)


def format_trials(result: dict[str, Any], most: int = 10) -> str:
    """The best completed trials as a terminal table, and the failed ones with their reasons."""
    complete = sorted(
        (trial for trial in result["trials"] if trial["state"] == "complete"),
        key=lambda trial: (-trial["value"], trial["number"]),
    )
    names = list(result["space"]["searched"])
    lines = [["trial", "val AP", *names, "step", "seconds"]]
    for trial in complete[:most]:
        cells = [_cell(trial["params"][name]) for name in names]
        seconds = f"= trial {trial['same_as']}" if trial["same_as"] is not None else f"{trial['seconds']:.0f}"
        lines.append([str(trial["number"]), f"{trial['value']:.4f}", *cells, str(trial["step"]), seconds])
    rows = aligned(lines)
    states = [trial["state"] for trial in result["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    rows.append(f"{len(states)} trials: {counts}")
    rows += [f"trial {t['number']} failed: {t['reason']}" for t in result["trials"] if t["state"] == "failed"]
    return "\n".join(rows)


def format_comparison(comparison: dict[str, Any]) -> str:
    """Default against tuned, each figure with its interval."""
    lines = [f"on validation ({comparison['note']}):"]
    for name in ("default", "tuned", "difference"):
        sign = "+" if name == "difference" else ""
        cells = [
            f"{figure.upper()} {part['value']:{sign}.4f} [{part['low']:{sign}.4f}, {part['high']:{sign}.4f}]"
            for figure, part in comparison[name].items()
        ]
        lines.append(f"  {name:<10}  {'  '.join(cells)}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
