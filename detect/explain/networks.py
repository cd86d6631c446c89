"""What the methods ask of a network, and the state in which they look at it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.errors import MissingDependency


def needs(module: str, package: str) -> Any:
    """The module of an optional package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(package, extra="explain") from error


@contextmanager
def as_it_is(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, weights without gradients, and no layer that overwrites its input: it would change the
    features that a method has just looked at. Everything is as before afterwards."""
    training = network.training
    overwriting = [module for module in network.modules() if getattr(module, "inplace", False) is True]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for module in overwriting:
        module.inplace = False  # type: ignore[assignment]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        network.train(training)
        for module in overwriting:
            module.inplace = True  # type: ignore[assignment]
        for parameter in learning:
            parameter.requires_grad_(True)


def home(network: nn.Module) -> torch.device:
    """Where the weights are."""
    tensors = [*network.parameters(), *network.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def cam_layer(network: nn.Module) -> nn.Module | None:
    """The module whose output is the last spatial map, None where the network has none."""
    layer = getattr(network, "cam_layer", None)
    return layer if isinstance(layer, nn.Module) else None


def is_spatial(network: nn.Module, size: int) -> bool:
    """Whether there is a layer whose output ``[1, C, h, w]`` the logit has a gradient to."""
    layer = cam_layer(network)
    if layer is None:
        return False
    seen: list[Any] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        _one(network, size)
    finally:
        handle.remove()
    return bool(seen) and isinstance(seen[0], Tensor) and seen[0].ndim == 4 and seen[0].requires_grad


def is_differentiable(network: nn.Module, size: int) -> bool:
    """Whether the logit has a gradient to the pixels."""
    return _one(network, size).requires_grad


def _one(network: nn.Module, size: int) -> Tensor:
    with as_it_is(network), torch.enable_grad():
        logit: Tensor = network(torch.full((1, 3, size, size), 0.5, device=home(network)).requires_grad_())
    return logit


def blurred(images: Tensor) -> Tensor:
    """The baseline of all methods that take something away: a Gaussian of a sixteenth of the side, ``[B, 3, H, W]``.

    It removes detail, and with it most traces of forgery, but adds no edges as a grey square would.
    """
    sigma = max(1.0, images.shape[-1] / 16)
    reach = min(round(3 * sigma), images.shape[-1] - 1)
    distance = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(distance**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(padded, kernel, groups=3)
    return F.conv2d(across, kernel.transpose(2, 3), groups=3).clamp_(0, 1)
