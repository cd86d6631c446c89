"""A variational autoencoder (Kingma & Welling 2014): real photos through a decoder, and new faces from its latents.

Many ways of making fakes end in a decoder (latent diffusion, face swaps, talking heads): what that leaves in a picture
is in the reconstructions, whoever they show. Blocks are those of R3GAN; there is no discriminator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.datasets.types import Pixels
from crossfake.images import to_uint8
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, plain_arguments
from crossfake.synth.families.r3gan import Conv, Residual, widths_to
from crossfake.synth.families.windows import WindowAutoencoder, WindowLearner
from crossfake.synth.training.learner import GeneratorLearner, Plan, to_network

_SIDE, _DEPTH = 8, 16  # of the latents, whatever the images' size: 1,024 numbers
_LATENT = _DEPTH * _SIDE**2
_BLOCKS = 2  # per resolution
_BETA = 1e-3  # weight of the divergence: enough for latents of one scale, not enough to blur
_MOMENTUM = 0.995  # of the latents' moments


class Autoencoder(nn.Module):
    """Encoder and decoder in one.

    New images are decoded from a Gaussian with the mean and covariance that the latents of real ones have: a standard
    normal would lie beside them. Truncation scales the distance from that mean.

    Args:
        size: height and width.
        channels: width of the networks, as R3GAN's.
        classes: none are known.

    Shapes: vectors ``[B, latent_dim]`` → float32 ``[B, 3, size, size]``, about [-1, 1].
    """

    latent_dim = _LATENT

    def __init__(self, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.size = size
        widths = widths_to(size, channels)[1:]  # from 8×8 on
        depth = _BLOCKS * len(widths)

        def stages() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(*(Residual(width, depth) for _ in range(_BLOCKS))) for width in widths
            )

        pairs = list(zip(widths, widths[1:], strict=False))
        self.from_rgb, self.encoder = Conv(3, widths[-1], 3), stages()
        self.narrow = nn.ModuleList(Conv(o, i, 1) for i, o in pairs)
        self.to_latent = Conv(widths[0], 2 * _DEPTH, 3, gain=0.1)
        self.from_latent, self.decoder = Conv(_DEPTH, widths[0], 3), stages()
        self.widen = nn.ModuleList(Conv(i, o, 1) for i, o in pairs)
        self.to_rgb = Conv(widths[-1], 3, 3)
        self.register_buffer("mean", torch.zeros(_LATENT))
        self.register_buffer("second", torch.eye(_LATENT))
        self.mean: Tensor
        self.second: Tensor
        self._factor: Tensor | None = None

    def encode(self, images: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, float32 ``[B, 16, 8, 8]`` each, of images ``[B, 3, size, size]``."""
        x = self.from_rgb(images.to(dtype, memory_format=torch.channels_last))
        for k in reversed(range(len(self.encoder))):
            x = self.encoder[k](x)
            if k:
                x = self.narrow[k - 1](F.avg_pool2d(x, 2))
        mean, spread = self.to_latent(x).float().chunk(2, dim=1)
        return mean, spread.clamp(-12, 4)

    def decode(self, latents: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Latents ``[B, 16, 8, 8]`` to float32 images."""
        x = self.from_latent(latents.to(dtype, memory_format=torch.channels_last))
        for k, stage in enumerate(self.decoder):
            if k:
                x = F.interpolate(self.widen[k - 1](x), scale_factor=2, mode="bilinear")
            x = stage(x)
        images: Tensor = self.to_rgb(x).float()
        return images

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        codes = self.mean + psi * (latents @ self.factor().T)
        return self.decode(codes.reshape(-1, _DEPTH, _SIDE, _SIDE), dtype)

    def edit(
        self, photos: Sequence[Pixels], partners: Sequence[Pixels], vectors: Tensor, dtype: torch.dtype
    ) -> list[Pixels]:
        """Photos after encoder and decoder, uint8 ``[size, size, 3]`` each; nothing about it is random."""
        images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).to(self.mean.device)
        return list(to_uint8(self.decode(self.encode(images.float() / 127.5 - 1)[0])))

    def factor(self) -> Tensor:
        """The covariance's Cholesky factor, computed once."""
        if self._factor is None:
            covariance = self.second.double() - torch.outer(self.mean.double(), self.mean.double())
            values, vectors = torch.linalg.eigh(covariance)  # rounding may have made some slightly negative
            self._factor = (vectors * values.clamp_min(0).sqrt()).float()
        return self._factor

    @torch.no_grad()
    def track(self, mean: Tensor, second: Tensor) -> None:
        """Move the moments of the latents towards those of a batch, ``[1024]`` and ``[1024, 1024]``."""
        self.mean.lerp_(mean, 1 - _MOMENTUM)
        self.second.lerp_(second, 1 - _MOMENTUM)
        self._factor = None


class ReconstructionLearner(GeneratorLearner):
    """L1 in the picture and in its Laplacian pyramid (Bojanowski et al. 2018, sec. 2.2), and the divergence."""

    parts: tuple[str, ...] = ("generator", "average", "optimizer")

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan, seed)
        self.generator = Autoencoder(**plan.arguments).to(plan.device)
        self.average = Autoencoder(**plan.arguments).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer = self.adam(self.generator)

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        network: Any = self.generator
        real = to_network(real, self.plan.device, self.draws.uniform(len(real)) < 0.5)
        mean, spread = network.encode(real, self.plan.dtype)
        noise = self.draws.normal(*mean.shape)
        made = network.decode(mean + noise * (spread / 2).exp(), self.plan.dtype)
        distance = (made - real).abs().mean()
        pyramid = pyramid_distance(made, real)
        divergence = (mean.square() + spread.exp() - spread - 1).mean() / 2
        loss = distance + pyramid + _BETA * divergence
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.descend(self.optimizer)
        latents = mean.detach().flatten(1)
        moments = latents.mean(dim=0), latents.T @ latents / len(latents)
        self.ranks.average(moments)
        network.track(*moments)
        self.step += 1
        self.update_average()
        network_average: Any = self.average
        network_average._factor = None  # its moments are copies of those just moved
        return {"loss": loss.detach(), "distance": distance.detach(), "divergence": divergence.detach()}


