"""Augmentations between images and discriminator: what it sees of real and fake alike, differentiable twice.

As long as each is applied with a probability well below one, a generator cannot gain by imitating them, and its own
images stay as they are (Karras et al. 2020b, sec. 2.2; Zhao et al. 2020, sec. 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch import Tensor

from crossfake.synth.training.learner import Draws

GROUPS = ("blit", "geometry", "colour", "filter", "noise", "cutout")
_P_MOST = 0.8  # above, augmentations leak into the images (Karras et al. 2020b, sec. 2.2)
_BANDS_POWER = (
    10 / 13,
    1 / 13,
    1 / 13,
    1 / 13,
)  # of natural images, from low to high frequencies (ibid., app. B)
# Symlet-6's low-pass: resampling by it leaves neither aliasing nor blur (ibid., app. B)
_SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # a table  # fmt: skip


class Adaptive:
    """Adaptive discriminator augmentation (Karras et al. 2020b): 18 transformations, each with probability p.

    p rises while the discriminator is too sure of the real images that it has seen (r_t, the mean sign of its logits on
    them, is above ``target``) and falls otherwise.

    Args:
        groups: which of :data:`GROUPS`; blitting, geometry and colour are what the paper recommends.
        target: of r_t.
        kimg: thousands of images in which p could go from 0 to 1.
        p: where it starts.
    """

    def __init__(
        self,
        groups: Sequence[str] = ("blit", "geometry", "colour"),
        target: float = 0.6,
        kimg: float = 500.0,
        p: float = 0.0,
    ) -> None:
        self.groups, self.target, self.kimg, self.p = tuple(groups), target, kimg, p

    def state(self) -> dict[str, float]:
        """What a checkpoint holds of it."""
        return {"p": self.p}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.p = state["p"]

    def adapt(self, sign: float, batch: int) -> None:
        """Move p by what a batch showed: ``sign`` is the mean sign of the logits on real images."""
        step = math.copysign(batch / (self.kimg * 1000), sign - self.target) if sign == sign else 0.0
        self.p = min(max(self.p + step, 0.0), _P_MOST)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images float32 ``[B, 3, H, W]`` in [-1, 1] to the same, each transformed in its own way."""
        if self.p <= 0:
            return images
        if "blit" in self.groups or "geometry" in self.groups:
            images = warp(images, self._placement(images, draws))
        if "colour" in self.groups:
            images = _colours(images, _colour_matrix(len(images), self.p, draws))
        if "filter" in self.groups:
            images = _filter_bands(images, self.p, draws)
        if "noise" in self.groups:
            sigma = _where(self.p, draws, draws.normal(len(images)).abs() * 0.1, 0.0)
            images = images + draws.normal(*images.shape) * sigma[:, None, None, None]
        if "cutout" in self.groups:
            images = _cut_out(
                images, _where(self.p, draws, torch.full_like(images[:, 0, 0, 0], 0.5), 0.0), draws
            )
        return images

    def _placement(self, images: Tensor, draws: Draws) -> Tensor:
        """Where each output pixel comes from: ``[B, 3, 3]``, pixels from the centre."""
        count, p, (height, width) = len(images), self.p, images.shape[2:]
        matrix = torch.eye(3, device=images.device).repeat(count, 1, 1)
        if "blit" in self.groups:
            mirror = _where(p, draws, draws.integers(0, 2, count).float(), 0.0)
            matrix = matrix @ _scaling(1 - 2 * mirror, torch.ones_like(mirror))
            quarter = _where(p, draws, draws.integers(0, 4, count).float(), 0.0)
            matrix = matrix @ _rotation(quarter * (math.pi / 2))
            shift = draws.uniform(count, 2) * 0.25 - 0.125
            extent = torch.tensor([width, height], device=images.device)
            shift = (shift * extent).round() * _where(p, draws, torch.ones(count, device=images.device), 0.0)[
                :, None
            ]
            matrix = matrix @ _translation(shift)
        if "geometry" in self.groups:
            p_rotation = 1 - math.sqrt(1 - p)  # one of two, before and after, happens with probability p
            scale = _where(p, draws, _lognormal(draws, count, 0.2), 1.0)
            matrix = matrix @ _scaling(1 / scale, 1 / scale)
            matrix = matrix @ _rotation(_where(p_rotation, draws, _angle(draws, count), 0.0))
            stretch = _where(p, draws, _lognormal(draws, count, 0.2), 1.0)
            matrix = matrix @ _scaling(1 / stretch, stretch)
            matrix = matrix @ _rotation(_where(p_rotation, draws, _angle(draws, count), 0.0))
            shift = draws.normal(count, 2) * 0.125
            extent = torch.tensor([width, height], device=images.device)
            shift = shift * extent * _where(p, draws, torch.ones(count, device=images.device), 0.0)[:, None]
            matrix = matrix @ _translation(shift)
        return matrix


