"""Starting a training from the weights of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake.errors import UserError
from crossfake.fit.checkpoints import newest_checkpoint, read_checkpoint
from crossfake.synth.sampling.models import DISCRIMINATOR, WEIGHTS
from crossfake.synth.training.learner import GeneratorLearner


def transfer(learner: GeneratorLearner, source: Path) -> str:
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
            state = read_checkpoint(checkpoint)
            found = {"generator": state["average"], "discriminator": state.get("discriminator")}
        elif (folder / WEIGHTS).is_file():
            found = {"generator": load_file(folder / WEIGHTS)}
            if (folder / DISCRIMINATOR).is_file():
                found["discriminator"] = load_file(folder / DISCRIMINATOR)
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{source} cannot be read ({error})", hint="name another --init") from error
    if not found:
        raise UserError(f"{source} holds no generator", hint="give --init a run or a model folder")
    words = []
    for part, weights in found.items():
        network = getattr(learner, part, None)
        if weights and network is not None:
            taken, whole = _take(network, weights)
            words.append(f"{taken} of {whole} arrays of the {part}")
            if not taken:
                raise UserError(f"no part of {source} fits the {part}", hint="train the same family")
    learner.average.load_state_dict(learner.generator.state_dict())
    return " and ".join(words)


def _take(network: nn.Module, weights: dict[str, Tensor]) -> tuple[int, int]:
    own = network.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
    }
    network.load_state_dict(own | fitting)
    return len(fitting), len(own)
