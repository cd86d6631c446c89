"""From the tensors of a published file to those of our model: names, and the few that are computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crossfake.detect.models import Model
from crossfake.errors import UserError
from crossfake.inert.values import shown

State = dict[str, Tensor]
_MEND = "name another --as, or give the authors' file"
_KERAS_EPSILON, _EPSILON = 1e-3, 1e-5  # of batch normalisation


def renamed(state: State, names: tuple[tuple[str, str], ...], unused: tuple[str, ...]) -> State:
    """The tensors that judging needs, under the names that regular expressions make of theirs."""
    skip, found = [re.compile(each) for each in unused], {}
    for name, tensor in state.items():
        if any(each.search(name) for each in skip):
            continue
        for expression, other in names:
            name = re.sub(expression, other, name)
        found[name] = tensor
    return found


def from_keras(state: State, model: Model) -> State:
    """Keras's layers in the order of their numbers are ours in the order in which an image passes them.

    Kernels are turned from HWIO to OIHW, the first dense one from a map of channels last, and the variance of a batch
    normalisation takes up the difference of the epsilons.
    """
    layers: dict[str, dict[int, State]] = {}
    for path, tensor in state.items():
        match = re.search(r"(?:^|/)([a-z0-9_]+?)(?:_(\d+))?/([a-z_]+)(?::\d+)?$", path)
        if match is None or path.startswith("optimizer_weights"):
            continue
        kind, number, what = match[1], int(match[2] or 0), match[3]
        layers.setdefault(kind, {}).setdefault(number, {})[what] = tensor
    kinds = {"conv2d": nn.Conv2d, "batch_normalization": nn.BatchNorm2d, "dense": nn.Linear}
    found: State = {}
    for kind, module in kinds.items():
        own = [name for name, each in model.named_modules() if isinstance(each, module)]
        theirs = [layers.get(kind, {})[number] for number in sorted(layers.get(kind, {}))]
        if len(own) != len(theirs):
            raise UserError(f"it has {len(theirs)} layers {kind}, not {len(own)}", mend="name another --as")
        for number, (name, layer) in enumerate(zip(own, theirs, strict=True)):
            found |= {f"{name}.{key}": value for key, value in _KERAS[kind](layer, not number).items()}
    return found


def _conv(layer: State, _: bool) -> State:
    return {"weight": layer["kernel"].permute(3, 2, 0, 1), "bias": layer["bias"]}


def _norm(layer: State, _: bool) -> State:
    variance = layer["moving_variance"] + (_KERAS_EPSILON - _EPSILON)
    return {
        "weight": layer["gamma"], "bias": layer["beta"], "running_mean": layer["moving_mean"], "running_var": variance
    }  # fmt: skip


def _dense(layer: State, first: bool) -> State:
    kernel = layer["kernel"]
    if first:  # of a map that was flattened: 16 channels, and any square
        side = round((len(kernel) / 16) ** 0.5)
        kernel = kernel.reshape(side, side, 16, -1).permute(2, 0, 1, 3).reshape(kernel.shape)
    return {"weight": kernel.T, "bias": layer["bias"]}


_KERAS: dict[str, Callable[[State, bool], State]] = {
    "conv2d": _conv,
    "batch_normalization": _norm,
    "dense": _dense,
}

READS: dict[str, Callable[[State, Any], State]] = {"keras": from_keras}


def one_logit(state: State, model: Model, classes: int, positive: str) -> State:
    """The last layer so that it gives one logit, positive for fake: of two classes their difference, whose sigmoid is
    the softmax of the second."""
    last = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)][-1]
    found = dict(state)
    for key in (f"{last}.weight", f"{last}.bias"):
        tensor = found.get(key)
        if tensor is None or not tensor.ndim:
            continue
        if classes == 2:
            if len(tensor) != 2:
                raise UserError(f"its last layer has {len(tensor)} outputs, not 2", mend="name another --as")
            tensor = tensor[1:] - tensor[:1]
        found[key] = -tensor if positive == "real" else tensor
    return found


def check(state: State, model: nn.Module) -> State:
    """The tensors of exactly the model's names and shapes; counters of batch norms are left as they are.

    Raises:
        UserError: one is missing, there is one more, or a shape differs.
    """
    own = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    theirs = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    for what, names in (
        ("lacks", own.keys() - theirs.keys()),
        ("has in addition", theirs.keys() - own.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise UserError(f"it {what} {shown(min(names))}{more}", mend=_MEND)
    for name, tensor in own.items():
        if tensor.shape != theirs[name].shape:
            mine, found = ("×".join(map(str, t.shape)) or "one number" for t in (tensor, theirs[name]))
            raise UserError(f"{name} is {found}, not {mine}", mend=_MEND)
    return theirs


def fill(model: nn.Module, state: State) -> None:
    """Copy the tensors that :func:`check` found into a model."""
    with torch.no_grad():
        model.load_state_dict({**model.state_dict(), **state})
