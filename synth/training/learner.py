"""What every way of training has in common: the plan, random draws, averaged weights, processes that train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crossfake.distributed import Ranks
from crossfake.fit.learner import Learner

if TYPE_CHECKING:
    from crossfake.synth.families.base import Family, Hyperparameters

_GROUP = 4  # images whose deviation a discriminator may look at: they stay in one process


@dataclass(frozen=True)
class Plan:
    """What the settings of a run come to on its data and device.

    Attributes:
        size: height and width of the images.
        batch: images per step, over all processes.
        channels: width of the networks.
        classes: how many the images belong to; 0 is none.
        gamma: weight of the gradient penalty.
        lr: Adam's step size.
        path_weight: weight of path-length regularisation.
        mixing: share of images made of two styles.
        noise: whether the layers of a style generator get noise.
        augment: ``none``, ``ada`` or ``diffaugment``: what is done to all that a discriminator sees.
        upsample: how a decoder enlarges, for a training on windows; empty for one on images of one size.
        adversarial: weight of a discriminator's loss beside that of a reconstruction.
        freeze: parts of the discriminator, from the image on, that are not trained.
        family: what is trained.
        recipe: its other numbers.
        device: where.
        dtype: of convolutions.
    """

    size: int
    batch: int
    channels: int
    classes: int
    gamma: float
    lr: float
    path_weight: float
    mixing: float
    noise: bool
    augment: str
    upsample: str
    adversarial: float
    freeze: int
    family: Family
    recipe: Hyperparameters
    device: torch.device
    dtype: torch.dtype

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the family's networks, which the model's card keeps."""
        return self.family.arguments(self)


class Draws:
    """Random numbers of one run: the same for an image whatever the number of processes."""

    def __init__(self, seed: int, ranks: Ranks, device: torch.device) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self._ranks, self._device = ranks, device

    def normal(self, count: int, *shape: int) -> Tensor:
        """float32 ``[count, *shape]``, for ``count`` images of this process."""
        return self._shared(torch.randn(count * self._ranks.world, *shape, generator=self.rng))

    def uniform(self, count: int, *shape: int) -> Tensor:
        """As :meth:`normal`, between 0 and 1."""
        return self._shared(torch.rand(count * self._ranks.world, *shape, generator=self.rng))

    def integers(self, low: int, high: int, count: int, *shape: int) -> Tensor:
        """int64 from ``low`` to ``high - 1``."""
        return self._shared(torch.randint(low, high, (count * self._ranks.world, *shape), generator=self.rng))

    def _shared(self, drawn: Tensor) -> Tensor:
        return self._ranks.share(drawn).to(self._device, non_blocking=True)


class GeneratorLearner(Learner):
    """Networks, optimisers and random draws of a generator's training.

    A subclass builds what it names in ``parts``, among them ``generator`` and ``average``, and gives ``train_step``.

    Attributes:
        average: the generator whose weights are averaged over time: what is used in the end.
        draws: all random numbers of its steps.
    """

    generator: nn.Module
    average: nn.Module

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan.device, plan.batch, _GROUP, seed)
        self.plan, self.recipe = plan, plan.recipe
        self.draws = Draws(seed, self.ranks, plan.device)

    @property
    def images_seen(self) -> int:
        """Reals shown so far, by all processes."""
        return self.step * self.plan.batch

    @property
    def local_batch(self) -> int:
        """Images of a step in this process."""
        return self.plan.batch // self.ranks.world

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """One step on real images, uint8 ``[B, 3, H, W]``, and their classes, one-hot ``[B, classes]``.

        Returns scalar tensors to log, ``loss`` among them.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return super().state() | {"rng": self.draws.rng.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.draws.rng.set_state(state["rng"])

    def adam(self, network: nn.Module, every: int = 0) -> torch.optim.Adam:
        """Adam for what of a network is trained.

        Args:
            network: its parameters.
            every: distance of lazy regularisation's steps: as it makes more of them, each is gentler
                (Karras et al. 2020a, app. B).
        """
        share = every / (every + 1) if every else 1.0
        betas = (self.recipe.betas[0] ** share, self.recipe.betas[1] ** share)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.plan.lr * share, betas=betas, eps=1e-8, fused=True)

    def descend(self, optimizer: torch.optim.Optimizer) -> None:
        """One step down the gradient, which is averaged over the processes first."""
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        self.ranks.average(gradients)
        optimizer.step()

    @torch.no_grad()
    def update_average(self) -> None:
        """Exponential moving average whose half-life grows with training, to at most ``ema_kimg``."""
        half_life = min(self.recipe.ema_kimg * 1000, self.images_seen * 0.05)
        keep = 0.5 ** (self.plan.batch / half_life) if half_life else 0.0
        averaged: list[Tensor] = list(self.average.parameters())
        trained: list[Tensor] = list(self.generator.parameters())
        torch._foreach_lerp_(averaged, trained, 1 - keep)
        for mean, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(buffer)


def to_network(real: Tensor, device: torch.device, flip: Tensor) -> Tensor:
    """uint8 ``[B, 3, H, W]`` to float32 in [-1, 1]; rows where ``flip`` ``[B]`` is true are mirrored."""
    real = real.to(device, non_blocking=True)
    return torch.where(flip[:, None, None, None], real.flip(3), real).float().div_(127.5).sub_(1)


def count_parameters(networks: Sequence[nn.Module]) -> int:
    """Numbers that can be trained, of all networks."""
    return sum(p.numel() for network in networks for p in network.parameters())
