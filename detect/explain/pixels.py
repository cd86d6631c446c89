"""Attributions to the pixels themselves, by captum: gradients along a path, and covering up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossfake.detect.explain.networks import blurred, needs

_STEPS = 32  # points on the path from black to the image
_WINDOWS = 8  # occluding squares along one side, less their overlap
_AT_ONCE = 64  # images in one pass


def integrated_gradients(network: nn.Module, images: Tensor) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017, eq. 1) from black, summed over colours.

    The map's sum is the logit less that of a black image, up to the error of 32 points (:func:`path_error`).

    Args:
        images: float ``[B, 3, H, W]`` in [0, 1].

    Returns:
        float32 ``[B, H, W]``, signed.
    """
    library: Any = needs("captum.attr", "captum").IntegratedGradients(network)
    with torch.enable_grad():
        found = library.attribute(
            images, torch.zeros_like(images), n_steps=_STEPS, internal_batch_size=_AT_ONCE
        )
    return found.detach().sum(1).float()


@torch.no_grad()
def path_error(network: nn.Module, images: Tensor, maps: Tensor) -> Tensor:
    """What the maps of :func:`integrated_gradients` lack of the logits' difference (completeness), ``[B]``."""
    return maps.sum((1, 2)) - (network(images) - network(torch.zeros_like(images)))


@torch.no_grad()
def occlusion(network: nn.Module, images: Tensor) -> Tensor:
    """How far the logit falls when a square is blurred away (after Zeiler and Fergus 2014), signed ``[B, H, W]``.

    Squares are an eighth of the side and move by half of that; a pixel has the mean over those that cover it.
    """
    library: Any = needs("captum.attr", "captum").Occlusion(network)
    window = max(1, images.shape[-1] // _WINDOWS)
    found = library.attribute(
        images,
        sliding_window_shapes=(3, window, window),
        strides=(3, max(1, window // 2), max(1, window // 2)),
        baselines=blurred(images),
        perturbations_per_eval=max(1, _AT_ONCE // len(images)),
    )
    return found[:, 0].float()
