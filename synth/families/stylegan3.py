"""StyleGAN3 (Karras et al. 2021, "Alias-Free Generative Adversarial Networks"), configurations T and R.

Signals are band-limited throughout, so that detail moves with the surface that it is on instead of sticking to pixels:
Fourier features instead of a constant, no noise, and non-linearities that are computed at twice the rate between two
low-pass filters. R filters radially and mixes pixels by 1×1 convolutions alone: turning the input turns the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters, log2_size
from crossfake.synth.families.filters import TAPS, downsampling, lowpass, separable, upsampling
from crossfake.synth.families.layers import Dense, Mapping, clamped, leaky
from crossfake.synth.families.stylegan2 import Discriminator
from crossfake.synth.families.styles import StyleGenerator
from crossfake.synth.training.adversarial import StyleLearner

_SQRT2 = math.sqrt(2)
_SCALE = 0.25  # of the last layer's output
_FIRST_CUTOFF, _FIRST_STOP = 2.0, 2.0**2.1  # cycles per picture
_LAST_STOP = 2.0**0.3  # over the last cutoff
_STRIP = 96  # rows at a time: a filter reaches a few, and the matrices' other entries are zeros
_COARSE = 2**-9  # a part of a filter that is smaller is lost in the rounding of 16 bits
_HALF_LIFE = 20_000  # images, of the running magnitudes


@dataclass(frozen=True)
class Band:
    """Where the signal behind a layer lives (Karras et al. 2021, sec. 3.2 and fig. 4).

    Attributes:
        cutoff: its highest frequency, in cycles per picture.
        half_width: half the filters' transition.
        rate: samples per picture.
        size: samples with the margins.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int

    @property
    def critical(self) -> bool:
        """Whether it fills the spectrum that its rate allows."""
        return self.cutoff * 2 >= self.rate


def bands(size: int, layers: int, critical: int, margin: int) -> list[Band]:
    """What every layer but that to colours puts out: cutoffs and stop bands rise geometrically up to the last ones.

    Args:
        size: of the images.
        layers: without the one to colours.
        critical: last layers that are sampled critically.
        margin: samples beyond each edge.

    Example:
        >>> [(band.rate, band.size) for band in bands(64, 4, 2, 10)]
        [(16, 36), (64, 84), (64, 84), (64, 64)]
    """
    last = size / 2
    found = []
    for k in range(layers):
        share = min(k / (layers - critical), 1.0)
        cutoff = _FIRST_CUTOFF * (last / _FIRST_CUTOFF) ** share
        stop = _FIRST_STOP * (last * _LAST_STOP / _FIRST_STOP) ** share
        rate = 2 ** math.ceil(math.log2(min(stop * 2, size)))
        extent = size if k == layers - 1 else rate + 2 * margin
        found.append(Band(cutoff, max(stop, rate / 2) - cutoff, rate, extent))
    return found


