"""A fully convolutional autoencoder of native pixels, whose way of enlarging is chosen: last stages to learn from.

What a decoder leaves in a picture depends on how it enlarges its maps (Odena et al. 2016; Durall et al. 2020). Each way
is trained in minutes on windows of photos, and then takes photos of any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.datasets.types import Pixels
from crossfake.synth.families.r3gan import Conv
from crossfake.synth.families.reconstruct import through
from crossfake.synth.settings import FACTOR
from crossfake.synth.training.adversarial import gradient_penalty
from crossfake.synth.training.learner import GeneratorLearner, Plan, to_network

_DEPTH = 12  # of the latents: a quarter of the numbers of the picture
_R1_EVERY, _R1_WEIGHT = 16, 1.0


class WindowBlock(nn.Module):
    """Two convolutions around which the input goes; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(width, width, 3, activate=True), Conv(width, width, 3, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        y: Tensor = self.second(self.first(x))
        return x + y


class Enlarge(nn.Module):
    """Maps of twice the height and width, ``[B, inputs, H, W] -> [B, outputs, 2H, 2W]``.

    Args:
        inputs: channels.
        outputs: channels.
        how: ``nearest`` or ``bilinear`` interpolation before a convolution; ``transposed``, a 4×4 convolution turned
            round; ``pixelshuffle`` (Shi et al. 2016), four maps to one.
    """

    def __init__(self, inputs: int, outputs: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = (
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            if how == "transposed"
            else Conv(inputs, outputs * (4 if how == "pixelshuffle" else 1), 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "transposed":
            return F.conv_transpose2d(x, self.conv.weight.to(x.dtype), stride=2, padding=1)
        if self.how == "pixelshuffle":
            return F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)
        enlarged: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode=self.how))
        return enlarged


class WindowAutoencoder(nn.Module):
    """Encoder and decoder in one, four times down to 12 channels.

    Args:
        size: side of the windows that it learns from; photos may have any shape.
        channels: 64 times the maps at full resolution; there are twice as many at half, four times at a quarter.
        upsample: how the decoder enlarges, a name of :data:`~crossfake.synth.settings.Upsample`.

    Shapes: float32 ``[B, 3, H, W]`` in [-1, 1], sides a multiple of 4, to the same.
    """

    latent_dim = 0
    needs_photos: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    def __init__(self, size: int, channels: int, upsample: str) -> None:
        super().__init__()
        self.size = size
        full = max(8, channels // 64)
        half, quarter = 2 * full, 4 * full
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            Conv(12, half, 3),
            WindowBlock(half),
            nn.PixelUnshuffle(2),
            Conv(4 * half, quarter, 1),
            WindowBlock(quarter),
            WindowBlock(quarter),
            Conv(quarter, _DEPTH, 3),
        )
        self.decoder = nn.Sequential(
            Conv(_DEPTH, quarter, 3),
            WindowBlock(quarter),
            WindowBlock(quarter),
            Enlarge(quarter, half, upsample),
            WindowBlock(half),
            Enlarge(half, full, upsample),
            WindowBlock(full),
        )
        self.to_rgb = Conv(full, 3, 3)

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        x = self.decoder(self.encoder(images.to(dtype, memory_format=torch.channels_last)))
        decoded: Tensor = self.to_rgb(
            x.float()
        )  # bfloat16 has steps of half a grey level near black and white
        return decoded

    def edit(
        self, photos: Sequence[Pixels], partners: Sequence[Pixels], vectors: Tensor, dtype: torch.dtype
    ) -> list[Pixels]:
        """Photos after encoder and decoder, uint8 ``[H, W, 3]`` each; nothing about it is random."""
        return through(partial(self, dtype=dtype), photos, FACTOR, self.to_rgb.weight.device)


class PatchDiscriminator(nn.Module):
    """Logits of overlapping patches (Isola et al. 2017), ``[B, 3, H, W]`` to float32 ``[B, 1, H/8, W/8]``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in zip(widths, widths[1:], strict=False)
        )
        self.out = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = F.leaky_relu(stage(x), 0.2)
        logits: Tensor = self.out(x)
        return logits


class WindowLearner(GeneratorLearner):
    """L1 in the picture and in its Laplacian pyramid; with a weight, a non-saturating loss over patches, too.

    Args:
        plan: sizes, weights, device.
        seed: of weights and draws.
        distance: of two batches of images, a scalar.
    """

    def __init__(self, plan: Plan, seed: int, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(plan, seed)
        self.distance = distance
        self.parts = ("generator", "average", "optimizer")
        self.generator = WindowAutoencoder(**plan.arguments).to(plan.device)
        self.average = WindowAutoencoder(**plan.arguments).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer = self.adam(self.generator)
        if plan.adversarial:
            self.parts += ("discriminator", "optimizer_d")
            self.discriminator = PatchDiscriminator().to(plan.device)
            self.optimizer_d = self.adam(self.discriminator)

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        network: Any = self.generator
        real = to_network(real, self.plan.device, self.draws.uniform(len(real)) < 0.5)
        made = network(real, self.plan.dtype)
        distance, pyramid = (made - real).abs().mean(), self.distance(made, real)
        loss, logged = distance + pyramid, {}
        if self.plan.adversarial:
            logged = self._discriminator_step(real, made.detach())
            self.discriminator.requires_grad_(False)
            loss = loss + self.plan.adversarial * F.softplus(-self.discriminator(made)).mean()
            self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.descend(self.optimizer)
        self.step += 1
        self.update_average()
        return {"loss": loss.detach(), "distance": distance.detach(), **logged}

    def _discriminator_step(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """One step with lazy R1 (Karras et al. 2020a)."""
        loss = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(made)).mean()
        self.optimizer_d.zero_grad(set_to_none=True)
        loss.backward()
        if self.step % _R1_EVERY == 0:
            penalty = gradient_penalty(lambda images: self.discriminator(images).mean(dim=(1, 2, 3)), real)
            (penalty.mean() * (_R1_WEIGHT / 2 * _R1_EVERY)).backward()
        self.descend(self.optimizer_d)
        return {"loss_d": loss.detach()}
