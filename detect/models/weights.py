"""Published weights from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake.detect.models.base import DetectorNetwork
from crossfake.detect.models.timm_model import published_names
from crossfake.errors import UserError

# In the names of what adapters add: no published file has it
_ADDED = (".lora_", ".residual_")


def load_weights(model: DetectorNetwork, path: Path) -> None:
    """Load all layers whose names and shapes fit: the classifier of published weights has another width.

    The file holds weights for the model's backbone, or for the whole model as a bundle does. Where the names are
    another code's, the layers of a PyTorch file are taken one by one in their order, if every shape fits.

    Args:
        path: safetensors, or a PyTorch file of tensors.

    Raises:
        UserError: it cannot be read, holds more than tensors, or is of another model.
    """
    state = read_weights(path)
    choices: list[tuple[nn.Module, dict[str, Tensor]]] = [(model, state)]
    if model.backbone is not model:
        choices.append((model.backbone, published_names(model.backbone, state)))
        if path.suffix != ".safetensors":  # which has them in the order of their names
            choices.append((model.backbone, in_order(model.backbone, state)))
    module, state = max(choices, key=lambda choice: len(_fitting(*choice)))
    fitting, own = _fitting(module, state), module.state_dict()
    left = sum(tensor.numel() for name, tensor in _expected(own).items() if name not in fitting)
    if left > 0.1 * sum(tensor.numel() for tensor in own.values()):
        raise UserError(
            f"{path} fits only {len(fitting)} of {len(own)} tensors", hint="check that it is of this model"
        )
    module.load_state_dict(fitting, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names to tensors from a file; no pickled code is run.

    Raises:
        UserError: it cannot be read or holds more than tensors.
    """
    try:
        state = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there", hint="check --weights") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read as weights", hint="give safetensors or a file of tensors"
        ) from error
    except Exception as error:  # the unpickler refuses whatever is not a tensor
        raise UserError(
            f"{path} holds more than tensors, so it was not opened", hint="convert it to safetensors"
        ) from error
    return _unwrapped(state, path)


def in_order(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same architecture as another code names it: its tensors under the names of ours, one by one.

    Returns:
        Empty unless each tensor has the kind (``weight``, ``running_mean``, …) and the shape of ours at its place; two
        more, of a classifier, may come last.
    """
    own, theirs = _expected(module.state_dict()), list(_expected(state).items())
    if len(theirs) not in (len(own), len(own) + 2):
        return {}
    renamed = {}
    for (name, tensor), (other, value) in zip(own.items(), theirs, strict=False):
        if tensor.shape != value.shape or name.split(".")[-1] != other.split(".")[-1]:
            return {}
        renamed[name] = value
    return renamed


def _expected(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the counters of batch norms, which old files lack, and without what adapters add."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked") and not any(part in name for part in _ADDED)
    }


def _fitting(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a file goes into a module, under the module's names; peft calls a layer that it adapts base_layer."""
    fitting = {}
    for name, own in module.state_dict().items():
        tensor = state.get(name, state.get(name.replace(".base_layer.", ".")))
        if tensor is not None and tensor.shape == own.shape:
            fitting[name] = tensor
    return fitting


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    """Checkpoints often wrap the weights: ``{"state_dict": …}``, and ``module.`` before every name."""
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no weights", hint="give safetensors or a file of tensors")
    return {
        str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)
    }