def diff_augment(images: Tensor, draws: Draws) -> Tensor:
    """DiffAugment's colour, translation and cutout (Zhao et al. 2020): every image, every time, but gently.

    Shapes: float32 ``[B, 3, H, W]`` in [-1, 1] to the same.
    """
    count, (height, width) = len(images), images.shape[2:]
    images = images + (draws.uniform(count) - 0.5)[:, None, None, None]
    grey = images.mean(dim=1, keepdim=True)
    images = grey.lerp(images, (draws.uniform(count) * 2)[:, None, None, None])
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean.lerp(images, (draws.uniform(count) + 0.5)[:, None, None, None])
    most = [max(1, round(side / 8)) for side in (height, width)]
    rows, columns = (
        torch.arange(side, device=images.device) + draws.integers(-reach, reach + 1, count, 1)
        for side, reach in zip((height, width), most, strict=True)
    )
    padded = F.pad(images, (1, 1, 1, 1))  # what is shifted in is black, 0
    rows, columns = (rows + 1).clamp(0, height + 1), (columns + 1).clamp(0, width + 1)
    which = torch.arange(count, device=images.device)[:, None, None]
    images = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return _cut_out(images, torch.full((count,), 0.5, device=images.device), draws)


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Move pixels without aliasing: up-sampled by 2, sampled between pixels, down-sampled; the outside is mirrored.

    Args:
        images: ``[B, C, H, W]``, square.
        matrix: ``[B, 3, 3]``, output to input, in pixels from the centre.
    """
    changed = (matrix - torch.eye(3, device=matrix.device)).abs().amax(dim=(1, 2)) > 1e-6
    rows = changed.nonzero().flatten()
    if not len(rows):
        return images
    size, taps = images.shape[2], len(_SYM6)
    margin = taps // 2
    fine = F.pad(images[rows], (margin,) * 4, mode="reflect" if size > margin else "replicate")
    fine = _separable(_spread(fine), _SYM6, gain=math.sqrt(2))
    cut = 2 * margin + taps // 2 - 1  # the margin, and half of what the taps added
    fine = fine[..., cut : cut + 2 * size, cut : cut + 2 * size]
    # Both grids are centred, and a step of the fine one is half a pixel. The filter, not quite symmetric, delays what
    # passes it; down-sampling by its mirror image undoes that: the map in between is about the delayed centre.
    delay = sum(k * tap for k, tap in enumerate(_SYM6)) / sum(_SYM6) - (taps - 1) / 2
    out = 2 * size + taps - 2
    linear, shift = matrix[rows][:, :2, :2], matrix[rows][:, :2, 2:]
    shift = 2 * shift + delay * (1 - linear.sum(dim=2, keepdim=True))
    theta = torch.cat([linear * (out - 1), shift * 2], dim=2) / (2 * size - 1)
    grid = F.affine_grid(theta, [len(rows), images.shape[1], out, out], align_corners=True)
    moved = _separable(
        _Sampled.apply(fine, grid.to(fine.dtype)), _SYM6[::-1], gain=1 / math.sqrt(2), stride=2
    )
    return images.index_copy(0, rows, moved.to(images.dtype))


class _Sampled(torch.autograd.Function):
    """``grid_sample`` whose gradient can be differentiated again: it is linear in the image."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Scattered.apply(gradient, grid, ctx.shape), None


class _Scattered(torch.autograd.Function):
    """The transpose of :class:`_Sampled`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        images = gradient.new_zeros(shape)  # only its shape matters
        found: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), images, grid, 0, 2, True, (True, False)
        )[0]
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sampled.apply(gradient, grid), None, None


def _spread(images: Tensor) -> Tensor:
    """Zeros between pixels and around: ``[B, C, H, W] -> [B, C, 2H + 21, 2W + 21]``, ready for twelve taps."""
    count, channels, height, width = images.shape
    spread = images.new_zeros(count, channels, 2 * height - 1, 2 * width - 1)
    spread[:, :, ::2, ::2] = images
    return F.pad(spread, (len(_SYM6) - 1,) * 4)


def _separable(images: Tensor, taps: Sequence[float], gain: float, stride: int = 1) -> Tensor:
    """Rows, then columns, with the same taps; nothing is added around."""
    channels = images.shape[1]
    kernel = torch.tensor(taps[::-1], device=images.device, dtype=images.dtype) * gain
    across = kernel.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    images = F.conv2d(images, across, stride=(1, stride), groups=channels)
    return F.conv2d(images, across.transpose(2, 3), stride=(stride, 1), groups=channels)


def _where(p: float, draws: Draws, values: Tensor, neutral: float) -> Tensor:
    """The values of a share p of the images ``[B]``, ``neutral`` for the others."""
    return torch.where(draws.uniform(len(values)) < p, values, neutral)


def _lognormal(draws: Draws, count: int, spread: float) -> Tensor:
    return torch.exp2(draws.normal(count) * spread)


def _angle(draws: Draws, count: int) -> Tensor:
    return (draws.uniform(count) * 2 - 1) * math.pi


def _matrix(rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    like = next(value for row in rows for value in row if isinstance(value, Tensor))
    full = [[torch.as_tensor(v, device=like.device).expand_as(like) for v in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in full], dim=-2).float()


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _translation(shift: Tensor) -> Tensor:
    return _matrix([[1.0, 0.0, shift[:, 0]], [0.0, 1.0, shift[:, 1]], [0.0, 0.0, 1.0]])


def _colours(images: Tensor, matrix: Tensor) -> Tensor:
    """An affine map of each image's colours, ``[B, 3, 4]``."""
    count, _, height, width = images.shape
    flat = torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], images.flatten(2))
    return flat.reshape(count, 3, height, width)


