"""Building blocks of StyleGAN2 that both of its networks share.

Convolutions run in the dtype of their input (bfloat16 or float32) while parameters stay float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SQRT2 = math.sqrt(2)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, in place. Callers scale its input by √2, which has the same effect as
    scaling its output (it is positively homogeneous) and costs nothing when done on a bias or a weight."""
    return F.leaky_relu_(x, 0.2)


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """x within ±``limit``, in place without gradients: keeps 16-bit activations finite (Karras et al. 2020b, D.1)."""
    if limit is None:
        return x
    if not torch.is_grad_enabled():
        return x.clamp_(-limit, limit)
    return F.hardtanh(x, -limit, limit)  # its gradient is a third of clamp's work


def normalised(x: Tensor) -> Tensor:
    """Each row divided by the root of its mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Dense(nn.Module):
    """Linear layer with an equalised learning rate (Karras et al. 2018, sec. 4.1): weights are stored with
    unit variance and scaled at run time, so that Adam moves every layer equally fast.

    Args:
        bias_start: initial value of the bias.
        lr: learning-rate multiplier, 0.01 in the mapping network.
        activate: apply leaky ReLU times √2.

    Shapes: ``[B, inputs] -> [B, outputs]``, float32.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias_start: float = 0.0, lr: float = 1.0, activate: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias_start / lr))
        gain = _SQRT2 if activate else 1.0
        self.weight_gain, self.bias_gain, self.activate = gain * lr / math.sqrt(inputs), gain * lr, activate

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return leaky(x) if self.activate else x


class Mapping(nn.Module):
    """z, or a class, or both, to w: dense layers after normalisation, with a running mean of w for truncation.

    Args:
        z_dim: length of z; 0 where only the class is mapped, as in a projection discriminator.
        w_dim: length of w, and of the class's embedding.
        layers: how many.
        classes: how many; 0 is none.

    Shapes: z ``[B, z_dim]`` or None, labels one-hot ``[B, classes]`` or None → ``[B, w_dim]``, float32.
    """

    def __init__(self, z_dim: int, w_dim: int, layers: int = 8, classes: int = 0) -> None:
        super().__init__()
        self.embed = Dense(classes, w_dim) if classes else None
        widths = [z_dim + (w_dim if classes else 0)] + [w_dim] * layers
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.Sequential(*(Dense(i, o, lr=0.01, activate=True) for i, o in pairs))
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))
        self.w_avg: Tensor

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [normalised(z)]
        if self.embed is not None:
            parts.append(normalised(self.embed(labels)))
        w: Tensor = self.layers(torch.cat(parts, dim=1))
        return w

    @torch.no_grad()
    def track(self, mean: Tensor, momentum: float = 0.998) -> None:
        """Move the running mean of w towards that of a batch, ``[w_dim]``."""
        self.w_avg.lerp_(mean, 1 - momentum)


class Conv(nn.Module):
    """Convolution of the discriminator: equalised learning rate, optional FIR-filtered down-sampling by 2,
    optional leaky ReLU times √2 with its result within ±``clamp``, and an output ``gain`` folded into the weights.

    Shapes: ``[B, inputs, H, W] -> [B, outputs, H or H/2, W or W/2]``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        down: bool = False,
        activate: bool = True,
        gain: float = 1.0,
        clamp: float | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.gain = gain * (_SQRT2 if activate else 1.0)
        self.weight_gain = self.gain / math.sqrt(inputs * kernel**2)
        self.down, self.activate, self.kernel = down, activate, kernel
        self.clamp = clamp * gain if clamp is not None else None

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = (self.bias * self.gain).to(x.dtype) if self.bias is not None else None
        if not self.down:
            x = convolved(x, weight, bias)
        elif self.kernel == 1:  # filter and drop pixels first: the 1×1 then costs a quarter
            x = F.conv2d(downsample(x), weight, bias)
        else:
            x = F.conv2d(fir(x, padding=2), weight, bias, stride=2)
        return clamped(leaky(x), self.clamp) if self.activate else x


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """A convolution that keeps the size of maps, ``[B, inputs, H, W] -> [B, outputs, H, W]``.

    A 1×1 one of at most three bfloat16 channels is a matrix product: oneDNN (torch 2.14) kills the process with a
    division by zero in the convolution's gradient at 2¹⁹ pixels, such as 8 images of 256×256, and is slower below.
    """
    if weight.shape[1:].numel() <= 3 and groups == 1 and x.dtype is torch.bfloat16:
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=groups)


def _kernel(x: Tensor, taps: list[float], gain: float = 1.0) -> Tensor:
    """A separable low-pass, one copy per channel of x: ``[C, 1, T, T]``, summing to ``gain``."""
    row = torch.tensor(taps, device=x.device)
    kernel = torch.outer(row, row) * (gain / sum(taps) ** 2)
    return kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


def fir(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Low-pass every channel of ``[B, C, H, W]`` with [1, 3, 3, 1] (Karras et al. 2020a); zeros outside."""
    return F.conv2d(x, _kernel(x, [1, 3, 3, 1], gain), padding=padding, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """The [1, 3, 3, 1] low-pass and every second pixel. [1, 3, 3, 1] = [1, 2, 1] * [1, 1]: a depthwise 3×3 and an
    average pool give the same figures, and their gradients run 8 times faster than a strided depthwise 4×4's."""
    return F.avg_pool2d(F.conv2d(x, _kernel(x, [1, 2, 1]), padding=1, groups=x.shape[1]), 2)


def upsample(x: Tensor) -> Tensor:
    """Double height and width: zeros between pixels, then [1, 3, 3, 1] with gain 4."""
    return F.conv_transpose2d(x, _kernel(x, [1, 3, 3, 1], 4.0), stride=2, padding=1, groups=x.shape[1])


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel: the standard deviation over groups of images, averaged over features and pixels
    (Karras et al. 2018, sec. 3). Group members are ``B / group`` apart.

    Shapes: ``[B, C, H, W] -> [B, C + 1, H, W]``; ``group`` shrinks to a divisor of B.
    """
    batch, _, height, width = x.shape
    group = math.gcd(batch, group)
    grouped = x.float().reshape(group, batch // group, -1)
    deviation = grouped.var(dim=0, correction=0).add(1e-8).sqrt().mean(dim=1)  # [B / group]
    plane = deviation.to(x.dtype).repeat(group).reshape(batch, 1, 1, 1).expand(-1, -1, height, width)
    return torch.cat([x, plane], dim=1)
