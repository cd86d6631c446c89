"""Detector networks: images in [0, 1], float ``[B, 3, H, W]``, to one logit each ``[B]``; positive means fake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake.errors import UserError
from crossfake.registry import Registry, unknown

MODELS: Registry[Callable[[], nn.Module]] = Registry("model")


class Normalised(nn.Module):
    """A network behind its input normalisation, so that callers never need to know it."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(images)
        return logits.float().squeeze(1)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


@MODELS.register()
def cnn() -> nn.Module:
    """Seven 3×3 convolutions, for faces of 32 to 128 pixels. The first two keep the full resolution: that is where
    the traces of up-sampling are. Any size goes, since the last map is averaged."""
    widths = [32, 32, 64, 64, 128, 128, 256]
    layers = [
        _block(inputs, outputs, stride=2 if number in (2, 4, 6) else 1)
        for number, (inputs, outputs) in enumerate(zip([3, *widths[:-1]], widths, strict=True))
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1], 1)]
    return Normalised(nn.Sequential(*layers, *head), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def create_model(name: str, pretrained: bool = False, weights: Path | None = None) -> nn.Module:
    """A registered model, or any image model of timm by its name, with one output.

    timm's architectures are taken exactly as published and see the image at its own size.

    Args:
        name: ``cnn``, ``resnet18``, ``vgg16``, ``densenet121``, …
        pretrained: load timm's published weights from the hub or its cache.
        weights: load these instead: safetensors, or a PyTorch file of tensors.

    Raises:
        UserError: unknown name, weights that cannot be had, or that do not fit.
    """
    if pretrained and weights:
        raise UserError("--pretrained and --weights exclude each other", mend="give one of them")
    if name in MODELS:
        if pretrained:
            raise UserError(f"there are no published weights for {name}", mend="leave --pretrained out")
        model = MODELS.get(name)()
        if weights:
            _load_backbone(model, weights)
        return model
    import timm

    if not timm.is_model(name):
        raise unknown("model", name, [*MODELS.names(), *timm.list_models()]) from None
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=1)
    except Exception as error:  # hubs raise many kinds of error when there is no network
        if not pretrained:
            raise
        config = timm.get_pretrained_cfg(name)
        wanted = config.hf_hub_id or config.url if config else "the hub"
        raise UserError(
            f"the weights of {name} could not be fetched ({type(error).__name__})",
            mend=f"fetch {wanted} elsewhere and name the file with --weights",
        ) from error
    if weights:
        _load_backbone(network, weights)
    published: Any = network.pretrained_cfg
    return Normalised(network, tuple(published["mean"]), tuple(published["std"]))


def _load_backbone(network: nn.Module, path: Path) -> None:
    """Load all layers whose names and shapes fit: the classifier of published weights has another width."""
    try:
        state = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there", mend="check --weights") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read as weights", mend="give safetensors or a file of tensors"
        ) from error
    except Exception as error:  # the unpickler refuses whatever is not a tensor
        raise UserError(
            f"{path} holds more than tensors, so it was not opened", mend="convert it to safetensors"
        ) from error
    state = _unwrapped(state, path)
    own = network.state_dict()
    fitting = {
        name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape
    }
    left = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    if sum(own[name].numel() for name in left) > 0.1 * sum(tensor.numel() for tensor in own.values()):
        raise UserError(
            f"{path} fits only {len(fitting)} of {len(own)} tensors", mend="check that it is of this model"
        )
    network.load_state_dict(fitting, strict=False)


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    """Checkpoints often wrap the weights: ``{"state_dict": …}``, and ``module.`` before every name."""
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no weights", mend="give safetensors or a file of tensors")
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