class FourierInput(nn.Module):
    """Sinusoids of fixed random frequencies, moved and turned as w says, mixed by a matrix (app. F).

    ``transform`` ``[3, 3]`` is applied to all coordinates: it is the inverse of how the picture is to be moved.

    Shapes: w ``[B, w_dim]`` → ``[B, channels, size, size]``.
    """

    def __init__(self, channels: int, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        angle = torch.rand(channels) * (2 * math.pi)
        radius = torch.rand(channels).sqrt() * band.cutoff  # uniform on the disc
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Dense(w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("freqs", torch.stack([angle.cos(), angle.sin()], dim=1) * radius[:, None])
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3), persistent=False)
        self.freqs: Tensor
        self.phases: Tensor
        self.transform: Tensor

    def forward(self, w: Tensor) -> Tensor:
        cos, sin, right, down = (lambda t: t / t[:, :2].norm(dim=1, keepdim=True))(self.affine(w)).unbind(1)
        # coordinates p become R(T p) with R the rotation [[cos, -sin], [sin, cos]] and T the shift by -(right, down)
        x, y = self.freqs.unbind(1)
        fx = torch.outer(cos, x) + torch.outer(sin, y)  # [B, C]: frequencies turned the other way
        fy = torch.outer(cos, y) - torch.outer(sin, x)
        phases = self.phases - fx * right[:, None] - fy * down[:, None]
        move = self.transform.to(w.dtype)
        phases = phases + fx * move[0, 2] + fy * move[1, 2]
        fx, fy = fx * move[0, 0] + fy * move[1, 0], fx * move[0, 1] + fy * move[1, 1]
        # what is beyond the band fades out until half the rate
        excess = torch.hypot(fx, fy) - self.band.cutoff
        amplitude = (1 - excess / (self.band.rate / 2 - self.band.cutoff)).clamp(0, 1)
        n = self.band.size
        at = (torch.arange(n, device=w.device, dtype=w.dtype) + 0.5 - n / 2) / self.band.rate
        # sin(a + b) of sums along the axes: 2n sinusoids in place of n²
        across = (fx[:, None] * at[:, None] + phases[:, None]) * (2 * math.pi)  # [B, n, C]
        along = fy[:, None] * at[:, None] * (2 * math.pi)
        waves = (
            across.sin()[:, None] * along.cos()[:, :, None] + across.cos()[:, None] * along.sin()[:, :, None]
        )
        mix = self.weight * (amplitude[:, None] / math.sqrt(len(self.weight)))  # [B, C, C]
        return torch.matmul(waves.flatten(1, 2), mix.transpose(1, 2)).unflatten(1, (n, n)).permute(0, 3, 1, 2)


