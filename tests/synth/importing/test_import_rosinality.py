"""rosinality's files: computed after their own conventions here, and imported, the images agree."""

import argparse
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.errors import UserError
from crossfake.synth.families.stylegan2 import Discriminator
from crossfake.synth.importing.importer import import_model
from crossfake.synth.importing.rosinality import discriminator_state
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import ImportSettings

WIDTHS, W, ROOT2 = (8, 8, 6), 12, math.sqrt(2)  # at 4×4, 8×8, 16×16


def _draw(seed: int) -> Any:
    rng = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=rng)


def _generator() -> dict[str, Tensor]:
    draw = _draw(0)
    state: dict[str, Tensor] = {"input.input": draw(1, WIDTHS[0], 4, 4)}
    for layer in (1, 2, 3):
        state |= {f"style.{layer}.weight": draw(W, W) * 100, f"style.{layer}.bias": draw(W)}

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        state[f"{name}.conv.weight"] = draw(1, outputs, inputs, kernel, kernel)
        state[f"{name}.conv.modulation.weight"] = draw(inputs, W)
        state[f"{name}.conv.modulation.bias"] = 1 + 0.1 * draw(inputs)
        if kernel == 3:
            state[f"{name}.noise.weight"], state[f"{name}.activate.bias"] = draw(1), draw(outputs)
        else:
            state[f"{name}.bias"] = draw(1, 3, 1, 1)

    conv("conv1", WIDTHS[0], WIDTHS[0], 3)
    conv("to_rgb1", WIDTHS[0], 3, 1)
    state["noises.noise_0"] = draw(1, 1, 4, 4)
    for k, (inputs, outputs) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False)):
        conv(f"convs.{2 * k}", inputs, outputs, 3)
        state[f"convs.{2 * k}.conv.blur.kernel"] = torch.ones(4, 4)
        conv(f"convs.{2 * k + 1}", outputs, outputs, 3)
        conv(f"to_rgbs.{k}", outputs, 3, 1)
        state[f"to_rgbs.{k}.upsample.kernel"] = torch.ones(4, 4)
        for noise in (2 * k + 1, 2 * k + 2):
            state[f"noises.noise_{noise}"] = draw(1, 1, 8 * 2**k, 8 * 2**k)
    return state