def pyramid_distance(one: Tensor, other: Tensor, levels: int = 3) -> Tensor:
    """Sum over the levels of a Laplacian pyramid of the mean absolute difference: edges count, not only areas."""
    difference = one - other  # the pyramid is linear
    total = difference.new_zeros(())
    for _ in range(levels):
        smaller = F.avg_pool2d(difference, 2)
        total = total + (difference - F.interpolate(smaller, scale_factor=2, mode="bilinear")).abs().mean()
        difference = smaller
    return total


def _network(size: int, channels: int, classes: int = 0, upsample: str = "") -> nn.Module:
    """The one that learned from windows, or the one that has latents to draw from."""
    return WindowAutoencoder(size, channels, upsample) if upsample else Autoencoder(size, channels, classes)


def _learner(plan: Plan, seed: int) -> GeneratorLearner:
    return WindowLearner(plan, seed, pyramid_distance) if plan.upsample else ReconstructionLearner(plan, seed)


def _arguments(plan: Plan) -> dict[str, Any]:
    if plan.upsample:
        return {"size": plan.size, "channels": plan.channels, "upsample": plan.upsample}
    return plain_arguments(plan)


FAMILIES.register("autoencoder")(
    Family(
        generator=_network,
        summary="Photos through a decoder (--photos); of one size, faces from its latents, too.",
        learner=_learner,
        arguments=_arguments,
        windows=True,
        recipe=Hyperparameters(lr=0.0005, betas=(0.9, 0.99), ema_kimg=10.0),
        channels_cpu=2048,
        channels_gpu=8192,
    )
)
