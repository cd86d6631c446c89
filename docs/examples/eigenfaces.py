"""A generator family of one's own: faces as sums of eigenfaces (Turk & Pentland 1991), learnt by gradient descent.

A linear decoder whose squared error is least spans the same space as principal components (Baldi & Hornik 1989).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossfake.cli import main
from crossfake.synth.families import FAMILIES, Family, Hyperparameters
from crossfake.synth.training.learner import GeneratorLearner, Plan, to_network


class Eigenfaces(nn.Module):
    """Gaussian vectors ``[B, latent_dim]`` to float32 images ``[B, 3, size, size]``, about [-1, 1]."""

    def __init__(self, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.size, self.latent_dim = size, channels
        self.encoder = nn.Sequential(  # normalised, so that Gaussian codes look like those of photos
            nn.Linear(3 * size**2, channels), nn.BatchNorm1d(channels, affine=False)
        )
        self.decoder = nn.Linear(channels, 3 * size**2)
        nn.init.zeros_(self.decoder.weight)  # what the start leaves in it would be noise in every face

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        images: Tensor = self.decoder(psi * latents)
        return images.unflatten(1, (3, self.size, self.size))


class LeastSquares(GeneratorLearner):
    """Squared error of photos that go through encoder and decoder."""

    parts: ClassVar[tuple[str, ...]] = ("generator", "average", "optimizer")

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan, seed)
        self.generator = Eigenfaces(**plan.arguments).to(plan.device)
        self.average = Eigenfaces(**plan.arguments).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer = self.adam(self.generator)

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        network: Any = self.generator
        photos = to_network(real, self.plan.device, self.draws.uniform(len(real)) < 0.5).flatten(1)
        loss = (network.decoder(network.encoder(photos)) - photos).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.descend(self.optimizer)
        self.step += 1
        self.update_average()
        return {"loss": loss.detach()}


FAMILIES.register("eigenfaces")(
    Family(
        generator=Eigenfaces,
        summary="Sums of eigenfaces: linear, blurred, quick.",
        learner=LeastSquares,
        recipe=Hyperparameters(lr=0.001, betas=(0.9, 0.99), ema_kimg=2.0),
        channels_cpu=64,
        channels_gpu=256,
    )
)

if __name__ == "__main__":
    main()
