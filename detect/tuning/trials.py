"""Trials of a search: who proposes settings, who ends a poor trial early, and one trial in its own folder.

All processes share one journal file, so a search needs no database. Every trial's sampler is made anew with a seed of
(search seed, how many trials came before), so a search that was stopped proposes what an unstopped one would.
Hence no ``study.optimize`` (one sampler for all, and workers that ask at once leave holes in a grid) and no heartbeat
with retries (needs a database, and waits before it takes a killed trial for lost; :func:`recover` knows at once).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crossfake.detect.settings import Method, Pruner, Sampler
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.detect.tuning.space import SearchSpace
from crossfake.errors import MissingDependency, UserError
from crossfake.runs import Run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STOP = "stop"  # in the search's folder: no trial begins any more
_JOURNAL, _LOCK = "study.journal", "ask"
_ATTEMPTS = 3  # a trial that kills its process that often is left as failed


@dataclass(frozen=True)
class TrialPlan:
    """What a trial has to know, sent to worker processes.

    Attributes:
        base: settings of the trials but for what the space varies; ``out`` is the search's folder.
        space: what varies.
        method: ``grid``, ``random`` or ``bayes``.
        sampler: of ``bayes``: ``tpe`` (Bergstra et al. 2011) or ``gp``, a Gaussian process with expected improvement.
        pruner: ``median`` ends a trial whose validation AP is below the median of the others at that step,
            ``hyperband`` (Li et al. 2018) gives most steps to few, ``none`` ends none.
        trials: in the whole search; how long the sampler explores depends on it.
        threads: of torch in a worker; 0 leaves it alone.
        deadline: time after which no trial but the first begins.
        places: where shards and weights lie on this machine, by what the search calls them; those not named lie there.
    """

    base: TrainSettings
    space: SearchSpace
    method: Method
    sampler: Sampler
    pruner: Pruner
    trials: int
    threads: int = 0
    deadline: float = float("inf")
    places: Mapping[Path, Path] = field(default_factory=dict)

    def here(self, settings: TrainSettings) -> TrainSettings:
        """The settings with shards and weights where they lie on this machine."""
        kinds = ("real", "fake", "synthetic")
        moved: dict[str, Any] = {
            kind: tuple(self.places.get(folder, folder) for folder in getattr(settings, kind))
            for kind in kinds
        }
        weights = settings.weights and self.places.get(settings.weights, settings.weights)
        return dataclasses.replace(settings, **moved, weights=weights)


def import_optuna() -> Any:
    """Optuna, with its log silenced.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependency("optuna", extra="tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(plan: TrialPlan, number: int | None = None) -> Study:
    """The study in the search's folder, with the sampler for trial ``number``, or none for reading only."""
    optuna = import_optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    file = str(plan.base.out / _JOURNAL)
    storage = optuna.storages.JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
    return optuna.create_study(
        storage=storage,
        study_name="tune",
        sampler=optuna.samplers.RandomSampler(0) if number is None else _sampler(plan, number),
        pruner=_pruner(plan),
        direction="maximize",
        load_if_exists=True,
    )


def _sampler(plan: TrialPlan, number: int) -> Any:
    samplers = import_optuna().samplers
    seed = (plan.base.seed * 1_000_003 + number) % 2**32
    if plan.method == "grid":

        class Grid(samplers.GridSampler):  # type: ignore[name-defined, misc]
            def after_trial(self, *_: Any) -> None:
                """The search counts for itself; Optuna would stop a loop that is not there."""

        return Grid(plan.space.grid(), seed=plan.base.seed)
    if plan.method == "random":
        return samplers.RandomSampler(seed)
    exploring = max(4, min(10, plan.trials // 3))
    if plan.sampler == "gp":
        return samplers.GPSampler(seed=seed, n_startup_trials=exploring)
    return samplers.TPESampler(seed=seed, n_startup_trials=exploring)


def _pruner(plan: TrialPlan) -> Any:
    pruners = import_optuna().pruners
    steps, between = plan.base.steps, plan.base.eval_every
    if plan.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=steps // 5)
    if plan.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=min(between, steps), max_resource=steps)
    return pruners.NopPruner()


def recover(plan: TrialPlan) -> None:
    """Make the folder ready after a kill: a journal of whole lines, no stale locks, lost trials queued again."""
    out = plan.base.out
    for name in (_JOURNAL, _LOCK):
        (out / f"{name}.lock").unlink(missing_ok=True)
    (out / STOP).unlink(missing_ok=True)
    journal = out / _JOURNAL
    if journal.exists():
        whole = journal.read_bytes()
        if whole and not whole.endswith(b"\n"):
            journal.write_bytes(whole[: whole.rfind(b"\n") + 1])
    optuna = import_optuna()
    try:
        study = open_study(plan)
        lost = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    except (ValueError, KeyError) as error:
        raise UserError(f"{journal} is damaged ({error})", hint="name another --out") from error
    for trial in lost:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        shutil.rmtree(trial_folder(plan, trial.number), ignore_errors=True)
        attempt = trial.user_attrs.get("attempt", 1) + 1
        if attempt <= _ATTEMPTS:
            again = optuna.trial.create_trial(
                state=optuna.trial.TrialState.WAITING,
                system_attrs={**trial.system_attrs, "fixed_params": trial.params},
                user_attrs={"attempt": attempt, "instead_of": trial.number},
            )
            study.add_trial(again)


def ended_trials(study: Study) -> list[FrozenTrial]:
    """Trials that ended, without those that were lost to a kill and queued again."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("instead_of") for trial in trials}
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in again]


def trial_folder(plan: TrialPlan, number: int) -> Path:
    """Where a trial's run lies: ``trials/0007`` below the search's folder."""
    return plan.base.out / "trials" / f"{number:04d}"


def trial_settings(plan: TrialPlan, params: dict[str, Any], out: Path) -> TrainSettings:
    """The base with the suggested settings, for a training in ``out``."""
    return dataclasses.replace(plan.base, **plan.space.values(params), out=out)


def as_text(value: Any) -> str:
    """JSON by which settings are told apart, whether from memory or from a file."""
    return json.dumps(value, default=str, sort_keys=True)


@dataclass(frozen=True)
class Ended:
    """What became of a trial.

    Attributes:
        how: ``complete``, ``pruned``, ``failed``, ``stopped``, or ``skipped`` after the deadline.
        value: of a complete one.
        facts: what the study notes of it.
    """

    how: str
    value: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def run_trial(plan: TrialPlan, number: int) -> str:
    """Propose settings, train with them and note what came of it; returns how it ended, see :class:`Ended`.

    A trial that fails is noted with its reason and disturbs no other. One that was stopped is left as running:
    :func:`recover` queues it again.
    """
    if is_over(plan, number):
        return "skipped"
    if plan.threads:
        torch.set_num_threads(plan.threads)
    study, trial = propose(plan, number)
    if trial is None:
        return "complete"
    ended = attempt(
        plan, trial.params, trial_folder(plan, trial.number), functools.partial(is_poor, study, trial)
    )
    if ended.how == "stopped":
        (plan.base.out / STOP).touch()
    note(study, trial, ended)
    return ended.how


def is_over(plan: TrialPlan, number: int) -> bool:
    """Whether no trial begins any more."""
    return (plan.base.out / STOP).exists() or bool(number and time.time() > plan.deadline)


def propose(plan: TrialPlan, number: int) -> tuple[Study, Trial | None]:
    """The study and trial ``number`` of it, begun; None for one of settings that a complete one had: it is noted."""
    study = open_study(plan, number)
    with _one_at_a_time(plan.base.out / _LOCK):
        trial = study.ask(plan.space.distributions())
    trial.set_user_attr("seed", plan.base.seed)
    twin = _twin(study, trial)
    if twin is None:
        return study, trial
    same = {"same_as": twin.number, "seconds": 0.0, "step": twin.user_attrs.get("step")}
    note(study, trial, Ended("complete", twin.value, same))
    return study, None


def attempt(
    plan: TrialPlan, params: Mapping[str, Any], folder: Path, poor: Callable[[int, float], bool]
) -> Ended:
    """Train with a trial's settings.

    Args:
        plan: of the search.
        params: as proposed.
        folder: of the trial; its log stays there.
        poor: told the steps and the validation AP at each validation; whether the trial is ended for it.
    """
    optuna, began = import_optuna(), time.monotonic()
    facts: dict[str, Any] = {}
    value = None

    def report(step: int, figures: dict[str, float]) -> None:
        if poor(step, figures["val_ap"]):
            raise optuna.TrialPruned

    try:
        card = _train(plan, dict(params), folder, report)
    except optuna.TrialPruned:
        how = "pruned"
    except Exception as error:  # a trial that fails, however it does, ends no search
        facts["reason"] = _reason(error)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "output.txt", "a") as file:
            traceback.print_exc(file=file)
        how = "failed"
    else:
        if card is None:
            return Ended("stopped")
        facts = {name: card.get(name) for name in ("step", "validation_hash", "data_hashes")}
        how, value = "complete", float(card["validation_ap"])
    facts["seconds"] = round(time.monotonic() - began, 1)
    _tidy(folder)
    return Ended(how, value, facts)


def note(study: Study, trial: Trial, ended: Ended) -> None:
    """Write into the study what became of a trial; one that was stopped goes on as running."""
    states = import_optuna().trial.TrialState
    if ended.how == "stopped":
        return
    for name, value in ended.facts.items():
        trial.set_user_attr(name, value)
    state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[ended.how]
    study.tell(trial, ended.value, state)


def is_poor(study: Study, trial: Trial, step: int, value: float) -> bool:
    """Note a trial's validation AP at a step; whether it is worse than the others' there, so that it should end."""
    trial.report(value, step)
    return bool(trial.should_prune())


def _train(
    plan: TrialPlan, params: dict[str, Any], folder: Path, report: Callable[[int, dict[str, float]], None]
) -> dict[str, Any] | None:
    """The bundle's card, or None when the training was stopped; what it prints goes to ``output.txt``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (
        open(folder / "output.txt", "w") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        settings = plan.here(trial_settings(plan, params, folder))
        run = Run(train(settings, report, weigh_as=plan.here(plan.base)))
    card: dict[str, Any] | None = (
        json.loads((run.model / "bundle.json").read_text()) if run.finished else None
    )
    return card


def _twin(study: Study, trial: Trial) -> FrozenTrial | None:
    """A completed trial of the same settings: with the same seed it would come out the same again."""
    done = study.get_trials(deepcopy=False, states=(import_optuna().trial.TrialState.COMPLETE,))
    return next((other for other in done if other.params == trial.params), None)


def _reason(error: Exception) -> str:
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words}"


def _tidy(folder: Path) -> None:
    """Keep the log and drop the weights: no other command should take a trial for a finished detector."""
    for part in ("model", "checkpoints"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "finished.json").unlink(missing_ok=True)
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two processes that ask at the same time would not know of each other's trial."""
    from optuna.storages.journal import JournalFileOpenLock

    lock = JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
