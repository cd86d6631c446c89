import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossfake.synth.families.layers import fir
from crossfake.synth.families.stylegan2 import Discriminator, Generator, StyledConv, channels_at
from crossfake.synth.training import r1_penalty


@pytest.mark.parametrize("up", [False, True])
def test_modulating_activations_equals_modulating_weights(up: bool) -> None:
    """Karras et al. 2020a, eq. 1 and 3: one weight per image, in a grouped convolution."""
    torch.manual_seed(0)
    layer = StyledConv(6, 4, w_dim=5, up=up)
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
    images = generator(torch.randn(4, generator.randoms))
    assert images.shape == (4, 3, size, size) and images.dtype == torch.float32
    F.softplus(-discriminator(images)).mean().backward()
    missing = [
        name for name, p in generator.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not missing


def test_truncation_pulls_towards_the_mean_w() -> None:
    generator = Generator(16, 64).eval()
    generator.mapping.w_avg.normal_()
    randoms = torch.randn(4, generator.randoms)
    randoms[:, generator.z_dim :] = 0
    means = generator(randoms, psi=0.0)
    torch.testing.assert_close(means[0], means[1])
    assert generator(randoms, psi=0.5).var(0).mean() < generator(randoms, psi=1.0).var(0).mean()


def test_style_mixing_uses_two_styles_from_the_generator_given() -> None:
    generator = Generator(16, 64).eval()
    randoms = torch.randn(16, generator.randoms)
    runs = [
        generator.train_forward(randoms, 0.9, torch.float32, torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert not torch.equal(runs[0], runs[2])
    plain = generator.train_forward(randoms, 0.0, torch.float32, torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain, generator(randoms))
    changed = (runs[0] - plain).abs().flatten(1).amax(1) > 1e-3
    assert 8 <= changed.sum() <= 16


def test_bf16_stays_close_to_fp32() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(32, 256), Discriminator(32, 256)
    randoms = torch.randn(8, generator.randoms)
    exact, fast = generator(randoms), generator(randoms, dtype=torch.bfloat16)
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
    torch.testing.assert_close(r1_penalty(Net(), images), torch.stack(norms).mean())


def test_r1_can_be_differentiated_through_the_discriminator() -> None:
    discriminator = Discriminator(16, 64)
    r1_penalty(discriminator, torch.randn(4, 3, 16, 16)).backward()
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)
    assert discriminator.from_rgb.weight.grad.abs().sum() > 0


def test_width_halves_with_resolution() -> None:
    assert [channels_at(r, 2048) for r in (4, 8, 16, 32, 64)] == [128, 128, 128, 64, 32]
    assert [channels_at(r, 16384) for r in (4, 64, 256)] == [512, 256, 64]


def _reference() -> Path:
    """The reference arrays lie beside the development weights; not every machine has them."""
    folder = Path(os.environ.get("CROSSFAKE_WEIGHTS", "")).parent / "vectors"
    file = folder / "stylegan2_uncond_32px.npz"
    if "CROSSFAKE_WEIGHTS" not in os.environ or not file.exists():
        pytest.skip("no reference arrays here")
    return file


def test_output_equals_the_published_implementation() -> None:
    """Same parameters, w and constant noise as a network of the reference: every pixel within 1e-4."""
    arrays = np.load(_reference())
    values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    generator = Generator(32, 512, z_dim=32).eval()
    generator.mapping.layers = generator.mapping.layers[:4]
    state = {"const": values["G/synthesis.b4.const"][None]}
    state["mapping.w_avg"] = values["G/mapping.w_avg"]
    for k in range(4):
        state |= {f"mapping.layers.{k}.{p}": values[f"G/mapping.fc{k}.{p}"] for p in ("weight", "bias")}
    noise = []
    for k, resolution in enumerate([4, 8, 16, 32]):
        block = f"G/synthesis.b{resolution}"
        for ours, theirs in ([("ups", "conv0")] if k else []) + [("convs", "conv1"), ("to_rgb", "torgb")]:
            at = f"{ours}.{k - 1 if ours == 'ups' else k}"
            names = ["weight", "bias", "affine.weight", "affine.bias"] + (
                ["noise_strength"] if ours != "to_rgb" else []
            )
            state |= {f"{at}.{name}": values[f"{block}.{theirs}.{name}"] for name in names}
            if ours != "to_rgb":
                noise.append(values[f"{block}.{theirs}.noise_const"][None, None])
    generator.load_state_dict(state)
    ws = generator.mapping(values["z"]).unsqueeze(1).expand(-1, generator.num_ws, -1)
    torch.testing.assert_close(ws, values["ws"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(generator.synthesis(ws, noise), values["img_const_noise"], atol=1e-4, rtol=0)
