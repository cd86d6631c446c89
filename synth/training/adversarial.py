"""Adversarial training: a generator against a discriminator, and what keeps the two in balance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.synth.training.augment import GROUPS, Adaptive, diff_augment
from crossfake.synth.training.learner import GeneratorLearner, Plan, to_network


class Adversarial(GeneratorLearner):
    """Non-saturating logistic loss (Goodfellow et al. 2014) with lazy R1 and whatever augmentation the plan asks for.

    Args:
        plan: sizes, weights, device.
        seed: of weights and draws.
    """

    parts: tuple[str, ...] = (
        "generator",
        "discriminator",
        "average",
        "optimizer_g",
        "optimizer_d",
    )
    generator_every: ClassVar[int] = 0  # distance of steps at which the generator is regularised

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan, seed)
        build = plan.arguments
        self.generator = plan.family.generator(**build).to(plan.device)
        assert plan.family.discriminator is not None  # a family of this learner has one
        self.discriminator = plan.family.discriminator(**build).to(plan.device)
        self.average = plan.family.generator(**build).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        if plan.freeze:
            self.discriminator.freeze(plan.freeze)  # type: ignore[operator]
        self.trained_d = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.optimizer_g = self.adam(self.generator, self.generator_every if plan.path_weight else 0)
        self.optimizer_d = self.adam(self.discriminator, self.recipe.r1_every)
        self.adaptive = {"ada": Adaptive(), "ada-all": Adaptive(GROUPS)}.get(plan.augment)

    def state(self) -> dict[str, Any]:
        return super().state() | ({"adaptive": self.adaptive.state()} if self.adaptive else {})

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if self.adaptive:
            self.adaptive.restore(state["adaptive"])

    def fakes(self, labels: Tensor | None) -> Tensor:
        """Images of fresh draws, float32 ``[B, 3, H, W]``, with their graph."""
        latents = self.draws.normal(self.local_batch, int(self.generator.latent_dim))  # type: ignore[arg-type]
        images: Tensor = self.generator(latents, dtype=self.plan.dtype, labels=labels)
        return images

    def augmented(self, images: Tensor) -> Tensor:
        """What the discriminator gets to see of images, real or fake."""
        if self.adaptive:
            return self.adaptive(images, self.draws)
        return diff_augment(images, self.draws) if self.plan.augment == "diffaugment" else images

    def discriminate(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Logits ``[B]`` of images ``[B, 3, H, W]``, augmented as they are for training."""
        logits: Tensor = self.discriminator(self.augmented(images), self.plan.dtype, labels)
        return logits

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """One step of both networks.

        One pass of the generator serves both: the discriminator learns from a detached copy, then judges the same
        images anew for the generator.
        """
        real = to_network(real, self.plan.device, self.draws.uniform(len(real)) < 0.5)
        fake = self.fakes(labels)
        logged = self._discriminator_step(real, fake.detach(), labels)
        logged |= self._generator_step(real, fake, labels)
        self.step += 1
        logged |= self.regularise(labels)
        self.update_average()
        return logged

    def _discriminator_step(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        self.optimizer_d.zero_grad(set_to_none=True)
        real_logits, fake_logits = self.discriminate(real, labels), self.discriminate(fake, labels)
        loss = self.loss_d(real_logits, fake_logits)
        loss.backward()
        penalties = self.penalties(real, fake, labels)
        self.descend(self.optimizer_d)
        signs = real_logits.detach().sign().mean()
        logged = {
            "loss_d": loss.detach(),
            "real": real_logits.detach().mean(),
            "fake": fake_logits.detach().mean(),
            "sign_real": signs,
            "sign_fake": fake_logits.detach().sign().mean(),
            **penalties,
        }
        if self.adaptive:
            self.ranks.average([signs])
            self.adaptive.adapt(float(signs), self.plan.batch)
            logged["augment_p"] = torch.tensor(self.adaptive.p)
        return logged

    def _generator_step(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        self.optimizer_g.zero_grad(set_to_none=True)
        for parameter in self.trained_d:
            parameter.requires_grad_(False)
        loss = self.loss_g(real, fake, labels)
        loss.backward()
        for parameter in self.trained_d:
            parameter.requires_grad_(True)
        self.descend(self.optimizer_g)
        return {"loss_g": loss.detach(), "loss": loss.detach()}

    def loss_d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Non-saturating (Goodfellow et al. 2014), of logits ``[B]``."""
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def loss_g(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """Non-saturating (Goodfellow et al. 2014), of images ``[B, 3, H, W]``."""
        return F.softplus(-self.discriminate(fake, labels)).mean()

    def penalties(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Add the gradients of the discriminator's regularisation; R1 every few steps, times their number."""
        every, gamma = self.recipe.r1_every, self.plan.gamma
        if not every or self.step % every or gamma <= 0:
            return {}
        penalty = gradient_penalty(lambda images: self.discriminate(images, labels), real).mean()
        (penalty * (gamma / 2 * every)).backward()
        return {"r1": penalty.detach()}

    def regularise(self, labels: Tensor | None) -> dict[str, Tensor]:
        """A step of the generator's own regularisation, if it has any."""
        return {}


class StyleLearner(Adversarial):
    """With style mixing, a running mean of w, and path-length regularisation (Karras et al. 2020a, sec. 3.2)."""

    generator_every = 4
    _decay = 0.01  # of the running mean of the path lengths

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan, seed)
        self.mean_length = torch.zeros((), device=plan.device)

    def state(self) -> dict[str, Any]:
        return super().state() | {"mean_length": self.mean_length}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.mean_length = state["mean_length"].to(self.plan.device)

    def fakes(self, labels: Tensor | None) -> Tensor:
        return self._styled(self.local_batch, labels)[0]

    def _styled(self, count: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images and the styles that they were made of, ``[B, num_ws, w_dim]``."""
        network: Any = self.generator
        latents = self.draws.normal(count, network.latent_dim)
        other = self.draws.normal(count, network.z_dim)
        cut = self.draws.integers(1, network.num_ws, count, 1)
        mixed = self.draws.uniform(count, 1) < self.plan.mixing
        cut = torch.where(mixed, cut, network.num_ws)
        ws, w = network.mixed_styles(latents[:, : network.z_dim], other, labels, cut)
        mean = w.detach().mean(dim=0)
        self.ranks.average([mean])
        network.mapping.track(mean)
        images = network.synthesis(ws, network.split_noise(latents), self.plan.dtype)
        network.track(self.plan.batch, self.ranks.average)
        return images, ws

    def regularise(self, labels: Tensor | None) -> dict[str, Tensor]:
        if not self.plan.path_weight or (self.step - 1) % self.generator_every:
            return {}
        count = max(1, self.local_batch // 2)
        self.optimizer_g.zero_grad(set_to_none=True)
        images, ws = self._styled(count, None if labels is None else labels[:count])
        noise = self.draws.normal(count, 3, self.plan.size, self.plan.size) / self.plan.size
        lengths = path_lengths(images, ws, noise)
        mean = lengths.detach().mean()
        self.ranks.average([mean])
        self.mean_length = self.mean_length.lerp(mean, self._decay)
        penalty = (lengths - self.mean_length).square().mean()
        (penalty * (self.plan.path_weight * self.generator_every)).backward()
        self.descend(self.optimizer_g)
        return {"path_length": self.mean_length, "path_penalty": penalty.detach()}


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Squared norm of the gradient of each logit by its image (Mescheder et al. 2018, eq. 9, without gamma/2), ``[B]``.

    Args:
        discriminate: images ``[B, 3, H, W]`` to logits ``[B]``.
        images: where the gradient is taken.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """How far images move when their styles do, ``[B]`` (Karras et al. 2020a, eq. 4).

    The length of the gradient of (image · noise) by w, with Gaussian noise ``[B, 3, H, W]`` over the square root of the
    number of pixels; over layers its mean square counts.
    """
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
