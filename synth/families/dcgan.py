"""DCGAN (Radford et al. 2016): strided transposed convolutions, batch norm, nothing else.

Kept classic on purpose: its up-sampling leaves other traces than StyleGAN2's, which makes it a useful
generator to test detectors on that never saw it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, log2_size
from crossfake.synth.training.adversarial import Adversarial


def _widths(size: int, channels: int) -> list[int]:
    """Feature maps from 4×4 up to size/2, halving at each doubling: ``channels`` is the last of them."""
    doublings = log2_size(size) - 2
    return [min(512, channels * 2**k) for k in reversed(range(doublings))]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Generator(nn.Module):
    """Gaussian vectors ``[B, latent_dim]`` to float32 images ``[B, 3, size, size]`` in [-1, 1].

    Truncation scales z towards 0, the mean image.
    """

    def __init__(self, size: int, channels: int, classes: int = 0, z_dim: int = 100) -> None:
        super().__init__()
        self.size, self.z_dim, self.latent_dim = size, z_dim, z_dim
        widths = _widths(size, channels)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(z_dim, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        z = (latents * psi).to(memory_format=torch.contiguous_format)[:, :, None, None]
        with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
            images: Tensor = self.layers(z.contiguous(memory_format=torch.channels_last))
        return images.float()


class Discriminator(nn.Module):
    """Images ``[B, 3, size, size]`` to float32 logits ``[B]``."""

    def __init__(self, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        widths = _widths(size, channels)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
        layers += [nn.Conv2d(widths[-1], 1, 4)]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(
        self, images: Tensor, dtype: torch.dtype = torch.float32, labels: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        return logits.float().flatten()


FAMILIES.register("dcgan")(
    Family(
        generator=Generator,
        discriminator=Discriminator,
        summary="DCGAN: small and classic, batch norm and transposed convolutions.",
        learner=Adversarial,
        recipe=Hyperparameters(lr=0.0002, betas=(0.5, 0.999), ema_kimg=0.0),
        channels_cpu=32,
        channels_gpu=64,
    )
)
