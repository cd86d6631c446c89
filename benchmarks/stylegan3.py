"""How quickly StyleGAN3 draws and is trained here, beside the published reference operations, in one process.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/stylegan3.py --size 64 --channels 4096

The peer is written after Karras et al. 2021's description: float32, NCHW, a weight of its own for every image in one
grouped convolution, and every filter as zeros between samples, padding, a plain convolution at the full rate, and
dropped samples. Both have the same weights; that their images agree is checked first. They take turns, and processor
time is counted, so that other processes matter little.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.device import compute_dtype
from crossfake.memory import keep_freed_memory
from crossfake.provenance import environment
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.families.stylegan3 import Generator


def resample(x: Tensor, taps: Any, up: int, down: int, pads: list[int]) -> Tensor:
    """Zeros between samples, padding, the filter (row by row where it is separable), every so manieth sample."""
    batch, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(batch, channels, height * up, width * up)
    kernel = torch.as_tensor(taps, dtype=torch.float32) * up ** (2 if taps.ndim == 2 else 1)
    x = F.pad(x, pads)
    if kernel.ndim == 2:
        x = F.conv2d(x, kernel.expand(channels, 1, -1, -1), groups=channels)
    else:
        x = F.conv2d(x, kernel.expand(channels, 1, 1, -1), groups=channels)
        x = F.conv2d(x, kernel[:, None].expand(channels, 1, -1, -1), groups=channels)
    return x[:, :, ::down, ::down]


def convolve(layer: Any, x: Tensor, style: Tensor, demodulate: bool) -> Tensor:
    weight = layer.weight[None] * style[:, None, :, None, None]
    if demodulate:
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    weight = weight * layer.magnitude.rsqrt()
    batch, outputs, inputs, *kernel = weight.shape
    weight = weight.reshape(batch * outputs, inputs, *kernel)
    x = F.conv2d(x.reshape(1, batch * inputs, *x.shape[2:]), weight, padding=kernel[0] - 1, groups=batch)
    return x.reshape(batch, outputs, *x.shape[2:]) + layer.bias[:, None, None]


def peer_images(network: Generator, ws: Tensor) -> Tensor:
    x = network.input(ws[:, 0]).contiguous()
    before = network.bands[0]
    for k, layer in enumerate(list(network.layers)[:-1], 1):
        band, activation = network.bands[k - 1], layer.activation
        rate = max(before.rate, band.rate) * 2
        up, down = rate // before.rate, rate // band.rate
        x = convolve(layer, x, layer.affine(ws[:, k]), demodulate=True)
        rise, fall = activation.up_filter, activation.down_filter
        total = (band.size - 1) * down + 1 - x.shape[2] * up + len(rise) + len(fall) - 2
        low = (total + up) // 2
        x = resample(x, rise, up, 1, [low, total - low] * 2)
        x = (F.leaky_relu(x, 0.2) * math.sqrt(2)).clamp(-256, 256)
        x = resample(x, fall, 1, down, [0, 0, 0, 0])
        before = band
    layer: Any = network.layers[-1]
    style = layer.affine(ws[:, -1]) / math.sqrt(layer.weight.shape[1])
    return convolve(layer, x, style, demodulate=False).clamp(-256, 256) * 0.25


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    keep_freed_memory()  # as every command does
    dtype = compute_dtype(torch.device("cpu"), "auto")
    print(
        f"{environment()['hardware']}\n{args.size}×{args.size}, channels {args.channels}, batch {args.batch}",
        dtype,
    )
    for family in ("stylegan3", "stylegan3-r"):
        torch.manual_seed(0)
        network: Any = (
            FAMILIES.get(family).generator(size=args.size, channels=args.channels, clamp=256.0).eval()
        )
        ws = network.styles(torch.randn(args.batch, network.z_dim)).detach()
        with torch.no_grad():
            torch.testing.assert_close(peer_images(network, ws), network.synthesis(ws), atol=1e-4, rtol=1e-3)

        def ours(network: Any = network, ws: Tensor = ws) -> Tensor:
            images: Tensor = network.synthesis(ws, dtype=dtype)
            return images

        def peer(network: Any = network, ws: Tensor = ws) -> Tensor:
            return peer_images(network, ws)

        for what in ("draw", "train"):
            for turn in range(args.rounds + 1):
                if turn <= 1:  # the first turn prepares kernels and memory
                    took = {"ours": 0.0, "peer": 0.0}
                for name, images in (("ours", ours), ("peer", peer)):
                    if what == "draw":
                        with torch.no_grad():
                            took[name] += seconds(images)
                    else:
                        took[name] += seconds(lambda images=images: images().square().mean().backward())
            rates = {name: args.rounds * args.batch / time for name, time in took.items()}
            ratio = rates["ours"] / rates["peer"]
            print(f"{family:<13}{what:<7}{rates['ours']:>8.2f}/s{rates['peer']:>8.2f}/s{ratio:>7.1f}")


if __name__ == "__main__":
    main()
