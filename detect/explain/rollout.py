"""Attention rollout: through all layers of a vision transformer, how much of each patch reaches the output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.errors import UserError


def transformer(network: nn.Module) -> Any:
    """The part that is a plain vision transformer as timm writes them (every token sees all others), else None.

    Several networks in one have no attention in common, so of an ensemble it is None.
    """
    found = []
    for module in network.modules():
        if not (
            hasattr(module, "patch_embed")
            and isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList)
        ):
            continue
        attentions = [getattr(block, "attn", None) for block in module.blocks]  # type: ignore[union-attr]
        if attentions and all(hasattr(a, "fused_attn") and hasattr(a, "attn_drop") for a in attentions):
            found.append(module)
    return found[0] if len(found) == 1 and not hasattr(network, "members") else None


@torch.no_grad()
def rollout(network: nn.Module, images: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, sec. 3, eq. 1), heads averaged.

    Of each layer half is its attention and half the residual connection; the product over all layers is read in the
    class token's row, or averaged over the patches where those are pooled. It says what was looked at, not whether
    that spoke for fake.

    Args:
        images: float ``[B, 3, H, W]`` in [0, 1].

    Returns:
        float32 ``[B, H, W]``, not negative.
    """
    vit = transformer(network)
    flow: Tensor | None = None
    seen: list[Any] = []
    handle = vit.patch_embed.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape[-2:])
    )
    try:
        with _attention(vit) as layers:
            network(images)
    finally:
        handle.remove()
    for attention in layers:
        mean = attention.float().mean(1)
        if mean.shape[0] != len(images) or (flow is not None and flow.shape != mean.shape):
            raise UserError(
                "this transformer's tokens do not all see each other",
                hint="explain it with --method occlusion",
            )
        mixed = 0.5 * mean + 0.5 * torch.eye(mean.shape[-1], device=mean.device)
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None
    prefix = int(getattr(vit, "num_prefix_tokens", 1))
    by_class_token = prefix > 0 and getattr(vit, "global_pool", "token") == "token"
    rows = flow[:, :1] if by_class_token else flow[:, prefix:]
    patches = rows.mean(1)[:, prefix:]
    side = math.isqrt(patches.shape[1])
    grid = patches.reshape(len(images), 1, side, side)
    height, width = images.shape[-2:]
    # a tower of native windows sees whole patches in their middle; others see all, resized
    inner = seen[0] if getattr(network, "native", False) else (height, width)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    rim = (left, width - inner[1] - left, top, height - inner[0] - top)
    found = F.interpolate(grid, tuple(inner), mode="bilinear", align_corners=False)
    return F.pad(found, rim, mode="replicate")[:, 0]


@contextmanager
def _attention(vit: Any) -> Iterator[list[Tensor]]:
    """The attention ``[B, heads, N, N]`` of every layer in what runs meanwhile: fused kernels never hold it."""
    found: list[Tensor] = []
    attentions = [block.attn for block in vit.blocks]
    before = [attention.fused_attn for attention in attentions]
    handles = [
        attention.attn_drop.register_forward_hook(lambda module, inputs, output: found.append(output))
        for attention in attentions
    ]
    try:
        for attention in attentions:
            attention.fused_attn = False
        yield found
    finally:
        for attention, fused, handle in zip(attentions, before, handles, strict=True):
            attention.fused_attn = fused
            handle.remove()
