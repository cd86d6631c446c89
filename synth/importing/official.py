"""Names and shapes of the official PyTorch StyleGAN2 networks, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crossfake.errors import UserError

_IGNORED = re.compile(r"(^|\.)(resample_filter|num_batches_tracked)$")
_PLACES = {"conv0": "ups", "conv1": "convs", "torgb": "to_rgb"}


def generator_state(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and weights of our generator for those of an official ``G`` or ``G_ema``.

    Args:
        theirs: parameters and buffers under their official names, ``synthesis.b4.const`` and so on.

    Raises:
        UserError: a name is unknown or missing: another architecture.
    """
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if _IGNORED.search(name):
            continue
        ours = _generator_name(name)
        if ours is None:
            raise UserError(f"{name} is not part of a StyleGAN2 generator", hint="import a stylegan2 model")
        state[ours] = value[None] if ours == "const" else value
    try:
        depth = sum(name.startswith("to_rgb.") and name.endswith(".affine.weight") for name in state)
        widths = [int(state[f"to_rgb.{k}.weight"].shape[1]) for k in range(depth)]
        layers = sum(name.startswith("mapping.layers.") and name.endswith(".weight") for name in state)
        w_dim = int(state["mapping.w_avg"].shape[0])
        classes = int(state["mapping.embed.weight"].shape[1]) if "mapping.embed.weight" in state else 0
        arguments = {
            "size": 4 * 2 ** (depth - 1),
            "classes": classes,
            "z_dim": int(state["mapping.layers.0.weight"].shape[1]) - (w_dim if classes else 0),
            "w_dim": w_dim,
            "mapping_layers": layers,
            "widths": widths,
        }
    except (KeyError, IndexError) as error:
        raise UserError(f"the generator lacks {error}", hint="import a stylegan2 model") from error
    return arguments, state


def discriminator_state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our discriminator for those of an official ``D``; ``UserError`` for another architecture."""
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if _IGNORED.search(name):
            continue
        ours = _discriminator_name(name)
        if ours is None:
            raise UserError(
                f"{name} is not part of a StyleGAN2 discriminator", hint="import a stylegan2 model"
            )
        state[ours] = value
    return state


def _generator_name(name: str) -> str | None:
    if found := _mapping_name(name):
        return found
    if name == "synthesis.b4.const":
        return "const"
    match = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name)
    if match is None:
        return None
    k = int(match[1]).bit_length() - 3  # of the resolution, from 0 for 4×4
    return f"{_PLACES[match[2]]}.{k - 1 if match[2] == 'conv0' else k}.{match[3]}"


def _discriminator_name(name: str) -> str | None:
    if found := _mapping_name(name):
        return found
    match = re.fullmatch(r"b(\d+)\.(fromrgb|conv0|conv1|skip|conv|fc|out)\.(.+)", name)
    if match is None:
        return None
    block, part, what = match.groups()
    if part in ("conv0", "conv1", "skip"):
        return f"blocks.{block}.{part}.{what}"
    return f"{ {'fromrgb': 'from_rgb', 'fc': 'dense'}.get(part, part) }.{what}"


def _mapping_name(name: str) -> str | None:
    match = re.fullmatch(r"mapping\.(?:fc(\d+)|(embed))\.(weight|bias)", name)
    if match:
        return f"mapping.embed.{match[3]}" if match[2] else f"mapping.layers.{match[1]}.{match[3]}"
    return name if name == "mapping.w_avg" else None
