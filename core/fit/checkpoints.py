"""Checkpoints: what a stopped or killed run goes on from, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from crossfake.errors import UserError
from crossfake.files import replacing
from crossfake.fit.learner import Training
from crossfake.runs import Run

_KEPT = 2
_LONGEST = 300  # characters of a reason: it may name every array


def newest_checkpoint(run: Path) -> Path | None:
    """The last one in a run's folder."""
    return max((run / "checkpoints").glob("*.pt"), default=None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training's state, its tensors on the CPU; nothing in the file is executed.

    Raises:
        ValueError: it is damaged, or no checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds, in many lines
        raise ValueError("it is damaged, or no checkpoint") from error
    return state


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state; a crash at any moment leaves the file that was there.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot write {path} ({error})", hint="free some space and go on with --resume"
        ) from error


def save_checkpoint(training: Training, run: Run) -> Path:
    """Write the state as it is now, and drop all but the newest ones; ``UserError`` as of :func:`save_state`."""
    path = run.checkpoints / training.checkpoint_name.format(step=training.learner.step)
    save_state(path, training.state())
    for old in sorted(run.checkpoints.glob("*.pt"))[:-_KEPT]:
        old.unlink()
    return path


def restore_checkpoint(training: Training, checkpoint: Path) -> None:
    """Put a training into the state that was saved; ``UserError`` when it was of another kind of run, or is damaged."""
    try:
        training.restore(read_checkpoint(checkpoint))
    except Exception as error:  # load_state_dict raises many kinds, in many lines
        raise UserError(
            f"{checkpoint} does not fit this run ({' '.join(str(error).split())[:_LONGEST]})",
            hint="resume with the settings it had, or start another --out",
        ) from error


def open_run(
    training: Training, out: Path, config: dict[str, Any], *, kind: str, resume: bool
) -> tuple[Run, Path | None]:
    """The folder of a run that begins, or goes on from its newest checkpoint.

    Args:
        training: is put into the checkpoint's state.
        out: the folder.
        config: the settings, and all that was chosen.
        kind: of :meth:`Run.create`.
        resume: go on, if there is a checkpoint; without one a run begins anew.

    Returns:
        the run, and the checkpoint that it goes on from.

    Raises:
        UserError: the folder holds a run that is not to be resumed, or one of other data or settings.
    """
    run, found = Run(out), newest_checkpoint(out) if resume else None
    if found:
        training.check_unchanged(run)
        restore_checkpoint(training, found)  # before anything of the run is written: it may not fit
    if training.is_main:
        run = Run.create(out, config, kind=kind, resume=resume)
        if resume:
            run.trim_log(training.learner.step)  # so that no line stands twice
    if resume and not found:
        training.say(f"{out} has no checkpoint yet: starting from the beginning")
    return run, found
