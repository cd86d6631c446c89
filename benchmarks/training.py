"""How quickly StyleGAN2 is trained and sampled here, beside the way in which the published code does it on a CPU.

    python benchmarks/training.py --size 64 --channels 16384 --batch 16

The peer is written after Karras et al. 2020b's description of their reference ops: float32, NCHW, modulated activations
in training and modulated weights for a single image, resampling as zeros between pixels followed by a filter, and a
fresh pass of the generator in each phase. Freed memory is kept on both sides, although that is no part of the published
code. Both have the same weights; that their images agree is checked first. Every figure is of a process of its own, so
that peak memory is, too. Regularisation is left out on both sides.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from crossfake.memory import keep_freed_memory
from crossfake.provenance import environment
from crossfake.synth.families.layers import normalised
from crossfake.synth.families.stylegan2 import Discriminator, Generator
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import save_model
from crossfake.synth.settings import GenerateSettings
from crossfake.synth.training.adversarial import StyleLearner
from crossfake.synth.training.learner import Plan
from crossfake.synth.training.runs import make_plan
from crossfake.synth.training.settings import TrainSettings

_ROOT2 = math.sqrt(2)


def resample(
    x: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """Zeros between pixels, padding, the 4×4 filter, every second pixel: one after the other."""
    batch, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(batch, channels, height * up, width * up)
    x = F.pad(x, [pad[0], pad[1], pad[0], pad[1]])
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(row, row) / 64 * gain).repeat(channels, 1, 1, 1)
    return F.conv2d(x, kernel, groups=channels)[:, :, ::down, ::down]


def styled(layer: Any, x: Tensor, w: Tensor, noise: Tensor, training: bool) -> Tensor:
    style = layer.affine(w)
    weight = layer.weight[None] * style[:, None, :, None, None]
    demodulate = (weight.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()
    if training:  # one weight for all, and scaled activations
        x, weight = x * style[:, :, None, None], layer.weight
    else:
        weight = (weight * demodulate[:, :, None, None, None])[0]
    if layer.up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = resample(x, pad=(1, 1), gain=4)
    else:
        x = F.conv2d(x, weight, padding=1)
    if training:
        x = x * demodulate[:, :, None, None]
    x = x + noise * layer.noise_strength
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * _ROOT2


def peer_images(network: Generator, latents: Tensor, training: bool = True) -> Tensor:
    """Weights are modulated for a single image only, as the published code does it out of training."""
    z, noise = latents[:, : network.z_dim], network.split_noise(latents)
    w = normalised(z)
    for layer in network.mapping.layers:
        w = (
            F.leaky_relu(F.linear(w, layer.weight * layer.weight_gain / _ROOT2, layer.bias * 0.01), 0.2)
            * _ROOT2
        )
    x = styled(network.convs[0], network.const.repeat(len(z), 1, 1, 1), w, noise[0], training)
    image = torch.zeros(())
    for k, to_rgb in enumerate(network.to_rgb):
        if k:
            x = styled(network.ups[k - 1], x, w, noise[2 * k - 1], training)
            x = styled(network.convs[k], x, w, noise[2 * k], training)
            image = resample(image, up=2, pad=(2, 1), gain=4)
        style = to_rgb.affine(w) * to_rgb.gain  # type: ignore[operator]
        rgb = F.conv2d(x * style[:, :, None, None], to_rgb.weight)  # type: ignore[arg-type]
        image = image + rgb + to_rgb.bias[:, None, None]  # type: ignore[index]
    return image


def peer_logits(network: Discriminator, images: Tensor) -> Tensor:
    def conv(layer: Any, x: Tensor) -> Tensor:
        weight = layer.weight * (layer.weight_gain / (_ROOT2 if layer.activate else 1))
        if layer.down and layer.kernel == 1:
            return F.conv2d(resample(x, down=2, pad=(1, 1)), weight)
        x = (
            F.conv2d(resample(x, pad=(2, 2)), weight, stride=2)
            if layer.down
            else F.conv2d(x, weight, padding=layer.kernel // 2)
        )
        gain = layer.gain / _ROOT2
        return F.leaky_relu(x + (layer.bias * gain)[:, None, None], 0.2) * _ROOT2

    x = conv(network.from_rgb, images)
    for block in network.blocks.values():
        x = conv(block.conv1, conv(block.conv0, x)) + conv(block.skip, x)
    batch = len(x)
    group = math.gcd(batch, 4)
    deviation = x.reshape(group, batch // group, -1).var(dim=0, correction=0).add(1e-8).sqrt().mean(dim=1)
    x = torch.cat([x, deviation.repeat(group).reshape(-1, 1, 1, 1).expand(-1, -1, 4, 4)], dim=1)
    logits: Tensor = network.out(network.dense(conv(network.conv, x).flatten(1)))
    return logits.squeeze(1)


def plan_of(args: argparse.Namespace) -> Plan:
    settings = TrainSettings(
        Path(),
        Path(),
        batch=args.batch,
        channels=args.channels,
        gamma=0.0,
        path_weight=0.0,
        mixing=0.9,
        noise=True,
        device="cpu",
    )
    return make_plan(settings, args.size)


def steps(args: argparse.Namespace, step: Callable[[], object]) -> float:
    """Images per second, after one step that allocates."""
    step()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds:
        step()
        done += 1
    return done * args.batch / (time.perf_counter() - started)


def train_ours(args: argparse.Namespace) -> float:
    learner = StyleLearner(plan_of(args), 0)
    real = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    return steps(args, lambda: learner.train_step(real))


def train_peer(args: argparse.Namespace) -> float:
    generator, discriminator = (
        Generator(args.size, args.channels),
        Discriminator(args.size, args.channels),
    )
    optimizers = [torch.optim.Adam(n.parameters(), 0.0025, (0.0, 0.99)) for n in (generator, discriminator)]
    real = torch.randn(args.batch, 3, args.size, args.size)

    def step() -> None:
        optimizers[0].zero_grad(set_to_none=True)
        fake = peer_images(generator, torch.randn(args.batch, generator.latent_dim))
        F.softplus(-peer_logits(discriminator.requires_grad_(False), fake)).mean().backward()
        optimizers[0].step()
        optimizers[1].zero_grad(set_to_none=True)
        discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = peer_images(generator, torch.randn(args.batch, generator.latent_dim))
        F.softplus(peer_logits(discriminator, fake)).mean().backward()
        F.softplus(-peer_logits(discriminator, real)).mean().backward()
        optimizers[1].step()

    return steps(args, step)


def sample_ours(args: argparse.Namespace) -> float:
    plan = plan_of(args)
    with tempfile.TemporaryDirectory() as folder:
        network = Generator(**plan.arguments)
        card = {"size": args.size, "channels": args.channels, "network": plan.arguments, "classes": []}
        save_model(Path(folder) / "model", "stylegan2", network, card)
        count = 64 * max(1, round(args.seconds))
        out = Path(folder) / "out"
        started = time.perf_counter()
        generate(GenerateSettings(count, Path(folder) / "model", out, device="cpu"))
        return count / (time.perf_counter() - started)


def sample_peer(args: argparse.Namespace) -> float:
    network = Generator(args.size, args.channels).eval().requires_grad_(False)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds:
        image = peer_images(network, torch.randn(1, network.latent_dim), training=False)[0]
        pixels = (image.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(io.BytesIO(), "PNG")
        done += 1
    return done / (time.perf_counter() - started)


MEASURES = {f.__name__: f for f in (train_ours, train_peer, sample_ours, sample_peer)}


def check(args: argparse.Namespace) -> None:
    """Both ways give the same images and logits."""
    torch.manual_seed(0)
    generator, discriminator = Generator(args.size, 1024), Discriminator(args.size, 1024)
    latents = torch.randn(4, generator.latent_dim)
    with torch.no_grad():
        images = generator(latents)
        torch.testing.assert_close(peer_images(generator, latents), images, atol=1e-4, rtol=1e-3)
        alone = peer_images(generator, latents[:1], training=False)
        torch.testing.assert_close(alone, images[:1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            peer_logits(discriminator, images), discriminator(images), atol=1e-4, rtol=1e-3
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16384)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        keep_freed_memory()  # as every command does
        rate = MEASURES[args.measure](args)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"rate": rate, "memory": memory}))
        return
    check(args)
    hardware = environment()["hardware"]
    print(f"{hardware}\n{args.size}×{args.size}, channels {args.channels}, batch {args.batch}")
    print(f"{'':<12}{'crossfake':>12}{'peer':>12}{'ratio':>8}   peak memory, GB")
    for what in ("train", "sample"):
        found: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for _ in range(args.rounds):
            for who, measured in found.items():
                command = [sys.executable, __file__, *sys.argv[1:], "--measure", f"{what}_{who}"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                measured.append(json.loads(done.stdout.splitlines()[-1]))
        ours, peer = (sorted(m, key=lambda each: each["rate"])[len(m) // 2] for m in found.values())
        print(
            f"{what:<12}{ours['rate']:>9.2f}/s{peer['rate']:>10.2f}/s{ours['rate'] / peer['rate']:>8.1f}"
            f"   {ours['memory']:.1f} beside {peer['memory']:.1f}"
        )


if __name__ == "__main__":
    main()