def _colour_matrix(count: int, p: float, draws: Draws) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation as ``[B, 3, 4]``; grey is the axis (1, 1, 1)."""
    brightness = _where(p, draws, draws.normal(count) * 0.2, 0.0)
    contrast = _where(p, draws, _lognormal(draws, count, 0.5), 1.0)
    flip = _where(p, draws, draws.integers(0, 2, count).float(), 0.0)
    hue = _where(p, draws, _angle(draws, count), 0.0)
    saturation = _where(p, draws, _lognormal(draws, count, 1.0), 1.0)
    eye = torch.eye(3, device=hue.device)
    axis = torch.full((3,), 1 / math.sqrt(3), device=hue.device)
    grey = torch.outer(axis, axis)
    linear = eye * contrast[:, None, None]
    linear = (eye - 2 * grey * flip[:, None, None]) @ linear
    linear = axis_angle_to_rotation_matrix(hue[:, None] * axis) @ linear
    linear = (grey + (eye - grey) * saturation[:, None, None]) @ linear
    offset = linear.sum(dim=2, keepdim=True) * brightness[:, None, None]  # brightness comes first
    return torch.cat([linear, offset], dim=2)


@lru_cache(maxsize=1)
def band_filters() -> Tensor:
    """Four octave bands, from low to high, ``[4, 43]``: they sum to the identity.

    With A the autocorrelation of the Daubechies-2 low-pass, a half-band filter: A(z) A(z²) A(z⁴),
    A(z) A(z²) (1 - A(z⁴)), A(z) (1 - A(z²)) and 1 - A(z).
    """
    root = math.sqrt(3)
    low = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64) / (4 * math.sqrt(2))
    half = F.conv1d(F.pad(low, (3, 3))[None, None], low[None, None])[0, 0] / 2  # seven taps
    below: list[Tensor] = [torch.ones(1, dtype=torch.float64)]
    for level in range(3):
        stretched = torch.zeros(6 * 2**level + 1, dtype=torch.float64)
        stretched[:: 2**level] = half
        kernel = below[-1]
        below.append(
            F.conv1d(F.pad(stretched, (len(kernel) - 1,) * 2)[None, None], kernel.flip(0)[None, None])[0, 0]
        )
    wide = [F.pad(kernel, ((43 - len(kernel)) // 2,) * 2) for kernel in below]
    return torch.stack([wide[3], wide[2] - wide[3], wide[1] - wide[2], wide[0] - wide[1]]).float()


def _filter_bands(images: Tensor, p: float, draws: Draws) -> Tensor:
    """Amplify or dampen the bands; the power that natural images would have stays the same."""
    count, channels = images.shape[:2]
    power = torch.tensor(_BANDS_POWER, device=images.device)
    gains = torch.ones(count, 4, device=images.device)
    for band in range(4):
        here = torch.ones_like(gains)
        here[:, band] = _where(p, draws, _lognormal(draws, count, 1.0), 1.0)
        gains = gains * here / (here.square() * power).sum(dim=1, keepdim=True).sqrt()
    taps = (gains @ band_filters().to(images.device)).repeat_interleave(channels, dim=0)
    flat = F.pad(images.flatten(0, 1)[None], (21,) * 4, mode="replicate")
    flat = F.conv2d(flat, taps[:, None, None, :], groups=count * channels)
    return F.conv2d(flat, taps[:, None, :, None], groups=count * channels).reshape(images.shape)


def _cut_out(images: Tensor, side: Tensor, draws: Draws) -> Tensor:
    """Zeros in a square whose side is a share of the image's, ``[B]``, around a random place."""
    count, (height, width) = len(images), images.shape[2:]
    center = draws.uniform(count, 2)
    y = (torch.arange(height, device=images.device) + 0.5) / height
    x = (torch.arange(width, device=images.device) + 0.5) / width
    rows = (y - center[:, :1]).abs() >= side[:, None] / 2
    columns = (x - center[:, 1:]).abs() >= side[:, None] / 2
    return images * (rows[:, None, :, None] | columns[:, None, None, :]).to(images.dtype)
