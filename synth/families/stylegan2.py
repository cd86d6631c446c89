"""StyleGAN2 (Karras et al. 2020a, "Analyzing and Improving the Image Quality of StyleGAN").

The convolutions' *inputs* are modulated and their outputs demodulated, with one weight shared by the whole
batch: algebraically the same as giving each image its own weights (eq. 1 and 3) and far faster than the grouped
convolution that this needs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.synth.families import FAMILIES, Family, Recipe, log2_size
from crossfake.synth.families.layers import Conv, Dense, fir, leaky, minibatch_stddev, upsample

_SQRT2 = math.sqrt(2)


def channels_at(resolution: int, base: int) -> int:
    """Feature maps at a resolution: ``base / resolution``, at most ``base / 16`` and 512."""
    return max(4, min(base // resolution, base // 16, 512))


class Mapping(nn.Module):
    """z to w: eight dense layers after normalising z, with a running mean of w for truncation.

    Shapes: ``[B, z_dim] -> [B, w_dim]``, float32.
    """

    def __init__(self, z_dim: int, w_dim: int, layers: int = 8) -> None:
        super().__init__()
        widths = [z_dim] + [w_dim] * layers
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.Sequential(*(Dense(i, o, lr=0.01, activate=True) for i, o in pairs))
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.w_avg: Tensor

    def forward(self, z: Tensor) -> Tensor:
        z = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        w: Tensor = self.layers(z)
        return w

    @torch.no_grad()
    def track(self, w: Tensor, momentum: float = 0.998) -> None:
        self.w_avg.lerp_(w.mean(dim=0), 1 - momentum)


class StyledConv(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU; ``up`` doubles the resolution first.

    Shapes: x ``[B, I, H, W]``, w ``[B, w_dim]``, noise ``[B, 1, H', W']`` → ``[B, O, H', W']``.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.up = up

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        style = self.affine(w)
        power = self.weight.square().sum(dim=(2, 3))  # [O, I]
        demodulation = (style.square() @ power.T + 1e-8).rsqrt()  # [B, O], float32
        x = x * style.to(x.dtype)[:, :, None, None]
        weight = self.weight.to(x.dtype)
        if self.up:
            x = fir(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        x = x * (demodulation * _SQRT2).to(x.dtype)[:, :, None, None]
        x = x.add_((noise * (self.noise_strength * _SQRT2)).to(x.dtype))
        x = x.add_((self.bias * _SQRT2).to(x.dtype)[:, None, None])
        return leaky(x)


class ToRGB(nn.Module):
    """1×1 modulated convolution to colour, without demodulation. ``[B, I, H, W] -> float32 [B, 3, H, W]``."""

    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = (self.affine(w) * self.gain).to(x.dtype)
        rgb = F.conv2d(x * style[:, :, None, None], self.weight.to(x.dtype))
        return rgb.float() + self.bias[:, None, None]


class Generator(nn.Module):
    """Skip generator: each resolution adds its colours to the up-sampled picture so far.

    Args:
        size: output height and width, a power of two from 16 to 1024.
        channels: width of the network, see :func:`channels_at`.
        z_dim: length of z and of w.

    Everything random about an image is one Gaussian vector: z first, then the noise of every layer.
    ``forward`` takes such vectors ``[B, randoms]`` and returns float32 ``[B, 3, size, size]``, about [-1, 1].

    Example:
        >>> generator = Generator(size=16, channels=256)
        >>> generator(torch.randn(2, generator.randoms)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, size: int, channels: int, z_dim: int = 256) -> None:
        super().__init__()
        self.size, self.z_dim = size, z_dim
        self.resolutions = [2**k for k in range(2, log2_size(size) + 1)]
        widths = [channels_at(resolution, channels) for resolution in self.resolutions]
        self.mapping = Mapping(z_dim, z_dim)
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.ups = nn.ModuleList(
            StyledConv(i, o, z_dim, up=True) for i, o in zip(widths[:-1], widths[1:], strict=True)
        )
        self.convs = nn.ModuleList(StyledConv(width, width, z_dim) for width in widths)
        self.to_rgb = nn.ModuleList(ToRGB(width, z_dim) for width in widths)
        self.noise_resolutions = [4] + [resolution for resolution in self.resolutions[1:] for _ in range(2)]
        self.num_ws = 2 * len(self.resolutions)
        self.randoms = z_dim + sum(resolution**2 for resolution in self.noise_resolutions)

    def forward(self, randoms: Tensor, psi: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        z, noise = randoms[:, : self.z_dim], self.split_noise(randoms)
        w = self.mapping(z)
        if psi != 1:
            w = self.mapping.w_avg.lerp(w, psi)
        return self.synthesis(w.unsqueeze(1).expand(-1, self.num_ws, -1), noise, dtype)

    def train_forward(
        self, randoms: Tensor, mixing: float, dtype: torch.dtype, rng: torch.Generator
    ) -> Tensor:
        """``forward`` with style mixing (Karras et al. 2019, sec. 3.1) in a share ``mixing`` of the images, and
        tracking of the mean w. A second z for the mixed images is drawn from ``rng``."""
        z, noise = randoms[:, : self.z_dim], self.split_noise(randoms)
        batch, device = len(z), z.device
        w, other = self.mapping(torch.cat([z, torch.randn(z.shape, generator=rng).to(device)])).chunk(2)
        self.mapping.track(w.detach())
        cut = torch.randint(1, self.num_ws, (batch, 1), generator=rng)
        cut = torch.where(torch.rand(batch, 1, generator=rng) < mixing, cut, self.num_ws)
        first = (torch.arange(self.num_ws) < cut).to(device).unsqueeze(2)  # [B, num_ws, 1]
        return self.synthesis(torch.where(first, w.unsqueeze(1), other.unsqueeze(1)), noise, dtype)

    def split_noise(self, randoms: Tensor) -> list[Tensor]:
        """The layers' noise planes ``[B, 1, r, r]``, from behind z in the Gaussian vectors."""
        parts = randoms[:, self.z_dim :].split(
            [resolution**2 for resolution in self.noise_resolutions], dim=1
        )
        return [p.reshape(-1, 1, r, r) for p, r in zip(parts, self.noise_resolutions, strict=True)]

    def synthesis(self, ws: Tensor, noise: list[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """w per layer ``[B, num_ws, w_dim]`` to images. Colour of a block reads the w of the next one's first layer."""
        x = self.const.to(dtype, memory_format=torch.channels_last).expand(len(ws), -1, -1, -1)
        x = self.convs[0](x, ws[:, 0], noise[0])
        image = self.to_rgb[0](x, ws[:, 1])
        for k in range(1, len(self.resolutions)):
            x = self.ups[k - 1](x, ws[:, 2 * k - 1], noise[2 * k - 1])
            x = self.convs[k](x, ws[:, 2 * k], noise[2 * k])
            image = upsample(image) + self.to_rgb[k](x, ws[:, 2 * k + 1])
        return image


class ResidualBlock(nn.Module):
    """Two convolutions, the second down-sampling, beside a filtered 1×1 shortcut; the sum keeps its variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3, down=True, gain=half)
        self.skip = Conv(inputs, outputs, 1, down=True, activate=False, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(self.conv0(x))
        return y + self.skip(x)


class Discriminator(nn.Module):
    """Residual discriminator with minibatch standard deviation. ``[B, 3, size, size]`` → float32 logits ``[B]``."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        resolutions = [2**k for k in range(log2_size(size), 1, -1)]
        widths = [channels_at(resolution, channels) for resolution in resolutions]
        self.from_rgb = Conv(3, widths[0], 1)
        self.blocks = nn.Sequential(
            *(ResidualBlock(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))
        )
        self.conv = Conv(widths[-1] + 1, widths[-1], 3)
        self.dense = Dense(widths[-1] * 16, widths[-1], activate=True)
        self.out = Dense(widths[-1], 1)

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        x = images.to(dtype, memory_format=torch.channels_last)
        x = self.blocks(self.from_rgb(x))
        x = self.conv(minibatch_stddev(x))
        x = self.dense(x.flatten(1).float())
        logits: Tensor = self.out(x)
        return logits.squeeze(1)


FAMILIES.register("stylegan2")(
    Family(
        generator=Generator,
        discriminator=Discriminator,
        summary="StyleGAN2: style-modulated skip generator, residual discriminator, lazy R1.",
        recipe=Recipe(lr=0.0025, betas=(0.0, 0.99), r1_every=16, ema_kimg=10.0, mixing=0.9),
        channels_cpu=2048,
        channels_gpu=16384,
    )
)