class FilteredLeaky(nn.Module):
    """Leaky ReLU times √2 at a higher rate, between two low-pass filters (sec. 3.1): ``[B, C, n, n] -> [B, C, m, m]``.

    Filters are matrix products along one axis for all channels; along the other, some rows at a time.

    Args:
        source: band of what comes in.
        target: of what goes out.
        size: samples that come in.
        radial: whether the second filter is.
        clamp: limit of the activations.
    """

    def __init__(self, source: Band, target: Band, size: int, radial: bool, clamp: float | None) -> None:
        super().__init__()
        rate = max(source.rate, target.rate) * 2
        self.up, self.down = rate // source.rate, rate // target.rate
        taps_up, self.taps_down = TAPS * self.up, TAPS * self.down
        self.length = (target.size - 1) * self.down + self.taps_down  # samples that the second filter needs
        missing = self.length - (size * self.up - taps_up + 1)
        self.before = (missing + self.up) // 2
        self.up_filter = lowpass(taps_up, source.cutoff, 2 * source.half_width, rate)
        self.down_filter = lowpass(self.taps_down, target.cutoff, 2 * target.half_width, rate, radial)
        rise = upsampling(self.up_filter, self.up, size, self.before, missing - self.before)
        parts = separable(self.down_filter)
        falls = np.stack([downsampling(v, self.down, target.size, self.length) for v, _ in parts], axis=1)
        weights = np.array([c for _, c in parts])
        self.coarse = int(np.sum(abs(weights) > _COARSE * abs(weights[0])))  # parts that show in 16 bits
        self.register_buffer("rise", torch.tensor(rise, dtype=torch.float32), persistent=False)  # [length, n]
        self.register_buffer(
            "fall", torch.tensor(falls, dtype=torch.float32), persistent=False
        )  # [m, R, length]
        gather = torch.tensor(falls * weights[:, None] * _SQRT2, dtype=torch.float32)
        self.register_buffer("gather", gather, persistent=False)  # [m, R, length]
        self.gain = float(abs(rise).sum(axis=1).max() ** 2)
        self.limit = None if clamp is None else clamp / _SQRT2
        self.rise: Tensor
        self.fall: Tensor
        self.gather: Tensor

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, size = x.shape[:3]
        parts = self.fall.shape[1] if x.dtype.itemsize > 2 else self.coarse
        rise, fall, gather = (
            matrix.to(x.dtype) for matrix in (self.rise, self.fall[:, :parts], self.gather[:, :parts])
        )
        x = x.permute(0, 2, 3, 1)  # as it lies in memory
        limit = self.limit
        if limit is not None and not x.is_cuda and not torch.compiler.is_compiling():
            largest = torch.stack(x.detach().aminmax()).abs().max()
            limit = None if largest * self.gain <= limit else limit  # far from it as a rule: one pass less
        x = torch.matmul(rise, x).flatten(2)  # [B, n, length · C]
        rows = []
        for first in range(0, len(fall), _STRIP):
            out = fall[first : first + _STRIP].flatten(0, 1)
            low = first * self.down
            high = (first + len(out) // parts - 1) * self.down + self.taps_down
            near = self._reach(low, high, size)
            risen = clamped(leaky(torch.matmul(rise[low:high, near], x[:, near])), limit)
            rows.append(torch.matmul(out[:, low:high], risen))
        x = torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]  # [B, m · R, length · C]
        x = x.reshape(batch, len(fall), -1, channels)
        return torch.matmul(gather.flatten(1), x).permute(0, 3, 1, 2)

    def _reach(self, a: int, b: int, size: int) -> slice:
        """The samples that meet a tap of rows ``a`` to ``b - 1`` of ``rise``."""
        last = (b - 2 + TAPS * self.up - self.before) // self.up
        return slice(max(0, -((self.before - a) // self.up)), min(size, last + 1))


class Layer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; the one to colours has neither demodulation nor filters.

    The input is divided by the root of its running mean square instead of being normalised (sec. 2).

    Shapes: x ``[B, inputs, n, n]``, w ``[B, w_dim]`` → ``[B, outputs, m, m]``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        source: Band,
        target: Band,
        *,
        kernel: int,
        radial: bool,
        clamp: float | None,
        colours: bool = False,
    ) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("magnitude", torch.ones(()))
        self.magnitude: Tensor
        self.seen: Tensor | None = None  # mean square of the last input of training
        self.padding, self.clamp = kernel - 1, clamp
        grown = source.size + kernel - 1
        radial = radial and not target.critical
        self.activation = None if colours else FilteredLeaky(source, target, grown, radial, clamp)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.training:
            self.seen = x.detach().float().square().mean()
        style = self.affine(w)
        gain = self.magnitude.rsqrt()
        if self.activation is None:
            style = style * (gain / math.sqrt(self.weight[0].numel()))
            x = F.conv2d(x * style.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype))
            return clamped(x.to(w.dtype) + self.bias[:, None, None], self.clamp)
        power = self.weight.square().sum(dim=(2, 3))  # [O, I]
        gain = gain * (style.square() @ power.T + 1e-8).rsqrt()  # [B, O]
        x = F.conv2d(x * style.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype), padding=self.padding)
        bias, scale = self.bias.to(x.dtype)[:, None, None], gain.to(x.dtype)[:, :, None, None]
        filtered: Tensor = self.activation(torch.addcmul(bias, x, scale))
        return filtered


