"""Convolutions and attention that autocast on CPUs computes in a quicker way than torch's own, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What is quicker as products of matrices, measured on AMX: weights of at least so many numbers on maps of at most so
# many places; on the smallest maps all three passes are, else the gradient of the weights alone
_WEIGHTS, _PLACES, _ALL_PASSES = 128 * 128 * 9, 64, 16


class QuickConvolutions(TorchFunctionMode):
    """Under bfloat16 autocast on CPUs.

    Depthwise convolutions run in float32: their bfloat16 gradients take several times as long. Large weights on small
    maps that are trained become products of matrices: oneDNN's gradient of such weights takes 3 to 6 times as long.
    So does attention that is trained through: torch's fused gradient was two fifths of a ViT-S's step.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (
            func is F.scaled_dot_product_attention
            and torch.is_grad_enabled()
            and _is_quicker_attention(kwargs or {}, args)
        ):
            queries, keys, values = args
            return (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(dim=-1) @ values
        if func is not F.conv2d or len(args) != 7:
            return func(*args, **(kwargs or {}))
        images, weight, bias, stride, padding, dilation, groups = args
        if groups == len(weight) > 1:
            with torch.autocast("cpu", enabled=False):
                found: Any = F.conv2d(
                    images.float(), weight.float(), None if bias is None else bias.float(), *args[3:]
                )
            return found.bfloat16()
        if torch.is_grad_enabled() and weight.requires_grad and _small(images, weight, *args[3:]):
            with torch.autocast("cpu", enabled=False):
                found = _Patches.apply(
                    images.bfloat16().contiguous(memory_format=torch.channels_last),
                    weight.bfloat16(),
                    tuple(stride),
                    tuple(padding),
                )
                return found if bias is None else found + bias.bfloat16()[:, None, None]
        return func(*args, **(kwargs or {}))


def _is_quicker_attention(options: Mapping[str, Any], args: Sequence[Any]) -> bool:
    """Whether attention has no mask, dropout or scale of its own, and a gradient to compute."""
    asked = any(isinstance(value, Tensor) or bool(value) for value in options.values())
    return len(args) == 3 and not asked and any(each.requires_grad for each in args)


def _small(images: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution is one that :class:`_Patches` computes quicker."""
    if groups != 1 or any(isinstance(each, int | str) for each in (stride, padding, dilation)):
        return False
    if max(dilation) > 1 or weight.shape[2:].numel() == 1 or weight.numel() < _WEIGHTS:
        return False
    height, width = _map(images, weight, stride, padding)
    return 0 < height * width <= _PLACES


def _map(images: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, int]:
    """Height and width of what a convolution gives."""
    height, width = (
        (side + 2 * pad - kernel) // step + 1
        for side, pad, kernel, step in zip(images.shape[2:], padding, weight.shape[2:], stride, strict=True)
    )
    return height, width


class _Patches(torch.autograd.Function):
    """A convolution whose gradient of the weights is one product of matrices, from the patches that each place sees.

    Args:
        images: bfloat16 ``[B, C, H, W]``, channels last.
        weight: bfloat16 ``[O, C, k, l]``.
        stride: of rows and columns.
        padding: zeros above and below, left and right.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        height, width = _map(images, weight, stride, padding)
        ctx.all_passes = height * width <= _ALL_PASSES
        if not ctx.all_passes:
            return F.conv2d(images, weight, None, stride, padding)
        found = _patches(images, weight.shape, stride, padding) @ _rows(weight).T
        return found.view(len(images), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        images, weight = ctx.saved_tensors
        outputs, channels, *kernel = weight.shape
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
        of_weight = rows.T.contiguous() @ _patches(images, weight.shape, ctx.stride, ctx.padding)
        of_images: Tensor | None = None
        if ctx.needs_input_grad[0] and ctx.all_passes:
            patches = (rows @ _rows(weight)).view(len(images), *gradient.shape[2:], *kernel, channels)
            of_images = _put_back(patches, images.shape, ctx.stride, ctx.padding)
        elif ctx.needs_input_grad[0]:
            of_images = torch.ops.aten.convolution_backward(
                gradient.contiguous(memory_format=torch.channels_last),
                images,
                weight,
                None,
                ctx.stride,
                ctx.padding,
                (1, 1),
                False,
                (0, 0),
                1,
                (True, False, False),
            )[0]
        return of_images, of_weight.view(outputs, *kernel, channels).permute(0, 3, 1, 2), None, None


def _rows(weight: Tensor) -> Tensor:
    """``[O, C, k, l]`` as ``[O, k·l·C]``, the order of :func:`_patches`."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _patches(images: Tensor, kernel: torch.Size, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """What each place sees, ``[B·h·w, k·l·C]``."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    seen = padded.unfold(1, kernel[2], stride[0]).unfold(2, kernel[3], stride[1])
    return seen.permute(0, 1, 2, 4, 5, 3).reshape(seen.shape[:3].numel(), -1)


def _put_back(patches: Tensor, shape: torch.Size, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Sums of patches ``[B, h, w, k, l, C]`` at the pixels ``[B, C, H, W]`` that they were taken from; float32 sums."""
    _, height, width, *kernel, channels = patches.shape
    top, left = padding
    canvas = patches.new_zeros(
        len(patches), shape[2] + 2 * top, shape[3] + 2 * left, channels, dtype=torch.float32
    )
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            canvas[
                :, row : row + stride[0] * height : stride[0], column : column + stride[1] * width : stride[1]
            ] += patches[:, :, :, row, column]
    inner = canvas[:, top : top + shape[2], left : left + shape[3]]
    return inner.permute(0, 3, 1, 2).to(patches.dtype)
