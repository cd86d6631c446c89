"""Trials as tasks of a Ray cluster. Their settings are proposed, and their ends noted, by the driver alone.

A trial's worker asks an actor beside the driver at each validation whether to go on: the study's journal is a file of
that machine. A trial whose worker dies is trained again from its start, with the settings that it had.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossfake.cluster import Sent, computing, import_ray, map_as_done, packed, unpacked
from crossfake.datasets.remote import Shared
from crossfake.datasets.shards import ShardSet
from crossfake.detect.tuning.space import Choices
from crossfake.detect.tuning.trials import (
    Ended,
    TrialPlan,
    attempt,
    import_optuna,
    is_over,
    is_poor,
    note,
    open_study,
    propose,
    trial_folder,
)
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings


@dataclass(frozen=True)
class Job:
    """A trial on its way: its number in the study, the study's own number for it, and its settings."""

    number: int
    key: int
    params: dict[str, Any]


class Judge:
    """Ends poor trials; an actor beside the driver, whose file the study is."""

    def __init__(self, plan: TrialPlan) -> None:
        self._study = open_study(plan)

    def is_poor(self, key: int, step: int, value: float) -> bool:
        """Whether the pruner ends a trial, by the study's own number for it, at a validation with this value."""
        return is_poor(self._study, import_optuna().trial.Trial(self._study, key), step, value)


def run_trials(
    plan: TrialPlan,
    tickets: Iterable[int],
    most: int,
    where: ExecutorSettings,
    asked: Callable[[], bool],
) -> Iterator[str]:
    """Run trials on the cluster that is connected; yields how each ended, as it ends.

    Args:
        plan: of the search.
        tickets: how many trials came before each.
        most: trials at once; 0 is as many as the cluster holds.
        where: the cluster.
        asked: whether the user wants to stop. What runs is left as running in the study.
    """
    ray = import_ray()
    begun: dict[int, Any] = {}
    known: list[str] = []  # ends of trials that need no training

    def jobs() -> Iterator[Job]:
        for number in tickets:
            if is_over(plan, number):
                known.append("skipped")
                return
            study, trial = propose(plan, number)
            if trial is None:
                known.append("complete")
                continue
            begun[trial.number] = study, trial
            yield Job(trial.number, trial._trial_id, trial.params)

    beside = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    there = replace(plan, base=replace(plan.base, out=plan.base.out.absolute()))
    judge = ray.remote(Judge).options(num_cpus=0, scheduling_strategy=beside).remote(there)
    work = functools.partial(_trial, sent=_sent(plan, where), judge=judge)
    try:
        for job, result in map_as_done(work, jobs(), computing(plan.base.device), most, asked):
            study, trial = begun.pop(job.number)
            if isinstance(result, UserError):
                ended = Ended("failed", facts={"reason": str(result), "seconds": None})
            else:
                ended, archive = result
                unpacked(archive, trial_folder(plan, job.number))
            note(study, trial, ended)
            yield ended.how
            while known:
                yield known.pop(0)
        yield from known
    finally:
        ray.kill(judge)


@dataclass(frozen=True)
class _SentPlan:
    """A plan, and the shards and weight files that its trainings read."""

    plan: TrialPlan
    shards: dict[Path, Shared]
    weights: dict[Path, Sent]

    def there(self) -> TrialPlan:
        places = {folder: shared.open().path for folder, shared in self.shards.items()}
        return replace(
            self.plan, places={**places, **{file: sent.there() for file, sent in self.weights.items()}}
        )


def _sent(plan: TrialPlan, where: ExecutorSettings) -> _SentPlan:
    base = replace(plan.base, device=plan.base.device.partition(":")[0])  # Ray deals the GPUs
    folders = (*base.real, *base.fake, *base.synthetic)
    varied = plan.space.searched.get("weights")
    files = {base.weights, *(varied.values if isinstance(varied, Choices) else ())} - {None}
    return _SentPlan(
        replace(plan, base=base),
        {folder: Shared.of(ShardSet(folder), where) for folder in folders},
        {file: Sent(file) for file in files if file},
    )


def _trial(job: Job, sent: _SentPlan, judge: Any) -> tuple[Ended, bytes]:
    """On a worker: how the trial ended, and its folder."""
    plan = sent.there()
    here = {str(there.resolve()): str(folder.resolve()) for folder, there in plan.places.items()}

    def poor(step: int, value: float) -> bool:
        return bool(import_ray().get(judge.is_poor.remote(job.key, step, value)))

    with tempfile.TemporaryDirectory(prefix="crossfake-") as temporary:
        folder = Path(temporary) / f"{job.number:04d}"
        ended = attempt(plan, job.params, folder, poor)
        if hashes := ended.facts.get("data_hashes"):  # by the driver's paths
            known = {here.get(path, path): digest for path, digest in hashes.items()}
            ended = replace(ended, facts={**ended.facts, "data_hashes": known})
        return ended, packed(folder)
