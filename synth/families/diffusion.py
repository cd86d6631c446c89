"""Denoising diffusion in pixels (Ho et al. 2020): diffusers' U-Net and its samplers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from crossfake.errors import MissingDependency
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, log2_size
from crossfake.synth.training.learner import GeneratorLearner, Plan, to_network

_STEPS = 1000  # of the noise's schedule, while learning
_SNR = 5.0  # signal-to-noise ratio from which on a step counts no more
_SCHEDULE = {
    "num_train_timesteps": _STEPS,
    "beta_schedule": "squaredcos_cap_v2",  # Nichol & Dhariwal 2021, sec. 3.2
    "prediction_type": "v_prediction",  # Salimans & Ho 2022, app. D
}


def import_diffusers() -> Any:
    """The library, or the one-line error that says how to get it."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependency("diffusers", extra="diffusion") from error
    return diffusers


class Diffusion(nn.Module):
    """U-Net and sampler.

    DPM-Solver++ (Lu et al. 2022) is deterministic: an image's vector is the noise that it starts from, and truncation
    scales it.

    Args:
        size: height and width.
        channels: feature maps at full resolution, times ``size``; twice as many from the second on, four times at 8×8.
        classes: how many the images belong to; 0 is none.
        steps: of the sampler.

    Shapes: vectors ``[B, 3 * size * size]`` → float32 ``[B, 3, size, size]`` in [-1, 1].

    Raises:
        MissingDependency: diffusers is not installed.
    """

    def __init__(self, size: int, channels: int, classes: int = 0, steps: int = 20) -> None:
        super().__init__()
        diffusers = import_diffusers()
        self.size, self.classes, self.steps, self.latent_dim = size, classes, steps, 3 * size**2
        levels = log2_size(size) - 2  # down to 8×8
        width = max(8, channels // size // 8 * 8)
        widths = [width * (1 if k == 0 else 4 if k == levels - 1 else 2) for k in range(levels)]
        attends = [size >> k <= 16 for k in range(levels)]
        self.unet = diffusers.UNet2DModel(
            sample_size=size,
            block_out_channels=widths,
            down_block_types=["AttnDownBlock2D" if here else "DownBlock2D" for here in attends],
            up_block_types=["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)],
            layers_per_block=2,
            norm_num_groups=8,
            attention_head_dim=math.gcd(64, *(w for w, here in zip(widths, attends, strict=True) if here)),
            num_class_embeds=classes or None,
        )
        self.unet.to(memory_format=torch.channels_last)
        # norms in float32, as CUDA's autocast does it: their gradients take a CPU thrice as long in bfloat16
        for module in self.unet.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(lambda _, given: (given[0].float(),))

    def denoise(self, noisy: Tensor, steps: Tensor, dtype: torch.dtype, labels: Tensor | None) -> Tensor:
        """What the network makes of images at these steps of the schedule ``[B]``: v, float32."""
        classes = None if labels is None else labels.argmax(dim=1)
        with torch.autocast(noisy.device.type, dtype, enabled=dtype != torch.float32):
            found: Tensor = self.unet(
                noisy.contiguous(memory_format=torch.channels_last), steps, class_labels=classes
            ).sample
        return found.float()

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        # the cosine schedule begins at pure noise, whose logarithm of the signal's share the solver cannot step from
        sampler = import_diffusers().DPMSolverMultistepScheduler(**_SCHEDULE, lambda_min_clipped=-5.1)
        sampler.set_timesteps(self.steps, device=latents.device)
        images = latents.reshape(-1, 3, self.size, self.size) * psi
        for step in sampler.timesteps:
            v = self.denoise(images, step.expand(len(images)), dtype, labels)
            images = sampler.step(v, step, images).prev_sample
        return images.clamp(-1, 1)


class DenoisingLearner(GeneratorLearner):
    """Squared error of v, weighted by the signal-to-noise ratio up to a limit (Hang et al. 2023, eq. 6)."""

    parts: tuple[str, ...] = ("generator", "average", "optimizer")

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(plan, seed)
        self.generator = Diffusion(**plan.arguments).to(plan.device)
        self.average = Diffusion(**plan.arguments).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer = self.adam(self.generator)
        schedule = import_diffusers().DDPMScheduler(**_SCHEDULE)
        self.signal = schedule.alphas_cumprod.to(plan.device)  # [steps]: share of the image's power at each

    def train_step(self, real: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        network: Any = self.generator
        real = to_network(real, self.plan.device, self.draws.uniform(len(real)) < 0.5)
        steps = self.draws.integers(0, _STEPS, len(real))
        noise = self.draws.normal(*real.shape)
        share = self.signal[steps][:, None, None, None]
        noisy = share.sqrt() * real + (1 - share).sqrt() * noise
        wanted = share.sqrt() * noise - (1 - share).sqrt() * real  # v
        labels = None if labels is None else labels.to(self.plan.device)
        error = (network.denoise(noisy, steps, self.plan.dtype, labels) - wanted).square().mean(dim=(1, 2, 3))
        ratio = self.signal[steps] / (1 - self.signal[steps])
        loss = (error * ratio.clamp(max=_SNR) / (ratio + 1)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average([p.grad for p in network.parameters() if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.update_average()
        return {"loss": loss.detach(), "gradient": norm.detach(), "error": error.detach().mean()}


FAMILIES.register("diffusion")(
    Family(
        generator=Diffusion,
        summary="Denoising diffusion with diffusers' U-Net, 20 steps of DPM-Solver++.",
        learner=DenoisingLearner,
        recipe=Hyperparameters(lr=0.0005, betas=(0.9, 0.99), ema_kimg=20.0),
        channels_cpu=2048,
        channels_gpu=8192,
        conditional=True,
    )
)
