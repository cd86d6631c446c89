"""Projection: the styles and noise with which a generator comes closest to a photo (Karras et al. 2020a, app. D)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.progress import tqdm
from crossfake.synth.sampling.latents import label_of, styled, synthesise
from crossfake.synth.sampling.models import Model
from crossfake.synth.sampling.perception import Perception, choose_perception

SPACES = ("w", "w+")
_SPREAD_OF = 4096  # random w whose spread is measured
_EXPLORE, _EXPLORE_UNTIL = 0.05, 0.75  # noise on w, in spreads, falling until this share of the steps
_RAMP_UP, _RAMP_DOWN = 0.05, 0.25  # shares of the steps in which the step size grows and shrinks
_RATE_W, _RATE_NOISE = 0.1, 0.1  # Adam's steps; that of w in deviations of one of its numbers
_PULL = 0.02  # price of a layer that leaves the common w by a spread, in perceptual distance
_SMOOTH = 1e5  # price of noise that carries the picture


@dataclass(frozen=True)
class Projection:
    """What was found.

    Attributes:
        ws: w of every layer, float32 ``[B, num_ws, w_dim]``.
        noise: planes ``[B, 1, r, r]`` of every layer.
        images: what the generator makes of them, uint8 ``[B, size, size, 3]``.
        distance: perceptual distance to each photo.
        start: that of the generator's mean image.
        psnr: peak signal-to-noise ratio in decibels, of the bytes.
        perception: what measured the distance.
    """

    ws: Tensor
    noise: list[Tensor]
    images: Images
    distance: list[float]
    start: list[float]
    psnr: list[float]
    perception: str


def project(
    model: Model,
    photos: Images,
    space: str = "w+",
    steps: int = 200,
    perception: Perception | None = None,
) -> Projection:
    """Find photos in a generator, all at once; no photo's result depends on the others.

    ``w`` looks for one w for all layers, from the mean on. ``w+`` then frees the layers from each other, and pays for
    what they leave the common w by.

    Args:
        model: one with styles.
        photos: uint8 ``[B, size, size, 3]``, cropped as those that it was trained on.
        space: ``w`` or ``w+``.
        steps: of Adam, in each of the two stages.
        perception: the distance; :func:`~crossfake.synth.sampling.perception.choose_perception` when None.

    Raises:
        UserError: the model has no styles.

    Example:
        >>> found = project(load_model("runs/x"), photos, steps=100)  # doctest: +SKIP
        >>> found.images.shape, found.psnr  # doctest: +SKIP
        ((1, 64, 64, 3), [21.3])
    """
    network = styled(model)
    if space not in SPACES:
        raise UserError(f"there is no space {space!r}", hint=f"choose one of {', '.join(SPACES)}")
    if steps < 1:
        raise UserError(f"{steps} steps find nothing", hint="give --steps 200, say")
    perception = perception or choose_perception(model)
    wanted = torch.tensor(photos).to(model.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        target = perception.features(wanted)
    search = _Search(model, perception, target, steps, _spread(model))
    mean = network.mapping.w_avg.expand(len(photos), 1, -1)
    noise = [plane.repeat(len(photos), 1, 1, 1) for plane in network.constant_noise()]
    start = search.distance(mean, noise)
    with tqdm(total=steps * (1 + (space == "w+")), desc=f"project {len(photos)}", unit="step") as bar:
        ws, noise = search.descend(mean, noise, bar)
        if space == "w+":
            ws, noise = search.descend(ws.expand(-1, network.num_ws, -1), noise, bar, anchor=ws)
    images = synthesise(model, ws.expand(-1, network.num_ws, -1), noise)
    return Projection(
        ws.expand(-1, network.num_ws, -1).contiguous(),
        noise,
        images,
        search.distance(ws, noise).tolist(),
        start.tolist(),
        psnr(images, photos).tolist(),
        perception.name,
    )


@dataclass(frozen=True)
class _Search:
    """The descent towards features ``target`` ``[B, F]``; ``spread`` is the root mean square length of w - w_avg."""

    model: Model
    perception: Perception
    target: Tensor
    steps: int
    spread: float

    def descend(
        self, ws: Tensor, noise: Sequence[Tensor], bar: tqdm, anchor: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """From ws ``[B, 1 or num_ws, w_dim]`` and noise to better ones; with an ``anchor``, not far from it."""
        ws = ws.detach().clone().requires_grad_()
        noise = [plane.detach().clone().requires_grad_() for plane in noise]
        rate = _RATE_W * self.spread / math.sqrt(ws.shape[-1])
        adam = torch.optim.Adam(
            [{"params": [ws], "rate": rate}, {"params": noise, "rate": _RATE_NOISE}], betas=(0.9, 0.999)
        )
        stream = torch.Generator().manual_seed(0)
        for step in range(self.steps):
            t = step / self.steps
            for group in adam.param_groups:
                group["lr"] = group["rate"] * _ramp(t)
            tried = ws
            if anchor is None:  # the same for all photos, so that none depends on its place among them
                scale = _EXPLORE * self.spread * max(0.0, 1 - t / _EXPLORE_UNTIL) ** 2
                tried = ws + scale * torch.randn(ws.shape[-1], generator=stream).to(ws.device)
            distance = self._distance(tried, noise).sum()
            loss = distance + _SMOOTH * sum(_pattern(plane) for plane in noise)
            if anchor is not None:
                away = (ws - anchor).square().sum(dim=2) / self.spread**2  # [B, num_ws]
                loss = loss + _PULL * away.mean(dim=1).sum()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            with torch.no_grad():
                for plane in noise:
                    plane -= plane.mean(dim=(2, 3), keepdim=True)
                    plane *= plane.square().mean(dim=(2, 3), keepdim=True).rsqrt()
            bar.update()
            if step % 10 == 0 or step == self.steps - 1:
                bar.set_postfix(distance=f"{distance.item() / len(ws):.3f}", refresh=False)
        return ws.detach(), [plane.detach() for plane in noise]

    @torch.no_grad()
    def distance(self, ws: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return self._distance(ws, noise)

    def _distance(self, ws: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Distance of every image to its photo, ``[B]``."""
        network = styled(self.model)
        images = network.synthesis(ws.expand(-1, network.num_ws, -1), noise, self.model.dtype)
        return (self.perception.features(images) - self.target).square().sum(dim=1)


