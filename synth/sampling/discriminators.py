"""The discriminator that a model was trained against, where it was kept."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from crossfake.fit.checkpoints import newest_checkpoint
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.families.stylegan2 import Discriminator, widths_in
from crossfake.synth.sampling.models import DISCRIMINATOR, Model


def load_discriminator(model: Model) -> nn.Module | None:
    """From beside the model, or from its run's newest checkpoint; None where it is in neither, or does not fit.

    Called with images float32 ``[B, 3, H, W]`` in [-1, 1], a dtype and one-hot labels it returns logits ``[B]``.
    """
    build = FAMILIES.get(model.family).discriminator
    if build is None:
        return None
    try:
        if (model.path / DISCRIMINATOR).is_file():
            weights = load_file(model.path / DISCRIMINATOR)
        else:
            checkpoint = newest_checkpoint(model.path.parent)
            if model.path.name != "model" or checkpoint is None:
                return None
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[
                "discriminator"
            ]
        arguments: dict[str, Any] = model.card["network"]
        if build is Discriminator:  # its widths may be another's than the generator's
            shared = {k: v for k, v in arguments.items() if k in ("size", "classes", "clamp")}
            arguments = shared | {"widths": widths_in(weights)}
        discriminator = build(**arguments)
        discriminator.load_state_dict(weights)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError):
        return None  # of another run, or cut short
    return discriminator.eval().requires_grad_(False).to(model.device)
