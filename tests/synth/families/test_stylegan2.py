import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossfake.runs import Run
from crossfake.synth.families.layers import fir
from crossfake.synth.families.stylegan2 import Discriminator, Generator, StyledConv, channels_at
from crossfake.synth.importing.official import discriminator_state, generator_state
from crossfake.synth.training.adversarial import gradient_penalty, path_lengths


@pytest.mark.parametrize("up", [False, True])
def test_modulating_activations_equals_modulating_weights(up: bool) -> None:
    """Karras et al. 2020a, eq. 1 and 3: one weight per image, in a grouped convolution."""
    torch.manual_seed(0)
    layer = StyledConv(6, 4, w_dim=5, resolution=16 if up else 8, up=up)
    for parameter in (layer.noise_strength, layer.bias):
        torch.nn.init.normal_(parameter)
    size = 16 if up else 8
    x, w, noise = torch.randn(3, 6, 8, 8), torch.randn(3, 5), torch.randn(3, 1, size, size)
    modulated = layer.weight[None] * layer.affine(w)[:, None, :, None, None]  # [B, O, I, 3, 3]
    modulated = modulated * (modulated.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    outputs = []
    for image, weight in zip(x, modulated, strict=True):
        if up:
            y = fir(F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            y = F.conv2d(image[None], weight, padding=1)
        outputs.append(y)
    expected = torch.cat(outputs) + noise * layer.noise_strength + layer.bias[:, None, None]
    expected = F.leaky_relu(expected, 0.2) * math.sqrt(2)
    torch.testing.assert_close(layer(x, w, noise), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_shapes_and_finite_gradients(size: int) -> None:
    generator, discriminator = Generator(size, 64), Discriminator(size, 64)
    images = generator(torch.randn(4, generator.latent_dim))
    assert images.shape == (4, 3, size, size) and images.dtype == torch.float32
    F.softplus(-discriminator(images)).mean().backward()
    missing = [
        name for name, p in generator.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not missing


def test_truncation_pulls_towards_the_mean_w() -> None:
    generator = Generator(16, 64).eval()
    generator.mapping.w_avg.normal_()
    latents = torch.randn(4, generator.latent_dim)
    latents[:, generator.z_dim :] = 0
    means = generator(latents, psi=0.0)
    torch.testing.assert_close(means[0], means[1])
    assert generator(latents, psi=0.5).var(0).mean() < generator(latents, psi=1.0).var(0).mean()


def test_style_mixing_takes_the_second_style_from_the_cut_on() -> None:
    generator = Generator(16, 64).eval()
    latents = torch.randn(16, generator.latent_dim)
    z, other = latents[:, : generator.z_dim], torch.randn(16, generator.z_dim)
    cut = torch.arange(16).clamp(1, generator.num_ws)[:, None]
    ws, w = generator.mixed_styles(z, other, None, cut)
    torch.testing.assert_close(ws[:, 0], generator.mapping(z))
    torch.testing.assert_close(w, generator.mapping(z))
    for image, place in enumerate(cut.flatten()):
        first, second = ws[image, :place], ws[image, place:]
        torch.testing.assert_close(first, generator.mapping(z)[image].expand_as(first))
        torch.testing.assert_close(second, generator.mapping(other)[image].expand_as(second))


def test_bf16_stays_close_to_fp32() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(32, 256), Discriminator(32, 256)
    latents = torch.randn(8, generator.latent_dim)
    exact, fast = generator(latents), generator(latents, dtype=torch.bfloat16)
    assert (exact - fast).abs().mean() < 0.02 * exact.abs().mean()
    logits, fast_logits = discriminator(exact), discriminator(exact, torch.bfloat16)
    assert (logits - fast_logits).abs().mean() < 0.05 * logits.std()


def test_r1_equals_the_gradient_norm_image_by_image() -> None:
    torch.manual_seed(0)
    discriminator = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    )

    class Net(torch.nn.Module):
        def forward(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return discriminator(images.to(dtype)).squeeze(1)

    images = torch.randn(5, 3, 4, 4)
    norms = []
    for image in images:
        leaf = image[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(leaf).sum(), leaf)
        norms.append(gradient.square().sum())
    judge = lambda batch: Net()(batch, torch.float32)  # noqa: E731
    torch.testing.assert_close(gradient_penalty(judge, images), torch.stack(norms))


def test_r1_can_be_differentiated_through_the_discriminator() -> None:
    discriminator = Discriminator(16, 64)
    gradient_penalty(discriminator, torch.randn(4, 3, 16, 16)).mean().backward()
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)
    assert discriminator.from_rgb.weight.grad.abs().sum() > 0


def test_width_halves_with_resolution() -> None:
    assert [channels_at(r, 2048) for r in (4, 8, 16, 32, 64)] == [128, 128, 128, 64, 32]
    assert [channels_at(r, 16384) for r in (4, 64, 256)] == [512, 256, 64]


@pytest.mark.parametrize("name", ["uncond", "cond", "clamp"])
def test_both_networks_equal_the_published_implementation(name: str, real_weights: Path) -> None:
    """Same weights, z and constant noise as the reference's networks: every array within 1e-4 in float32."""
    file = real_weights.parent / "vectors" / f"stylegan2_{name}_32px.npz"
    if not file.exists():
        pytest.skip("no reference arrays beside the weights")
    arrays = np.load(file)
    values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    clamp = 0.4 if name == "clamp" else None
    arguments, state = generator_state({k[2:]: v for k, v in values.items() if k.startswith("G/")})
    generator = Generator(**arguments, clamp=clamp).eval()
    generator.load_state_dict(state)
    labels = values.get("c") if arguments["classes"] else None

    def same(ours: torch.Tensor, theirs: str) -> None:
        expected = values[theirs]
        torch.testing.assert_close(ours.reshape(expected.shape), expected, atol=1e-4, rtol=1e-5)

    ws = generator.styles(values["z"], labels)
    same(ws, "ws")
    same(generator.styles(values["z"], labels, psi=0.7), "ws_psi0.7")
    noise = generator.constant_noise()
    images = generator.synthesis(ws, noise)
    same(images, "img_const_noise")
    same(generator.synthesis(ws, [None] * len(noise)), "img_no_noise")
    same(generator.synthesis(generator.styles(values["z"], labels, psi=0.7), noise), "img_psi0.7")

    state = discriminator_state({k[2:]: v for k, v in values.items() if k.startswith("D/")})
    discriminator = Discriminator(32, 0, arguments["classes"], arguments["widths"], clamp)
    discriminator.load_state_dict(state)
    judged = values["img_const_noise"].requires_grad_(True)
    logits = discriminator(judged, labels=labels)
    same(logits, "D_logits")
    (gradient,) = torch.autograd.grad(logits.sum(), judged)
    same(gradient, "D_input_grad")
    same(gradient.square().sum(dim=(1, 2, 3)), "r1_per_image")

    ws = ws.detach().requires_grad_(True)
    lengths = path_lengths(generator.synthesis(ws, noise), ws, values["pl_noise"] / 32)
    same(lengths, "pl_lengths")


def test_a_generator_without_noise_is_that_with_noise_of_no_strength() -> None:
    torch.manual_seed(0)
    noisy = Generator(size=16, channels=64).eval()
    plain = Generator(size=16, channels=64, noise=False).eval()
    left = plain.load_state_dict(noisy.state_dict(), strict=False)
    assert not left.missing_keys and {name.rsplit(".", 1)[1] for name in left.unexpected_keys} == {
        "noise_strength",
        "noise_const",
    }
    assert plain.latent_dim == plain.z_dim and plain.constant_noise() == []
    latents = torch.randn(3, noisy.latent_dim)
    assert torch.equal(plain(latents[:, : plain.z_dim]), noisy(latents))  # strengths begin at 0
    noisy.convs[2].noise_strength.data.fill_(1.0)
    assert not torch.equal(plain(latents[:, : plain.z_dim]), noisy(latents))


def test_settings_choose_noise_and_mixing_and_the_card_keeps_them(trained: Callable[..., Path]) -> None:
    """On a CPU there is none of either unless it is asked for."""
    for noise, has in ((None, False), (True, True)):
        run = trained("stylegan2", noise=noise)
        card = json.loads((run / "model" / "model.json").read_text())
        assert card["network"]["noise"] is has and Run(run).config["noise"] is has
    assert Run(run).config["mixing"] == 0.0
