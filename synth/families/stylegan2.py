"""StyleGAN2 (Karras et al. 2020a, "Analyzing and Improving the Image Quality of StyleGAN").

The convolutions' *inputs* are modulated and their outputs demodulated, with one weight shared by the whole
batch: algebraically the same as giving each image its own weights (eq. 1 and 3) and far faster than the grouped
convolution that this needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, log2_size
from crossfake.synth.families.layers import (
    Conv,
    Dense,
    Mapping,
    clamped,
    fir,
    leaky,
    minibatch_stddev,
    upsample,
)
from crossfake.synth.families.styles import StyleGenerator
from crossfake.synth.training.adversarial import StyleLearner
from crossfake.synth.training.learner import Plan

_SQRT2 = math.sqrt(2)


def resolutions_to(size: int) -> list[int]:
    """
    Example:
        >>> resolutions_to(32)
        [4, 8, 16, 32]
    """
    return [2**k for k in range(2, log2_size(size) + 1)]


def channels_at(resolution: int, base: int) -> int:
    """Feature maps at a resolution: ``base / resolution``, at most ``base / 16`` and 512."""
    return max(4, min(base // resolution, base // 16, 512))


class StyledConv(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU; ``up`` doubles the resolution first.

    Shapes: x ``[B, I, H, W]``, w ``[B, w_dim]``, noise ``[B or 1, 1, H', W']`` or None → ``[B, O, H', W']``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = False,
        noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if noise:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.up, self.clamp = up, clamp

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        style = self.affine(w)
        power = self.weight.square().sum(dim=(2, 3))  # [O, I]
        demodulation = (style.square() @ power.T + 1e-8).rsqrt()  # [B, O], float32
        x = x * style.to(x.dtype)[:, :, None, None]
        weight = self.weight.to(x.dtype)
        if self.up:
            x = fir(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        gain = (demodulation * _SQRT2).to(x.dtype)[:, :, None, None]
        bias = (self.bias * _SQRT2).to(x.dtype)[:, None, None]
        x = torch.addcmul(bias, x, gain, out=None if torch.is_grad_enabled() else x)
        if noise is not None:
            x = x.add_((noise * (self.noise_strength * _SQRT2)).to(x.dtype))
        return clamped(leaky(x), self.clamp)


class ToRGB(nn.Module):
    """1×1 modulated convolution to colour, without demodulation. ``[B, I, H, W] -> float32 [B, 3, H, W]``."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain, self.clamp = 1 / math.sqrt(inputs), clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = (self.affine(w) * self.gain).to(x.dtype)
        rgb = F.conv2d(x * style[:, :, None, None], self.weight.to(x.dtype))
        return clamped(rgb.float() + self.bias[:, None, None], self.clamp)