def _ramp(t: float) -> float:
    """The step size at share ``t`` of the steps: up in a line, down along a cosine."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / _RAMP_DOWN))
    return down * min(1.0, (t + 0.01) / _RAMP_UP)


def _pattern(noise: Tensor) -> Tensor:
    """How far noise ``[B, 1, r, r]`` is from noise: squared correlation with its neighbours, at every size down to 8.

    Halving averages four values and doubles them, which keeps their variance at one. Summed over the batch.
    """
    total = noise.new_zeros(())
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square().sum()
        if noise.shape[-1] <= 8:
            return total
        noise = 2 * F.avg_pool2d(noise, 2)


@torch.no_grad()
def _spread(model: Model) -> float:
    network = styled(model)
    z = torch.randn(_SPREAD_OF, network.z_dim, generator=torch.Generator().manual_seed(0)).to(model.device)
    labels = label_of(model, _SPREAD_OF, None)
    if labels is not None:  # all classes in turn
        labels = torch.eye(labels.shape[1], device=model.device)[torch.arange(_SPREAD_OF) % labels.shape[1]]
    w = network.mapping(z, labels)
    return float((w - w.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def psnr(a: Images, b: Images) -> npt.NDArray[np.float64]:
    """Decibels between images uint8 ``[B, H, W, 3]``: ``[B]``, 100 for identical ones.

    Example:
        >>> psnr(np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)).tolist()
        [-0.0]
    """
    error = ((a.astype(np.float64) - b) ** 2).mean(axis=(1, 2, 3))
    decibels: npt.NDArray[np.float64] = -10 * np.log10(np.maximum(error / 255**2, 1e-10))
    return decibels
