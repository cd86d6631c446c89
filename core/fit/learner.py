"""What the loop is given: a learner, which makes steps, and the training around it, which feeds and judges it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from crossfake.distributed import Ranks
from crossfake.progress import tqdm
from crossfake.runs import Run


class Learner:
    """Networks, optimisers and random state of one run: what a checkpoint holds, and one step of training.

    A subclass builds what it names in ``parts`` and gives :meth:`train_step`.

    Args:
        device: where it learns.
        batch: images per step, over all processes.
        together: how many images of a batch have to be in one process.
        seed: of the weights.

    Attributes:
        parts: attributes that have a ``state_dict``, or are None.
        step: how many steps were made.
        figures: what :meth:`train_step` returned since the last line of the log.

    Raises:
        UserError: the processes cannot share the batch evenly.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, device: torch.device, batch: int, together: int, seed: int) -> None:
        self.device = device
        self.ranks = Ranks(device, batch, together)
        torch.manual_seed(seed)  # weights are the same in every process
        self.step = 0
        self.figures: defaultdict[str, list[Tensor]] = defaultdict(list)

    def train_step(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One step on what :meth:`Training.batches` gives; adds 1 to ``step``.

        Returns scalar tensors to log, ``loss`` among them.
        """
        raise NotImplementedError

    def means(self) -> dict[str, float]:
        """Of the figures since the last line of the log, over all processes: what is not finite in one is so in all."""
        own = [float(torch.stack(values).float().mean()) for values in self.figures.values()]
        shared = torch.tensor(own, dtype=torch.float32, device=self.device)
        self.ranks.average([shared])
        return dict(zip(self.figures, shared.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors, numbers, and dictionaries and lists of them."""
        parts = {name: getattr(self, name) for name in self.parts}
        return {
            **{name: None if part is None else part.state_dict() for name, part in parts.items()},
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`, whose tensors are on the CPU."""
        for name in self.parts:
            if (part := getattr(self, name)) is not None:
                part.load_state_dict(state[name])
        self.step = state["step"]


@dataclass(frozen=True)
class FitArguments:
    """How long the loop goes on, and how often it does what.

    Attributes:
        title: of the bar.
        steps: at most, those of the run before it was resumed included.
        log_every: steps between lines of the log.
        snapshot_every: steps between snapshots: validation, checkpoint, and whatever else a training keeps.
        snapshot_when_stopped: whether a training that is stopped ends with a snapshot; else with a checkpoint alone.
        minutes: after which training ends; None is no limit.
        measured: steps from which it is told how long the others will take.
        unit: of the bar.
        per_step: units that a step makes.
        threads: of torch; 0 measures whether one or all are quicker, and the run keeps to that.
    """

    title: str
    steps: int
    log_every: int
    snapshot_every: int
    snapshot_when_stopped: bool = False
    minutes: float | None = None
    measured: int = 4
    unit: str = "step"
    per_step: int = 1
    threads: int = 0


class Training:
    """One run while it goes on: a learner, what it learns from, and what is done now and then.

    Attributes:
        learner: makes the steps.
        checkpoint_name: file name of the checkpoint of a step; where it is always the same, one is kept, else two.
    """

    learner: Learner
    checkpoint_name: ClassVar[str] = "{step:08d}.pt"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.learner.ranks.is_main

    def say(self, text: str) -> None:
        """Write a line above the bar, in one of the processes."""
        if self.is_main:
            tqdm.write(text)

    @property
    def arguments(self) -> FitArguments:
        """Of the loop."""
        raise NotImplementedError

    def describe(self) -> str:
        """What is trained on what, in one line."""
        raise NotImplementedError

    def batches(self) -> Generator[tuple[Any, ...]]:
        """This process's arguments of every step from the learner's on; the loop closes it."""
        raise NotImplementedError

    def check_unchanged(self, run: Run) -> None:
        """Raise ``UserError`` when a run is to go on with other data than it began with."""
        raise NotImplementedError

    def check(self, means: dict[str, float], run: Run) -> None:
        """Look at the means of a line of the log before it is written.

        Raises:
            UserError: one is not finite.
        """
        raise NotImplementedError

    def context(self) -> AbstractContextManager[None]:
        """In which all steps are made."""
        return nullcontext()

    def begin(self, run: Run) -> None:
        """Before the first step, in every process."""

    def outlook(self) -> str:
        """What there is to say about the rest of the run beside its duration."""
        return ""

    def enough(self) -> str:
        """Why training ends before its last step; empty while it does not."""
        return ""

    def validate(self) -> dict[str, float]:
        """Figures of a snapshot, before its checkpoint, in every process."""
        return {}

    def snapshot(self, run: Run) -> dict[str, float]:
        """What else a snapshot leaves, and its figures, after the checkpoint, in the process that writes."""
        return {}

    def rates(self, recent: float, overall: float) -> dict[str, float]:
        """Figures of speed, of seconds per step since the last line of the log, and since the loop began."""
        return {}

    def log_line(self, figures: dict[str, float]) -> dict[str, float]:
        """What a line of ``log.jsonl`` has, beside the step."""
        return figures

    def logged(self, figures: dict[str, float], bar: tqdm, snapshot: bool) -> None:
        """After a line of the log, in every process."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.learner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.learner.restore(state)
