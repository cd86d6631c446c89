"""What generators with styles have in common: a mapping network, truncation, mixing; and images made of w per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossfake.synth.families.layers import Mapping


class StyleGenerator(nn.Module):
    """Base class of ``stylegan2`` and ``stylegan3``.

    Attributes:
        size: height and width of the images.
        classes: how many they belong to; 0 is none.
        z_dim: length of z.
        w_dim: length of w.
        num_ws: layers that take a w each.
        latent_dim: Gaussian numbers per image: z first, then the noise of every layer, if there is any.
        mapping: z and class to w.
        movable: whether it can :meth:`move` its pictures.
    """

    movable: ClassVar[bool] = False

    size: int
    classes: int
    z_dim: int
    w_dim: int
    num_ws: int
    latent_dim: int
    mapping: Mapping

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Images float ``[B, 3, size, size]`` of latents ``[B, latent_dim]`` and one-hot labels ``[B, classes]``."""
        z, noise = latents[:, : self.z_dim], self.split_noise(latents)
        return self.synthesis(self.styles(z, labels, psi), noise, dtype)

    def styles(self, z: Tensor, labels: Tensor | None = None, psi: float = 1.0, cutoff: int = 0) -> Tensor:
        """w of every layer, ``[B, num_ws, w_dim]``, truncated towards the mean in the first ``cutoff`` layers, or all.

        Truncation: w_avg + psi (w - w_avg) (Karras et al. 2019, app. B).
        """
        ws = self.mapping(z, labels).unsqueeze(1).expand(-1, self.num_ws, -1)
        if psi == 1:
            return ws
        truncated = self.mapping.w_avg.lerp(ws, psi)
        return torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1) if cutoff else truncated

    def mixed_styles(
        self, z: Tensor, other: Tensor, labels: Tensor | None, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Styles for training: from layer ``cut`` ``[B, 1]`` on they are those of another z.

        Karras et al. 2019, sec. 3.1. Returns ``[B, num_ws, w_dim]`` and the first z's w ``[B, w_dim]``.
        """
        both = None if labels is None else torch.cat([labels, labels])
        w, second = self.mapping(torch.cat([z, other]), both).chunk(2)
        first = (torch.arange(self.num_ws, device=cut.device) < cut).unsqueeze(2)  # [B, num_ws, 1]
        return torch.where(first, w.unsqueeze(1), second.unsqueeze(1)), w

    def split_noise(self, latents: Tensor) -> list[Tensor]:
        """The layers' noise planes ``[B, 1, r, r]``, from behind z in the Gaussian vectors; none without noise."""
        return []

    def constant_noise(self) -> list[Tensor]:
        """The noise that belongs to the model, the same for every image, ``[1, 1, r, r]`` each; none without noise."""
        return []

    def synthesis(
        self, ws: Tensor, noise: Sequence[Tensor | None] = (), dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """w per layer ``[B, num_ws, w_dim]`` and noise per layer, or none, to images ``[B, 3, size, size]``."""
        raise NotImplementedError

    def move(self, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0) -> None:
        """Move and turn all images from now on.

        Args:
            translate: right and down, in widths of the picture.
            rotate: degrees, counterclockwise, about the middle, before the shift.
        """
        raise NotImplementedError

    def track(self, batch: int, average: Callable[[Sequence[Tensor]], None]) -> None:
        """Move the running means of activations after a pass of training, where there are any.

        Args:
            batch: images per step, over all processes.
            average: replaces tensors by their means over the processes.
        """
