"""The loop of every training: steps, log, snapshots, checkpoints, limits, and stopping in good order."""

from __future__ import annotations

import resource
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

import torch
from torch import Tensor

from crossfake.fit.checkpoints import save_checkpoint
from crossfake.fit.learner import Training
from crossfake.pages import duration
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stopping import Stopper
from crossfake.threads import Threads, choosing

_UNTIMED = 2  # steps, which allocate
_WORTH = 10.0  # seconds from which on what is to come is told


def fit(training: Training, run: Run) -> bool:
    """Train until the last step, or until there is a reason to end before.

    Ctrl-C and SIGTERM, sent to any of the processes, end all of them after the step at hand, with a checkpoint: a
    run that goes on from it equals one that was never stopped. The run's log is closed, its end not yet marked.

    Args:
        training: at its beginning, or as a checkpoint left it.
        run: where it writes.

    Returns:
        whether training ended; False when it was stopped.

    Raises:
        UserError: a figure is not finite, or the disk is full.
    """
    arguments, learner, ranks = training.arguments, training.learner, training.learner.ranks
    training.begin(run)
    try:
        with (
            Stopper() as stopper,
            training.context(),
            closing(training.batches()) as batches,
            _threads(training, run) as threads,
            _bar(training) as bar,
        ):
            clock, stop = _Clock(training), False
            while learner.step < arguments.steps and not stop:
                if reason := training.enough():
                    training.say(reason)
                    break
                figures = threads.call(lambda: learner.train_step(*next(batches)))
                for name, value in figures.items():
                    learner.figures[name].append(value)
                bar.update(arguments.per_step)
                clock.tell(figures["loss"])
                late = arguments.minutes is not None and clock.minutes >= arguments.minutes
                stop = ranks.agreed(stopper.asked or late)
                last = learner.step >= arguments.steps or (stop and arguments.snapshot_when_stopped)
                snapshot = last or learner.step % arguments.snapshot_every == 0
                if snapshot or learner.step % arguments.log_every == 0:
                    _log(training, run, bar, clock, snapshot)
                elif stop:  # the figures so far are in the checkpoint, and count in the next line
                    training.check(learner.means(), run)
                    if training.is_main:
                        save_checkpoint(training, run)
            # by vote: only the processes that were sent a signal know of it
            return not (stop and learner.step < arguments.steps and ranks.agreed(stopper.asked))
    finally:
        run.close()


def _threads(training: Training, run: Run) -> AbstractContextManager[Threads]:
    def decided(count: int, words: str) -> None:
        training.say(words)
        run.amend(threads=count)  # a run goes on with as many as it began with

    arguments, learner = training.arguments, training.learner
    return choosing(arguments.threads, arguments.steps - learner.step, learner.device, decided)


def _bar(training: Training) -> tqdm:
    arguments = training.arguments
    return tqdm(
        total=arguments.steps * arguments.per_step,
        initial=training.learner.step * arguments.per_step,
        unit=arguments.unit,
        unit_scale=arguments.per_step > 1,
        desc=arguments.title,
        disable=not training.is_main,
    )


def _log(training: Training, run: Run, bar: tqdm, clock: _Clock, snapshot: bool) -> None:
    """Close a span of steps: its means, a snapshot where one is due, a line of the log."""
    learner = training.learner
    figures = learner.means()
    training.check(figures, run)
    learner.figures.clear()
    if snapshot:
        figures |= training.validate()
    figures |= training.rates(*clock.per_step())
    if training.is_main:
        if snapshot:
            save_checkpoint(training, run)
            figures |= training.snapshot(run)
        run.log(training.log_line(figures), learner.step)
    training.logged(figures, bar, snapshot)
    clock.mark()


class _Clock:
    """Time since the loop began, and since the last line of the log; snapshots are no part of the latter."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._began = self._marked = self._now()
        self._measured_from = 0.0

    def _now(self) -> tuple[float, int]:
        return time.monotonic(), self._training.learner.step

    def mark(self) -> None:
        self._marked = self._now()

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._began[0]) / 60

    def per_step(self) -> tuple[float, float]:
        """Seconds since the mark, and since the beginning."""
        now, step = self._now()
        recent, overall = ((now - then) / max(step - at, 1) for then, at in (self._marked, self._began))
        return recent, overall

    def tell(self, figure: Tensor) -> None:
        """Say once how long the rest will take, where it is worth it; ``figure`` is of the step that was made."""
        arguments, step = self._training.arguments, self._training.learner.step
        made, left = step - self._began[1], arguments.steps - step
        if made == _UNTIMED:
            float(figure)  # waits for a GPU
            self._measured_from = time.monotonic()
        elif made == _UNTIMED + arguments.measured:
            float(figure)
            seconds = (time.monotonic() - self._measured_from) / arguments.measured
            if seconds * left >= _WORTH:
                self._training.say(
                    f"{left:,} of {arguments.steps:,} steps to go: about {duration(seconds * left)} at "
                    f"{seconds:.2g} s each (measured over {arguments.measured}){self._training.outlook()}"
                )


@dataclass(frozen=True)
class Cost:
    """What training takes.

    Attributes:
        seconds: of a step.
        memory: GB that this process has taken, at most: the GPU's where it trains on one.
    """

    seconds: float
    memory: float


def measure(training: Training, steps: int) -> Cost:
    """Of a few steps, which are thrown away."""
    learner, arguments = training.learner, training.arguments
    with (
        training.context(),
        closing(training.batches()) as batches,
        choosing(
            arguments.threads, arguments.steps, learner.device, lambda _, words: training.say(words)
        ) as threads,
    ):

        def make(count: int) -> None:
            for _ in range(count):
                figures = threads.call(lambda: learner.train_step(*next(batches)))
            float(figures["loss"])  # waits for a GPU

        while threads.measuring:
            make(1)

        make(_UNTIMED)
        started = time.monotonic()
        make(steps)
        seconds = (time.monotonic() - started) / steps
    if learner.device.type == "cuda":
        return Cost(seconds, torch.cuda.max_memory_allocated(learner.device) / 2**30)
    return Cost(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
