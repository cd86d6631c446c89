"""The fast forms against the slow definitions they stand for."""

import math

import pytest
import torch
import torch.nn.functional as F

from crossfake.synth.families.layers import (
    Conv,
    Dense,
    convolved,
    downsample,
    fir,
    minibatch_stddev,
    upsample,
)


def _low_pass(x: torch.Tensor) -> torch.Tensor:
    """[1, 3, 3, 1] over one padded picture, by its definition."""
    kernel = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
    return torch.stack([F.conv2d(x[:, c : c + 1], kernel[None, None]) for c in range(x.shape[1])], 1).squeeze(
        2
    )


def test_downsample_is_the_low_pass_and_every_second_pixel() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(downsample(x), _low_pass(F.pad(x, (1, 1, 1, 1)))[:, :, ::2, ::2])


def test_fir_is_the_low_pass() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fir(x, padding=2, gain=4.0), 4 * _low_pass(F.pad(x, (2, 2, 2, 2))))


def test_upsample_is_zero_insertion_and_the_low_pass() -> None:
    x = torch.randn(2, 3, 8, 8)
    zeros = torch.zeros(2, 3, 16, 16)
    zeros[:, :, ::2, ::2] = x
    torch.testing.assert_close(upsample(x), 4 * _low_pass(F.pad(zeros, (2, 1, 2, 1))))
    torch.testing.assert_close(upsample(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))


def test_dense_scales_weights_and_bias_at_run_time() -> None:
    layer = Dense(6, 5, bias_start=1.0, lr=0.01, activate=True)
    x = torch.randn(3, 6)
    expected = F.leaky_relu(x @ (layer.weight * 0.01 / math.sqrt(6)).T + layer.bias * 0.01, 0.2) * math.sqrt(
        2
    )
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.bias * 0.01, torch.ones(5))


@pytest.mark.parametrize(("kernel", "down"), [(1, False), (3, False), (3, True), (1, True)])
def test_conv_has_unit_gain_shape_and_activation(kernel: int, down: bool) -> None:
    layer = Conv(6, 4, kernel, down=down, gain=0.5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 8, 8)
    if down:
        x_low = _low_pass(F.pad(x, [2 if kernel == 3 else 1] * 4))
    weight = layer.weight / math.sqrt(6 * kernel**2)
    expected = (
        F.conv2d(x_low, weight, layer.bias, stride=2)
        if down
        else F.conv2d(x, weight, layer.bias, padding=kernel // 2)
    )
    torch.testing.assert_close(
        layer(x), F.leaky_relu(expected, 0.2) * math.sqrt(2) * 0.5, atol=1e-5, rtol=1e-5
    )


def test_a_pointwise_convolution_of_many_bfloat16_pixels_has_gradients_of_gradients() -> None:
    """The convolution of torch 2.14 ends the process here where the processor multiplies bfloat16."""
    x = torch.rand(8, 3, 256, 256).to(torch.bfloat16, memory_format=torch.channels_last).requires_grad_()
    weight = (
        torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 4.0]])[:, :, None, None]
        .to(torch.bfloat16)
        .requires_grad_()
    )
    y = convolved(x, weight)
    assert y.shape == (8, 2, 256, 256) and y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), F.conv2d(x.float(), weight.float()), atol=0.02, rtol=0.01)
    (slope,) = torch.autograd.grad(y.float().sum(), x, create_graph=True)
    assert slope[0, :, 0, 0].tolist() == [1.5, 2.0, 3.0]
    slope.float().square().mean().backward()
    expected = 2 / 3 * torch.tensor([1.5, 2.0, 3.0]).expand(2, 3)
    torch.testing.assert_close(weight.grad.flatten(1).float(), expected, atol=0.02, rtol=0.01)


def test_minibatch_stddev_groups_images_a_stride_apart() -> None:
    x = torch.randn(8, 3, 4, 4)
    result = minibatch_stddev(x, group=4)
    assert result.shape == (8, 4, 4, 4)
    torch.testing.assert_close(result[:, :3], x)
    for first in range(2):
        members = x[first::2]
        expected = (members.var(dim=0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(result[first::2, 3], expected.expand(4, 4, 4))


def test_minibatch_stddev_takes_any_batch() -> None:
    assert minibatch_stddev(torch.randn(3, 2, 4, 4)).shape == (3, 3, 4, 4)
    assert (minibatch_stddev(torch.randn(1, 2, 4, 4))[:, 2] < 1e-3).all()