def _filtered(x: Tensor, gain: float) -> Tensor:
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return F.conv2d(x, (torch.outer(row, row) / 64 * gain).expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def _images(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """Scaled weights, modulated and demodulated image by image; fixed noise."""
    w = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for layer in (1, 2, 3):
        scale = 0.01 / math.sqrt(W)
        w = F.linear(w, state[f"style.{layer}.weight"] * scale) + state[f"style.{layer}.bias"] * 0.01
        w = F.leaky_relu(w, 0.2) * ROOT2

    def modulated(name: str, x: Tensor, up: bool, demodulate: bool) -> Tensor:
        affine = state[f"{name}.conv.modulation.weight"] / math.sqrt(W)
        style = F.linear(w, affine, state[f"{name}.conv.modulation.bias"])
        weight = state[f"{name}.conv.weight"]
        results = []
        for image, s in zip(x, style, strict=True):
            kernel = weight[0] / math.sqrt(weight[0, 0].numel()) * s[None, :, None, None]
            if demodulate:
                kernel = kernel * (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
            if up:
                wide = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
                results.append(_filtered(F.pad(wide, (1, 1, 1, 1)), 4))
            else:
                results.append(F.conv2d(image[None], kernel, padding=kernel.shape[2] // 2))
        return torch.cat(results)

    def layer(name: str, x: Tensor, noise: int, up: bool = False) -> Tensor:
        x = modulated(name, x, up, True) + state[f"{name}.noise.weight"] * state[f"noises.noise_{noise}"]
        return F.leaky_relu(x + state[f"{name}.activate.bias"][:, None, None], 0.2) * ROOT2

    x = layer("conv1", state["input.input"].repeat(len(z), 1, 1, 1), 0)
    image = modulated("to_rgb1", x, False, False) + state["to_rgb1.bias"]
    for k in range(len(WIDTHS) - 1):
        x = layer(f"convs.{2 * k}", x, 2 * k + 1, up=True)
        x = layer(f"convs.{2 * k + 1}", x, 2 * k + 2)
        wide = torch.zeros(len(z), 3, 2 * image.shape[2], 2 * image.shape[2])
        wide[:, :, ::2, ::2] = image
        image = _filtered(F.pad(wide, (2, 1, 2, 1)), 4)
        image = image + modulated(f"to_rgbs.{k}", x, False, False) + state[f"to_rgbs.{k}.bias"]
    return image


@pytest.mark.parametrize("old_format", [False, True])
def test_images_of_an_imported_file_are_those_of_its_own_conventions(
    old_format: bool, tmp_path: Path
) -> None:
    state, mean = _generator(), torch.randn(W, generator=torch.Generator().manual_seed(5))
    torch.save(
        {"g_ema": state, "latent_avg": mean},
        tmp_path / "n.pt",
        _use_new_zipfile_serialization=not old_format,
    )
    model = load_model(
        import_model(ImportSettings(tmp_path / "n.pt", tmp_path / "m", name="ffhq-r")), precision="fp32"
    )
    network: Any = model.network
    z = torch.randn(3, W, generator=torch.Generator().manual_seed(1))
    images = network.synthesis(network.styles(z), network.constant_noise())
    torch.testing.assert_close(images, _images(state, z), atol=1e-4, rtol=1e-4)
    assert torch.equal(network.mapping.w_avg, mean) and model.name == "ffhq-r"


def test_a_trained_file_has_a_command_line_and_no_mean(tmp_path: Path) -> None:
    held = {"g_ema": _generator(), "g": {}, "args": argparse.Namespace(size=16), "d_optim": {"state": {}}}
    torch.save(held, tmp_path / "n.pt")
    network: Any = load_model(import_model(ImportSettings(tmp_path / "n.pt", tmp_path / "m"))).network
    z = torch.randn(5000, W, generator=torch.Generator().manual_seed(9))
    difference = (network.mapping(z).mean(dim=0) - network.mapping.w_avg).abs().max()
    assert difference < 0.1 * network.mapping(z).std()


def test_the_discriminator_is_taken_along(tmp_path: Path) -> None:
    """Three resolutions: every array of ours is filled, with the values where their names say."""
    draw = _draw(3)
    theirs = {"convs.0.0.weight": draw(6, 3, 1, 1), "convs.0.1.bias": draw(6)}
    for block, (inputs, outputs) in enumerate(((6, 8), (8, 8)), 1):
        theirs |= {
            f"convs.{block}.conv1.0.weight": draw(inputs, inputs, 3, 3),
            f"convs.{block}.conv1.1.bias": draw(inputs),
            f"convs.{block}.conv2.0.kernel": torch.ones(4, 4),
            f"convs.{block}.conv2.2.bias": draw(outputs),
            f"convs.{block}.conv2.1.weight": draw(outputs, inputs, 3, 3),
            f"convs.{block}.skip.0.kernel": torch.ones(4, 4),
            f"convs.{block}.skip.1.weight": draw(outputs, inputs, 1, 1),
        }
    theirs |= {"final_conv.0.weight": draw(8, 9, 3, 3), "final_conv.1.bias": draw(8)}
    theirs |= {"final_linear.0.weight": draw(8, 128), "final_linear.0.bias": draw(8)}
    theirs |= {"final_linear.1.weight": draw(1, 8), "final_linear.1.bias": draw(1)}
    Discriminator(16, widths=WIDTHS).load_state_dict(discriminator_state(theirs))
    torch.save({"g_ema": _generator(), "d": theirs}, tmp_path / "n.pt")
    import_model(ImportSettings(tmp_path / "n.pt", tmp_path / "m"))
    assert (tmp_path / "m" / "discriminator.safetensors").exists()


class _Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("run-by-the-import"),)


def test_files_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        ({"g_ema": _Evil()}, "asks for __builtin__.getattr"),
        ({"generator": {}}, "holds no g_ema"),
        ({"g_ema": {"a": torch.zeros(1)}}, "a is not part of a StyleGAN2 generator"),
        (
            {"g_ema": {"input.input": torch.zeros(1).expand(1 << 40)}},
            "in a storage of 1",
        ),
        ({"g_ema": {"style.1.weight": 3}}, "is no array"),
        ({"g_ema": {key: v for key, v in _generator().items() if not key.startswith("style")}}, "lacks"),
        (
            {"g_ema": {**_generator(), "to_rgb1.conv.weight": torch.zeros(1, 1, 8, 1, 1)}},
            "no StyleGAN of colour images",
        ),
    ]
    for number, (content, message) in enumerate(cases):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(UserError, match=message) as raised:
            import_model(ImportSettings(tmp_path / f"{number}.pt", tmp_path / "m"))
        assert "\n" not in str(raised.value)
    assert not Path("run-by-the-import").exists() and not (tmp_path / "m").exists()
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(1))
    for name in ("z.pt", "gone.pt"):
        with pytest.raises(UserError):
            import_model(ImportSettings(tmp_path / name, tmp_path / "m"))
