"""A pretrained diffusion pipeline, from a folder or from the Hugging Face hub, as a generator like any other."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossfake.errors import UserError
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters
from crossfake.synth.families.diffusion import import_diffusers
from crossfake.weights import unreachable


class Pipeline(nn.Module):
    """Any pipeline of diffusers that gives images.

    Weights are safetensors only, and no code that comes with them is run. A stochastic sampler gives way to
    DPM-Solver++; what remains random is seeded by the image's vector.

    Args:
        name: a folder, or a name on the hub.
        size: to which its images are shrunk.
        steps: of the sampler, 50 at most.
        prompt: for a pipeline that takes one.

    Shapes: vectors ``[B, 2]`` → float32 ``[B, 3, size, size]`` in [-1, 1].

    Raises:
        UserError: it is not there or cannot be loaded.
        MissingDependency: diffusers is not installed.
    """

    latent_dim = 2

    def __init__(self, name: str, size: int, steps: int = 25, prompt: str = "") -> None:
        super().__init__()
        diffusers = import_diffusers()
        self.size, self.steps, self.prompt = size, min(steps, 50), prompt
        look_for(name)
        try:
            self._pipe = diffusers.DiffusionPipeline.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError, ImportError, KeyError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"{name} cannot be loaded ({reason})", hint="name a folder with model_index.json"
            ) from error
        if "DDPM" in type(self._pipe.scheduler).__name__:
            self._pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
                self._pipe.scheduler.config
            )
        self._pipe.set_progress_bar_config(disable=True)
        self._takes = inspect.signature(self._pipe.__call__).parameters

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
    ) -> Tensor:
        self._pipe.to(latents.device)
        seeds = latents.cpu().numpy().astype(np.float32).view(np.uint32).astype(np.int64)
        sources = [torch.Generator().manual_seed(int(a) << 31 ^ int(b)) for a, b in seeds]
        asked: dict[str, Any] = {"generator": sources, "num_inference_steps": self.steps, "output_type": "np"}
        if "prompt" in self._takes:
            asked["prompt"] = [self.prompt] * len(latents)
        else:
            asked["batch_size"] = len(latents)
        images = torch.from_numpy(np.asarray(self._pipe(**asked).images)).permute(0, 3, 1, 2).float()
        if images.shape[2:] != (self.size, self.size):
            images = nn.functional.interpolate(
                images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        return images * 2 - 1


FAMILIES.register("pipeline")(
    Family(
        generator=Pipeline,
        summary="A pretrained diffusers pipeline: 'synth import FOLDER_OR_NAME' writes the card.",
        learner=None,
        recipe=Hyperparameters(lr=0.0),
    )
)


def look_for(name: str, file: str = "model_index.json") -> None:
    """Raise ``UserError`` at once for a name on the hub that is neither here nor to be had; its client tries long.

    ``file`` is one that it must have.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(name).exists() or name.count("/") != 1:
        return
    if isinstance(try_to_load_from_cache(name, file), str):
        return
    url = f"{constants.ENDPOINT}/{name}/resolve/main/{file}"
    if why := unreachable(url):
        raise UserError(
            f"{name} is not in {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached ({why})",
            hint=f"fetch all of {constants.ENDPOINT}/{name} elsewhere and name its folder",
        )
