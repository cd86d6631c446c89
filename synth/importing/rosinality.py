"""The networks of rosinality's StyleGAN2: names, and what is scaled when."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError
from crossfake.synth.families.layers import Mapping as MappingNetwork
from crossfake.synth.families.stylegan2 import Generator

_IGNORED = re.compile(r"\.kernel$")  # of the resampling filters, [1, 3, 3, 1] throughout


def generator_state(
    theirs: Mapping[str, Tensor], mean: Tensor | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and weights of our generator for those of a ``g_ema``.

    Args:
        theirs: its ``state_dict``.
        mean: the mean of w, ``latent_avg``; files of trained models lack it, and it is estimated from 10,000 z.

    Raises:
        UserError: a name is unknown or missing: another architecture.
    """
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if not _IGNORED.search(name):
            key, weight = _generator_entry(name, value)
            state[key] = weight
    try:
        depth = sum(name.startswith("to_rgb.") and name.endswith(".affine.weight") for name in state)
        arguments: dict[str, Any] = {
            "size": 4 * 2 ** (depth - 1),
            "z_dim": int(state["mapping.layers.0.weight"].shape[1]),
            "w_dim": int(state["mapping.layers.0.weight"].shape[0]),
            "mapping_layers": sum(name.startswith("mapping.layers.") for name in state) // 2,
            "widths": [int(state[f"to_rgb.{k}.weight"].shape[1]) for k in range(depth)],
        }
    except KeyError as error:
        raise UserError(f"the generator lacks {error}", hint="import a StyleGAN2 model") from error
    with torch.device("meta"):  # arrays of a few numbers may imply layers of any width
        shapes = {name: value.shape for name, value in Generator(**arguments).state_dict().items()}
    stream = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        if name.endswith("noise_const") and name not in state:
            state[name] = torch.randn(
                shape, generator=stream
            )  # files of older versions have none: any will do
    state["mapping.w_avg"] = torch.zeros(arguments["w_dim"]) if mean is None else mean.flatten()
    if mean is None:
        with torch.device("meta"):
            mapping = MappingNetwork(arguments["z_dim"], arguments["w_dim"], arguments["mapping_layers"])
        parts = {key.removeprefix("mapping."): value for key, value in state.items()}
        mapping.load_state_dict(
            {key: parts[key] for key in mapping.state_dict() if key in parts}, assign=True
        )
        z = torch.randn(10_000, arguments["z_dim"], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            state["mapping.w_avg"] = mapping(z).mean(dim=0).clone()
    return arguments, state


def discriminator_state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our discriminator for those of a ``d``; ``UserError`` for another architecture."""
    blocks = 1 + max(
        (int(m[1]) for name in theirs if (m := re.match(r"convs\.(\d+)\.conv1\.", name))), default=0
    )
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if not _IGNORED.search(name):
            state[_discriminator_name(name, blocks)] = value
    return state


def _generator_entry(name: str, value: Tensor) -> tuple[str, Tensor]:
    if name == "input.input":
        return "const", value
    if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"mapping.layers.{int(match[1]) - 1}.{match[2]}", value
    if match := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"{_conv(int(match[1]) - 1)}.noise_const", value[0, 0]
    match = re.fullmatch(r"(conv1|to_rgb1|convs\.(\d+)|to_rgbs\.(\d+))\.(.+)", name)
    if match is None:
        raise UserError(f"{name} is not part of a StyleGAN2 generator", hint="import a StyleGAN2 model")
    part, conv, rgb, what = match.groups()
    what = what.replace("conv.modulation.", "affine.")
    if part == "to_rgb1" or rgb is not None:
        where = f"to_rgb.{0 if rgb is None else int(rgb) + 1}"
        if what == "conv.weight":
            return f"{where}.weight", value[0]
        return f"{where}.{what}", value.flatten() if what == "bias" else value
    where = _conv(-1 if conv is None else int(conv))
    if what == "conv.weight":  # scaled at run time there; demodulation undoes it but for its epsilon
        return f"{where}.weight", value[0] / math.sqrt(value[0, 0].numel())
    names = {"noise.weight": "noise_strength", "activate.bias": "bias"}
    return f"{where}.{names.get(what, what)}", value.reshape(()) if what == "noise.weight" else value


def _conv(number: int) -> str:
    """The first convolution is -1; then an up-sampling one and a plain one by turns."""
    return (
        "convs.0" if number < 0 else f"ups.{number // 2}" if number % 2 == 0 else f"convs.{number // 2 + 1}"
    )


def _discriminator_name(name: str, blocks: int) -> str:
    plain = {
        "convs.0.0.weight": "from_rgb.weight",
        "convs.0.1.bias": "from_rgb.bias",
        "final_conv.0.weight": "conv.weight",
        "final_conv.1.bias": "conv.bias",
        "final_linear.0.weight": "dense.weight",
        "final_linear.0.bias": "dense.bias",
        "final_linear.1.weight": "out.weight",
        "final_linear.1.bias": "out.bias",
    }
    if name in plain:
        return plain[name]
    match = re.fullmatch(r"convs\.(\d+)\.(conv1|conv2|skip)\.\d\.(weight|bias)", name)
    if match is None:
        raise UserError(f"{name} is not part of a StyleGAN2 discriminator", hint="import a StyleGAN2 model")
    resolution = 4 * 2 ** (blocks - int(match[1]))
    part = {"conv1": "conv0", "conv2": "conv1", "skip": "skip"}[match[2]]
    return f"blocks.{resolution}.{part}.{match[3]}"
