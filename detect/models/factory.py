"""From a name to a network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from crossfake.detect.models.base import MODELS, DetectorNetwork
from crossfake.detect.models.timm_model import TimmModel
from crossfake.detect.models.weights import load_weights
from crossfake.errors import UserError

_COMMON = ("size", "pixels")  # options that are known of every training, whether the model needs them or not


def create_model(
    name: str,
    pretrained: bool = False,
    weights: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> DetectorNetwork:
    """A registered model, or any image model of timm by its name, with one output.

    On a backbone that has learnt something the head starts at zero: a random one would shake it in the first steps.

    Args:
        name: ``cnn``, ``npr``, ``resnet18``, ``vgg16``, ``vit_small_patch16_224``, …
        pretrained: load the published weights from the hub or its cache.
        weights: load these instead: safetensors, or a PyTorch file of tensors.
        options: the model's own. Every model takes ``size``, in pixels, and ``pixels``, what these are of; those that
            need none leave it out of theirs.

    Raises:
        UserError: unknown name or option, weights that cannot be had, or that do not fit.
    """
    if pretrained and weights:
        raise UserError("--pretrained and --weights exclude each other", hint="give one of them")
    build = MODELS.get(name) if name in MODELS else partial(TimmModel, name)
    known = [
        key
        for key, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    given = {key: value for key, value in (options or {}).items() if key not in _COMMON or key in known}
    for key in given:
        if key not in known or key == "pretrained":
            others = ", ".join(sorted({*known, "size"} - {"pretrained", "pixels"}))
            raise UserError(f"{name} has no option {key!r}", hint=f"its options are {others}")
    if pretrained and "pretrained" not in known:
        raise UserError(f"there are no published weights for {name}", hint="leave --pretrained out")
    model = build(**given, **({"pretrained": True} if pretrained else {}))
    model.name = name
    if pretrained or weights:
        for layer in model.head.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
    if weights:
        load_weights(model, weights)
    return model
