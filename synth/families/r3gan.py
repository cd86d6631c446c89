"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!"): a loss that converges, and nothing else to help it.

Each fake is judged relative to a real image, the discriminator's gradients are penalised on both (R1 and R2), and
both networks are plain residual networks without normalisation: sec. 2 and 3 of the paper.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, log2_size
from crossfake.synth.families.layers import convolved
from crossfake.synth.training.adversarial import Adversarial, gradient_penalty

_GROUP = 16  # channels per group of the 3×3 convolutions
_EXPAND = 2
_BLOCKS = 2  # per resolution
_PENALISED = 0.25  # share of the batch on which gradients are penalised
_EMBEDDING = 128  # length of a class's vector


def widths_to(size: int, channels: int) -> list[int]:
    """Feature maps at 4×4, 8×8, … ``size``: ``channels / resolution``, at most 768."""
    resolutions = [2**k for k in range(2, log2_size(size) + 1)]
    return [max(_GROUP, min(channels // r, 768) // _GROUP * _GROUP) for r in resolutions]


class Conv(nn.Module):
    """Convolution whose outputs have the variance of its inputs, times ``gain``².

    With ``activate`` a bias and leaky ReLU with slope 0.2 follow, whose loss of variance the weights make up for.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        groups: int = 1,
        gain: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        gain *= math.sqrt(2 / (1 + 0.2**2)) if activate else 1.0
        weight = torch.randn(outputs, inputs // groups, kernel, kernel)
        self.weight = nn.Parameter(weight * (gain / math.sqrt(inputs // groups * kernel**2)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W] -> [B, outputs, H, W]``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        x = convolved(x, self.weight.to(x.dtype), bias, self.groups)
        return x if bias is None else F.leaky_relu_(x, 0.2)


class Residual(nn.Module):
    """An inverted bottleneck that starts as the identity (fix-up: Zhang et al. 2019).

    Args:
        width: channels in and out.
        depth: how many such blocks the network has: the more, the smaller the first step of each.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        wide, gain = width * _EXPAND, depth**-0.25
        self.expand = Conv(width, wide, 1, gain=gain, activate=True)
        self.conv = Conv(wide, wide, 3, groups=wide // _GROUP, gain=gain, activate=True)
        self.reduce = Conv(wide, width, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        y: Tensor = self.reduce(self.conv(self.expand(x)))
        return x + y


class Generator(nn.Module):
    """Gaussian vectors ``[B, latent_dim]`` to float32 images ``[B, 3, size, size]``, about [-1, 1].

    Truncation scales z towards 0.
    """

    def __init__(self, size: int, channels: int, classes: int = 0, z_dim: int = 64) -> None:
        super().__init__()
        self.size, self.classes, self.latent_dim = size, classes, z_dim
        widths = widths_to(size, channels)
        self.embed = nn.Linear(classes, _EMBEDDING, bias=False) if classes else None
        self.start = nn.Linear(z_dim + (_EMBEDDING if classes else 0), widths[0], bias=False)
        nn.init.normal_(self.start.weight, 0, 1 / math.sqrt(self.start.in_features))
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        depth = _BLOCKS * len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width, depth) for _ in range(_BLOCKS))) for width in widths
        )
        self.widen = nn.ModuleList(
            Conv(i, o, 1) if i != o else nn.Identity() for i, o in zip(widths[:-1], widths[1:], strict=True)
        )
        self.to_rgb = Conv(widths[-1], 3, 1)

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        z = latents * psi
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        x = self.basis * self.start(z)[:, :, None, None]
        x = self.stages[0](x.to(dtype).contiguous(memory_format=torch.channels_last))
        for widen, stage in zip(self.widen, list(self.stages)[1:], strict=True):
            # a 1×1 convolution and resampling commute: it costs a quarter before
            x = stage(F.interpolate(widen(x), scale_factor=2, mode="bilinear"))
        images: Tensor = self.to_rgb(x).float()
        return images


class Discriminator(nn.Module):
    """Images ``[B, 3, size, size]`` to float32 logits ``[B]``; with classes, the product with a class's vector."""

    def __init__(self, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        widths = widths_to(size, channels)[::-1]
        depth = _BLOCKS * len(widths)
        self.from_rgb = Conv(3, widths[0], 1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width, depth) for _ in range(_BLOCKS))) for width in widths
        )
        self.widen = nn.ModuleList(
            Conv(i, o, 1) if i != o else nn.Identity() for i, o in zip(widths[:-1], widths[1:], strict=True)
        )
        self.basis = nn.Parameter(torch.randn(widths[-1], 4, 4) / 4)
        self.out = nn.Linear(widths[-1], _EMBEDDING if classes else 1, bias=False)
        nn.init.normal_(self.out.weight, 0, 1 / math.sqrt(widths[-1]))
        self.embed = nn.Linear(classes, _EMBEDDING, bias=False) if classes else None

    def forward(
        self, images: Tensor, dtype: torch.dtype = torch.float32, labels: Tensor | None = None
    ) -> Tensor:
        x = self.from_rgb(images.to(dtype, memory_format=torch.channels_last))
        for stage, widen in zip(self.stages, self.widen, strict=False):
            x = widen(F.avg_pool2d(stage(x), 2))
        x = self.out((self.stages[-1](x).float() * self.basis).sum(dim=(2, 3)))
        if self.embed is None:
            return x.squeeze(1)
        return (x * self.embed(labels)).sum(dim=1) / math.sqrt(_EMBEDDING)


class RelativisticLearner(Adversarial):
    """Relativistic pairing loss (Jolicoeur-Martineau 2019) with R1 and R2 in every step."""

    def loss_d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Each real beside a fake (Jolicoeur-Martineau 2018): logits ``[B]`` of both to a number."""
        return F.softplus(fake_logits - real_logits).mean()

    def loss_g(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """As the discriminator's, with real and fake exchanged."""
        with torch.no_grad():
            real_logits = self.discriminate(real, labels)
        return F.softplus(real_logits - self.discriminate(fake, labels)).mean()

    def penalties(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if self.plan.gamma <= 0:
            return {}
        # a part of the batch has the same expectation, and second derivatives are most of the cost
        part = max(1, round(len(real) * _PENALISED))
        both = None if labels is None else torch.cat([labels[:part], labels[:part]])
        squares = gradient_penalty(
            lambda images: self.discriminate(images, both), torch.cat([real[:part], fake[:part]])
        )
        r1, r2 = squares.chunk(2)
        ((r1.mean() + r2.mean()) * (self.plan.gamma / 2)).backward()
        return {"r1": r1.detach().mean(), "r2": r2.detach().mean()}


FAMILIES.register("r3gan")(
    Family(
        generator=Generator,
        discriminator=Discriminator,
        summary="R3GAN: relativistic loss, R1 and R2, plain residual networks.",
        learner=RelativisticLearner,
        # residual branches start at zero: at 2e-4, made for larger batches, an hour hardly moves them
        recipe=Hyperparameters(lr=0.001, betas=(0.0, 0.9), ema_kimg=10.0, gamma=1.0),
        batch_cpu=8,
        channels_cpu=1024,
        channels_gpu=16384,
        conditional=True,
    )
)
