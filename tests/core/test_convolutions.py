from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake import convolutions
from crossfake.device import autocast

CPU = torch.device("cpu")
SHAPES = [
    # size, kernel, stride, padding: maps of 4×4 and 4×3 in all passes, of 8×8, 7×5 and 3×3 in that of the weights
    ((4, 4), (3, 3), (1, 1), (1, 1)),
    ((9, 8), (3, 3), (2, 3), (1, 1)),
    ((8, 8), (3, 3), (1, 1), (1, 1)),
    ((15, 12), (3, 5), (2, 2), (1, 1)),
    ((5, 5), (3, 3), (1, 1), (0, 0)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHAPES)
def test_products_of_patches_are_the_convolution(size: Any, kernel: Any, stride: Any, padding: Any) -> None:
    torch.manual_seed(0)
    images, weight = torch.randn(3, 8, *size), torch.randn(6, 8, *kernel)

    def passes(convolve: Any) -> list[Tensor]:
        leaves = [images.clone().requires_grad_(), weight.clone().requires_grad_()]
        found = convolve(*leaves)
        (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
        return [found, *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]

    own = passes(lambda x, w: convolutions._Patches.apply(x, w, stride, padding))
    exact = passes(lambda x, w: F.conv2d(x, w, None, stride, padding))
    for found, expected in zip(own, exact, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights of the convolutions that become products."""
    seen: list[Tensor] = []
    apply = convolutions._Patches.apply
    monkeypatch.setattr(convolutions._Patches, "apply", lambda *args: (seen.append(args[1]), apply(*args))[1])
    return seen


def test_only_large_trained_weights_on_small_maps_become_products(taken: list[Tensor]) -> None:
    images = torch.rand(1, 128, 8, 8)
    with autocast(CPU, "bf16"):
        for layer, size in (
            (nn.Conv2d(128, 128, 3, padding=1), 9),  # a map too large
            (nn.Conv2d(128, 64, 3, padding=1), 8),  # weights too few
            (nn.Conv2d(128, 1200, 1), 8),
            (nn.Conv2d(128, 128, 3, padding=2, dilation=2), 8),
            (nn.Conv2d(128, 256, 3, groups=2), 8),
            (nn.Conv2d(128, 128, 3, padding="same"), 8),
            (nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False), 8),
        ):
            layer(torch.rand(1, 128, size, size))
        fitting = nn.Conv2d(128, 128, 3, padding=1)
        with torch.no_grad():
            judged = fitting(images)
        assert not taken
        learnt = fitting(images)
        assert len(taken) == 1 and learnt.dtype is torch.bfloat16
    torch.testing.assert_close(learnt, judged, atol=0.02, rtol=0.02)
    with autocast(CPU, "fp32"):
        fitting(images)
    assert len(taken) == 1


def test_a_maps_memory_format_is_kept_and_gradients_reach_the_master_weights(taken: list[Tensor]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.rand(2, 256, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    with autocast(CPU, "bf16"):
        found = layer(images)
    assert taken and found.is_contiguous(memory_format=torch.channels_last)
    found.float().square().mean().backward()
    own = [p.grad for p in (images, *layer.parameters())]
    for parameter in (images, *layer.parameters()):
        parameter.grad = None
    layer(images).square().mean().backward()
    for gradient, parameter in zip(own, (images, *layer.parameters()), strict=True):
        assert gradient is not None and parameter.grad is not None and gradient.dtype is torch.float32
        error = (gradient - parameter.grad).norm() / parameter.grad.norm()
        assert error < 0.01


@pytest.mark.parametrize("options", [{}, {"dropout_p": 0.0, "attn_mask": None}])
def test_attention_that_is_trained_through_is_torchs_own(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 10, 16, requires_grad=True) for _ in range(3)]
    exact = F.scaled_dot_product_attention(*parts)
    weights = torch.randn_like(exact)
    expected = torch.autograd.grad((exact * weights).sum(), parts)
    softmax, made = Tensor.softmax, []
    monkeypatch.setattr(
        Tensor, "softmax", lambda *args, **kwargs: (made.append(1), softmax(*args, **kwargs))[1]
    )
    with autocast(CPU, "bf16"):
        found = F.scaled_dot_product_attention(*parts, **options)
    assert made  # as products, not the fused one
    torch.testing.assert_close(found.float(), exact, atol=0.03, rtol=0.03)
    for own, theirs in zip(
        torch.autograd.grad((found.float() * weights).sum(), parts), expected, strict=True
    ):
        torch.testing.assert_close(own, theirs, atol=0.06, rtol=0.06)


@pytest.mark.parametrize(
    "options", [{"is_causal": True}, {"attn_mask": torch.eye(10, dtype=torch.bool)}, {"scale": 2.0}]
)
def test_attention_with_a_mask_or_scale_is_left_alone(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 10, 16, requires_grad=True) for _ in range(3)]
    with autocast(CPU, "bf16"):
        found = F.scaled_dot_product_attention(*parts, **options)
    exact = F.scaled_dot_product_attention(*parts, **options)
    torch.testing.assert_close(found.float(), exact, atol=0.08, rtol=0.08)