class Generator(StyleGenerator):
    """Skip generator: each resolution adds its colours to the up-sampled picture so far.

    Args:
        size: output height and width, a power of two from 16 to 1024.
        channels: width of the network, see :func:`channels_at`.
        classes: how many the images belong to; 0 is none.
        z_dim: length of z.
        w_dim: length of w; that of z when 0.
        mapping_layers: depth of the mapping network.
        widths: feature maps at 4×4, 8×8, …, in place of ``channels``.
        noise: give every layer Gaussian planes; without, detail comes from z alone (Karras et al. 2021, sec. 3.1).
        clamp: limit of every activation, None for none.

    Everything random about an image is one Gaussian vector: z first, then the noise of every layer, if there is any.
    ``forward`` takes such vectors ``[B, latent_dim]`` and returns float32 ``[B, 3, size, size]``, about [-1, 1].

    Example:
        >>> generator = Generator(size=16, channels=256)
        >>> generator(torch.randn(2, generator.latent_dim)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        size: int,
        channels: int = 0,
        classes: int = 0,
        z_dim: int = 256,
        w_dim: int = 0,
        mapping_layers: int = 8,
        widths: Sequence[int] = (),
        noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.size, self.classes, self.z_dim, self.w_dim = size, classes, z_dim, w_dim or z_dim
        self.resolutions = resolutions_to(size)
        widths = widths or [channels_at(resolution, channels) for resolution in self.resolutions]
        sizes = list(zip(widths, self.resolutions, strict=True))
        self.mapping = Mapping(z_dim, self.w_dim, mapping_layers, classes)
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.ups = nn.ModuleList(
            StyledConv(inputs, width, self.w_dim, resolution, up=True, noise=noise, clamp=clamp)
            for inputs, (width, resolution) in zip(widths, sizes[1:], strict=False)
        )
        self.convs = nn.ModuleList(
            StyledConv(w, w, self.w_dim, r, noise=noise, clamp=clamp) for w, r in sizes
        )
        self.to_rgb = nn.ModuleList(ToRGB(width, self.w_dim, clamp) for width in widths)
        planes = [4] + [resolution for resolution in self.resolutions[1:] for _ in range(2)]
        self.noise_resolutions = planes if noise else []
        self.num_ws = 2 * len(self.resolutions)
        self.latent_dim = z_dim + sum(resolution**2 for resolution in self.noise_resolutions)

    def split_noise(self, latents: Tensor) -> list[Tensor]:
        """The layers' noise planes ``[B, 1, r, r]``, from behind z in the Gaussian vectors; none without noise."""
        if not self.noise_resolutions:
            return []
        parts = latents[:, self.z_dim :].split(
            [resolution**2 for resolution in self.noise_resolutions], dim=1
        )
        return [p.reshape(-1, 1, r, r) for p, r in zip(parts, self.noise_resolutions, strict=True)]

    def constant_noise(self) -> list[Tensor]:
        """The noise that belongs to the model, the same for every image, ``[1, 1, r, r]`` each; none without noise."""
        if not self.noise_resolutions:
            return []
        layers: list[Any] = [self.convs[0]]
        for up, conv in zip(self.ups, list(self.convs)[1:], strict=True):
            layers += [up, conv]
        return [layer.noise_const[None, None] for layer in layers]

    def synthesis(
        self, ws: Tensor, noise: Sequence[Tensor | None] = (), dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """w per layer ``[B, num_ws, w_dim]`` and noise per layer, or none, to images.

        Colour of a block reads the w of the next one's first layer.
        """
        noise = noise or [None] * self.num_ws
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

    def __init__(self, inputs: int, outputs: int, clamp: float | None = None) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = Conv(inputs, inputs, 3, clamp=clamp)
        self.conv1 = Conv(inputs, outputs, 3, down=True, gain=half, clamp=clamp)
        self.skip = Conv(inputs, outputs, 1, down=True, activate=False, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H/2, W/2]``."""
        y: Tensor = self.conv1(self.conv0(x))
        return y + self.skip(x)


class Discriminator(nn.Module):
    """Residual discriminator with minibatch standard deviation. ``[B, 3, size, size]`` → float32 logits ``[B]``.

    With classes it is a projection discriminator (Miyato & Koyama 2018): the last features' product with a mapping of
    the class, over the root of their number. Arguments are those of the generator; ``noise`` changes nothing here.
    """

    def __init__(
        self,
        size: int,
        channels: int = 0,
        classes: int = 0,
        widths: Sequence[int] = (),
        noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        resolutions = resolutions_to(size)[::-1]
        widths = list(widths)[::-1] or [channels_at(resolution, channels) for resolution in resolutions]
        self.from_rgb = Conv(3, widths[0], 1, clamp=clamp)
        # named by resolution: those of a network for smaller images fit into one for larger ones
        self.blocks = nn.ModuleDict(
            {
                str(resolution): ResidualBlock(inputs, outputs, clamp)
                for resolution, inputs, outputs in zip(resolutions[:-1], widths, widths[1:], strict=False)
            }
        )
        self.conv = Conv(widths[-1] + 1, widths[-1], 3, clamp=clamp)
        self.dense = Dense(widths[-1] * 16, widths[-1], activate=True)
        self.mapping = Mapping(0, widths[-1], classes=classes) if classes else None
        self.out = Dense(widths[-1], widths[-1] if classes else 1)

    def forward(
        self, images: Tensor, dtype: torch.dtype = torch.float32, labels: Tensor | None = None
    ) -> Tensor:
        x = self.from_rgb(images.to(dtype, memory_format=torch.channels_last))
        for block in self.blocks.values():
            x = block(x)
        x = self.conv(minibatch_stddev(x))
        x = self.out(self.dense(x.flatten(1).float()))
        if self.mapping is None:
            return x.squeeze(1)
        return (x * self.mapping(None, labels)).sum(dim=1) / math.sqrt(x.shape[1])

    def freeze(self, layers: int) -> None:
        """Keep the first ``layers`` parts, from the image on, as they are (freeze-D: Mo et al. 2020)."""
        for part in [self.from_rgb, *self.blocks.values()][:layers]:
            part.requires_grad_(False)


def widths_in(weights: dict[str, Tensor]) -> list[int]:
    """Feature maps at 4×4, 8×8, … of the discriminator that has these weights; ``KeyError`` if they are of none."""
    sizes = {int(name.split(".")[1]) for name in weights if name.startswith("blocks.")}
    return [len(weights["conv.bias"]), *(len(weights[f"blocks.{size}.conv0.bias"]) for size in sorted(sizes))]


def _arguments(plan: Plan) -> dict[str, Any]:
    """Activations are kept within ±256 where convolutions run in 16 bits (Karras et al. 2020b, app. D.1)."""
    clamp = None if plan.dtype is torch.float32 else 256.0
    return {
        "size": plan.size,
        "channels": plan.channels,
        "classes": plan.classes,
        "noise": plan.noise,
        "clamp": clamp,
    }


_PUBLISHED = Hyperparameters(lr=0.0025, ema_kimg=10.0, r1_every=16, mixing=0.9, path_weight=2.0)

# In the first hundred thousand images noise stands in for detail, as grain; mixing and path lengths take time then.
FAMILIES.register("stylegan2")(
    Family(
        generator=Generator,
        discriminator=Discriminator,
        summary="StyleGAN2: style-modulated skip generator, residual discriminator, lazy R1.",
        learner=StyleLearner,
        recipe=_PUBLISHED,
        recipe_cpu=replace(_PUBLISHED, lr=0.005, mixing=0.0, noise=False, path_weight=0.0),
        batch_cpu=8,
        channels_cpu=2048,
        channels_gpu=16384,
        conditional=True,
        arguments=_arguments,
    )
)
