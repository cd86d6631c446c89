"""Names and shapes of the official StyleGAN3 generators, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError
from crossfake.synth.families.stylegan3 import Generator, bands

_HINT = "import a stylegan3 model as it was published"
_LAYER = re.compile(r"synthesis\.L(\d{1,3})_(\d{1,5})_(\d{1,5})\.([a-z_.]+)")
_CRITICAL, _MOST_LAYERS, _MOST_MARGIN = 2, 64, 64


def is_stylegan3(theirs: Mapping[str, Tensor]) -> bool:
    """Whether tensors by their official names are those of StyleGAN3: its input has frequencies."""
    return "synthesis.input.freqs" in theirs


def generator_state(theirs: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Family, arguments and weights of our generator for those of an official ``G`` or ``G_ema``.

    Args:
        theirs: parameters and buffers under their official names, ``synthesis.L0_36_512.weight`` and so on.

    Raises:
        UserError: a name is unknown or missing, or layers or filters are not those of the paper.
    """
    state: dict[str, Tensor] = {}
    filters: dict[tuple[int, str], Tensor] = {}
    shapes: dict[int, tuple[int, int]] = {}  # size and width of each layer, as it is called
    for name, value in theirs.items():
        if match := _LAYER.fullmatch(name):
            k, what = int(match[1]), match[4]
            shapes[k] = int(match[2]), int(match[3])
            if what in ("up_filter", "down_filter"):
                filters[k, what] = value
            else:
                state[f"layers.{k}.{'magnitude' if what == 'magnitude_ema' else what}"] = value
        elif name == "synthesis.input.transform":
            if value.shape != (3, 3) or not torch.allclose(value, torch.eye(3)):
                raise UserError("its pictures are moved", hint=_HINT)
        elif name.startswith("synthesis.input."):
            state[name.removeprefix("synthesis.")] = value
        elif match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            state[f"mapping.layers.{match[1]}.{match[2]}"] = value
        else:  # what has no place here is refused when the weights are loaded
            state[name] = value
    arguments = _arguments(state, shapes)
    _check_design(arguments, shapes, filters)
    rotation = arguments.pop("rotation")
    return "stylegan3-r" if rotation else "stylegan3", arguments, state


def _arguments(state: Mapping[str, Tensor], shapes: dict[int, tuple[int, int]]) -> dict[str, Any]:
    try:
        layers = max(shapes) if shapes else 0  # the last one makes colours
        if not _CRITICAL < layers <= _MOST_LAYERS or set(shapes) != set(range(layers + 1)):
            raise UserError(f"it has {len(shapes)} layers", hint=_HINT)
        size, w_dim = shapes[layers][0], int(state["mapping.w_avg"].shape[0])
        if size not in (16, 32, 64, 128, 256, 512, 1024):
            raise UserError(f"its images have {size} pixels", hint=_HINT)
        margin = (shapes[0][0] - bands(size, layers, _CRITICAL, 0)[0].rate) // 2
        classes = int(state["mapping.embed.weight"].shape[1]) if "mapping.embed.weight" in state else 0
        return {
            "size": size,
            "classes": classes,
            "z_dim": int(state["mapping.layers.0.weight"].shape[1]) - (w_dim if classes else 0),
            "w_dim": w_dim,
            "mapping_layers": sum(
                re.fullmatch(r"mapping\.layers\.\d+\.weight", name) is not None for name in state
            ),
            "layers": layers,
            "margin": margin,
            "layer_widths": [shapes[k][1] for k in range(layers)],
            "rotation": state["layers.0.weight"].shape[2:] == (1, 1),
        }
    except (KeyError, IndexError) as error:
        raise UserError(f"the generator lacks {error}", hint=_HINT) from error


def _check_design(
    arguments: dict[str, Any],
    shapes: dict[int, tuple[int, int]],
    filters: dict[tuple[int, str], Tensor],
) -> None:
    """Refuse what is computed in another way here: sizes and filters follow from the arguments."""
    if not 0 <= arguments["margin"] <= _MOST_MARGIN:
        raise UserError(f"its margin is {arguments['margin']}", hint=_HINT)
    with torch.device("meta"):
        ours = Generator(**arguments)
    for k, band in enumerate(ours.bands):
        activation: Any = ours.layers[k].activation
        for what in ("up_filter", "down_filter"):
            wanted, there = torch.tensor(getattr(activation, what)).float().cpu(), filters.get((k, what))
            same = (
                there is not None and there.shape == wanted.shape and torch.allclose(there, wanted, atol=1e-5)
            )
            if shapes[k][0] != band.size or not same:
                raise UserError(f"layer {k} filters in another way", hint=_HINT)
    if shapes[len(ours.bands)][1] != 3:
        raise UserError("its images have no three colours", hint=_HINT)
