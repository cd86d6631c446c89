"""What a run keeps: checkpoints to go on from, and weights to start another run with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake.errors import UserError
from crossfake.runs import Run, save_state
from crossfake.synth.sampling.models import DISCRIMINATOR, WEIGHTS
from crossfake.synth.training.learner import Learner

_KEPT = 2


def newest_checkpoint(run: Path) -> Path | None:
    return max((run / "checkpoints").glob("*.pt"), default=None)


def save_checkpoint(learner: Learner, run: Run) -> Path:
    """Write the state; a crash at any moment leaves the checkpoints that were there."""
    path = run.checkpoints / f"{learner.step:08d}.pt"
    save_state(path, learner.state())
    for old in sorted(run.checkpoints.glob("*.pt"))[:-_KEPT]:
        old.unlink()
    return path


def restore_checkpoint(learner: Learner, checkpoint: Path) -> None:
    """Put a learner into the state that was saved; ``UserError`` when it was another kind of run."""
    try:
        learner.restore(_read(checkpoint))
    except Exception as error:
        raise UserError(
            f"{checkpoint} does not fit this run ({error})", mend="resume with the settings it had"
        ) from error


def transfer(learner: Learner, source: Path) -> str:
    """Start from the weights of a run or a model; parts that have other shapes keep their random start.

    Between resolutions, and between a network with classes and one without, the parts that both have are taken.

    Returns:
        how much was taken, in words.

    Raises:
        UserError: nothing is there, or nothing of it fits.
    """
    checkpoint = newest_checkpoint(source)
    folder = source / "model" if (source / "model").is_dir() else source
    found: dict[str, Any] = {}
    try:
        if checkpoint:
            state = _read(checkpoint)
            found = {"generator": state["average"], "discriminator": state.get("discriminator")}
        elif (folder / WEIGHTS).is_file():
            found = {"generator": load_file(folder / WEIGHTS)}
            if (folder / DISCRIMINATOR).is_file():
                found["discriminator"] = load_file(folder / DISCRIMINATOR)
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{source} cannot be read ({error})", mend="name another --init") from error
    if not found:
        raise UserError(f"{source} holds no generator", mend="give --init a run or a model folder")
    words = []
    for part, weights in found.items():
        network = getattr(learner, part, None)
        if weights and network is not None:
            taken, whole = _take(network, weights)
            words.append(f"{taken} of {whole} arrays of the {part}")
            if not taken:
                raise UserError(f"no part of {source} fits the {part}", mend="train the same family")
    learner.average.load_state_dict(learner.generator.state_dict())
    return " and ".join(words)


def _take(network: nn.Module, weights: dict[str, Tensor]) -> tuple[int, int]:
    own = network.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
    }
    network.load_state_dict(own | fitting)
    return len(fitting), len(own)


def _read(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return state