class Generator(StyleGenerator):
    """Fourier features, ``layers`` filtered layers, and one to colours.

    Args:
        size: output height and width, a power of two from 16 to 1024.
        channels: width of the network: feature maps are ``channels / (2 · cutoff)``, at most ``channels / 16`` and 512;
            twice as many with ``rotation``.
        classes: how many the images belong to; 0 is none.
        z_dim: length of z.
        w_dim: length of w; that of z when 0.
        mapping_layers: depth of the mapping network.
        layers: how many, without the one to colours.
        critical: how many of the last ones are sampled critically.
        margin: samples beyond the picture's edges in all but the last ones.
        layer_widths: feature maps of every layer, in place of ``channels``.
        rotation: configuration R, in place of T.
        clamp: limit of every activation, None for none.

    ``forward`` takes Gaussian vectors ``[B, latent_dim]`` and returns float32 ``[B, 3, size, size]``, about [-1, 1].

    Example:
        >>> generator = Generator(size=16, channels=256, layers=4)
        >>> generator(torch.randn(2, generator.latent_dim)).shape
        torch.Size([2, 3, 16, 16])
    """

    movable = True

    def __init__(
        self,
        size: int,
        channels: int = 0,
        classes: int = 0,
        z_dim: int = 256,
        w_dim: int = 0,
        mapping_layers: int = 2,
        layers: int = 14,
        critical: int = 2,
        margin: int = 10,
        layer_widths: Sequence[int] = (),
        rotation: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        log2_size(size)
        self.size, self.classes, self.z_dim, self.w_dim = size, classes, z_dim, w_dim or z_dim
        self.latent_dim = z_dim
        self.bands = bands(size, layers, critical, margin)
        widths = layer_widths or [width_at(band, channels, rotation) for band in self.bands]
        self.mapping = Mapping(z_dim, self.w_dim, mapping_layers, classes)
        self.input = FourierInput(widths[0], self.w_dim, self.bands[0])
        kernel = 1 if rotation else 3
        before = [0, *range(layers - 1)]  # the input has the first layer's width and band
        self.layers = nn.ModuleList(
            Layer(
                widths[i],
                widths[k],
                self.w_dim,
                self.bands[i],
                self.bands[k],
                kernel=kernel,
                radial=rotation,
                clamp=clamp,
            )
            for k, i in enumerate(before)
        )
        end = self.bands[-1]
        self.layers.append(
            Layer(widths[-1], 3, self.w_dim, end, end, kernel=1, radial=False, clamp=clamp, colours=True)
        )
        self.num_ws = 1 + len(self.layers)

    def synthesis(
        self, ws: Tensor, noise: Sequence[Tensor | None] = (), dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """w per layer ``[B, num_ws, w_dim]`` to images; there is no noise."""
        x = self.input(ws[:, 0]).to(dtype)
        for k, layer in enumerate(self.layers, 1):
            x = layer(x, ws[:, k])
        return x * _SCALE

    def move(self, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0) -> None:
        """By the coordinates of the input (app. F)."""
        cos, sin = math.cos(math.radians(rotate)), math.sin(math.radians(rotate))
        forward = torch.tensor(
            [[cos, sin, translate[0]], [-sin, cos, translate[1]], [0.0, 0.0, 1.0]], dtype=torch.float64
        )
        self.input.transform.copy_(forward.inverse())

    @torch.no_grad()
    def track(self, batch: int, average: Callable[[Sequence[Tensor]], None]) -> None:
        """Move the running magnitudes towards those of the last pass."""
        layers: list[Any] = [layer for layer in self.layers if layer.seen is not None]
        seen: list[Tensor] = [layer.seen for layer in layers]
        average(seen)
        for layer, now in zip(layers, seen, strict=True):
            layer.magnitude.lerp_(now, 1 - 0.5 ** (batch / _HALF_LIFE))


def width_at(band: Band, channels: int, rotation: bool = False) -> int:
    """Feature maps of a band: ``channels / (2 · cutoff)``, at most ``channels / 16`` and 512; twice that for R.

    At least 16: without noise pictures differ by the modulation of feature maps alone, and of few by little.
    """
    width = min(round(channels / 2 / band.cutoff), channels // 16, 512)
    return max(16, width) * (2 if rotation else 1)


_PUBLISHED = Hyperparameters(lr=0.0025, ema_kimg=10.0, r1_every=16, noise=False)
_T = Family(
    generator=Generator,
    discriminator=Discriminator,
    summary="StyleGAN3-T: alias-free, detail moves with the face; slow on a CPU.",
    learner=StyleLearner,
    recipe=_PUBLISHED,
    recipe_cpu=replace(_PUBLISHED, lr=0.005),
    batch_cpu=8,
    channels_cpu=2048,
    channels_gpu=16384,
    conditional=True,
)
FAMILIES.register("stylegan3")(_T)
FAMILIES.register("stylegan3-r")(
    replace(
        _T,
        generator=partial(Generator, rotation=True),
        summary="StyleGAN3-R: turning the input turns the picture, too; slower still.",
    )
)
