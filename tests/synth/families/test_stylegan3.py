import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossfake.synth.families.base import FAMILIES
from crossfake.synth.families.filters import downsampling, lowpass, separable, upsampling
from crossfake.synth.families.stylegan2 import Discriminator
from crossfake.synth.families.stylegan3 import Band, FilteredLeaky, Generator, Layer, bands, width_at
from crossfake.synth.importing.stylegan3 import generator_state
from crossfake.synth.training.adversarial import path_lengths


def _resampled(x: torch.Tensor, taps: torch.Tensor, up: int, down: int, pads: list[int]) -> torch.Tensor:
    """Zeros between samples, padding, a plain convolution, every so manieth sample: one after the other."""
    channels, (height, width) = x.shape[1], x.shape[2:]
    spread = torch.zeros(*x.shape[:2], height * up, width * up, dtype=x.dtype)
    spread[:, :, ::up, ::up] = x
    kernel = (torch.outer(taps, taps) if taps.ndim == 1 else taps) * up**2
    return F.conv2d(F.pad(spread, pads), kernel.expand(channels, 1, -1, -1), groups=channels)[
        :, :, ::down, ::down
    ]


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        (Band(2.0, 6.0, 16, 20), Band(3.4, 4.6, 16, 20), 22),
        (Band(3.4, 4.6, 16, 20), Band(5.7, 10.3, 32, 36), 20),  # four times up
        (Band(16.0, 3.7, 32, 40), Band(16.0, 3.7, 32, 16), 42),  # whose margins are cut off
    ],
)
def test_matrices_equal_plain_convolutions(
    source: Band, target: Band, size: int, radial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = FilteredLeaky(source, target, size, radial, clamp=0.5).double()
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rate = max(source.rate, target.rate) * 2
    up, down = rate // source.rate, rate // target.rate
    rise, fall = torch.tensor(layer.up_filter), torch.tensor(layer.down_filter)
    assert fall.ndim == 1 + radial and abs(fall.sum() - 1) < 1e-12 and abs(rise.sum() - 1) < 1e-12
    total = (target.size - 1) * down + 1 - size * up + len(rise) + len(fall) - 2
    pads = [(total + up) // 2, total - (total + up) // 2] * 2
    expected = _resampled(x, rise, up, 1, pads)
    expected = (F.leaky_relu(expected, 0.2) * 2**0.5).clamp(-0.5, 0.5)
    expected = _resampled(expected, fall, 1, down, [0, 0, 0, 0])
    assert expected.shape[2:] == (target.size, target.size)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
    monkeypatch.setattr("crossfake.synth.families.stylegan3._STRIP", 7)  # a few rows at a time
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
    small = layer(x / 1e3)  # far from the limit, which is not even looked at
    layer.limit = None
    torch.testing.assert_close(small, layer(x / 1e3))


def test_a_radial_filter_is_the_same_in_all_directions_and_a_sum_of_few_separable_ones() -> None:
    taps = lowpass(12, 5.7, 20.6, 64.0, radial=True)
    np.testing.assert_allclose(taps, taps.T)
    np.testing.assert_allclose(taps, taps[::-1])
    spectrum = np.abs(np.fft.fft2(taps, (256, 256)))
    for k in (20, 35, 50):  # along an axis and along the diagonal, at the same frequency
        diagonal = round(k / 2**0.5)
        assert abs(spectrum[k, 0] - spectrum[diagonal, diagonal]) < 0.03
    parts = separable(taps)
    assert len(parts) <= 4
    np.testing.assert_allclose(sum(c * np.outer(v, v) for v, c in parts), taps, atol=1e-8)


def test_filters_pass_a_constant_and_stop_what_the_rate_cannot_carry() -> None:
    taps = lowpass(12, 4.0, 8.0, 32.0)
    rise = upsampling(taps, 2, 20, 11, 10)
    np.testing.assert_allclose(rise[12:-12].sum(axis=1), 1, atol=0.01)
    fall = downsampling(taps, 2, 20, 50)
    np.testing.assert_allclose(fall.sum(axis=1), 1)
    fast = np.cos(np.pi * np.arange(50))
    assert np.abs(fall @ fast).max() < 0.01
    assert lowpass(1, 4.0, 8.0, 32.0).tolist() == [1.0]


@pytest.mark.parametrize("name", ["t", "r", "t_cond"])
def test_the_whole_network_equals_the_published_implementation(name: str, real_weights: Path) -> None:
    """Layer by layer within 1e-4 in float32, truncated, moved and turned, too."""
    file = real_weights.parent / "vectors" / f"stylegan3_{name}_32px.npz"
    if not file.exists():
        pytest.skip("no reference arrays beside the weights")
    arrays = np.load(file)
    values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    facts = json.loads(bytes(arrays["layers_json"]))
    family, arguments, state = generator_state({k[2:]: v for k, v in values.items() if k.startswith("G/")})
    assert family == ("stylegan3-r" if name == "r" else "stylegan3")
    generator = FAMILIES.get(family).generator(**arguments).eval()
    assert isinstance(generator, Generator)
    generator.load_state_dict(state)
    labels = values["c"] if arguments["classes"] else None

    def same(ours: torch.Tensor, theirs: str) -> None:
        torch.testing.assert_close(ours, values[theirs], atol=1e-4, rtol=1e-5)

    ws = generator.styles(values["z"], labels)
    same(ws, "ws")
    same(generator.styles(values["z"], labels, psi=0.7), "ws_psi0.7")
    same(generator.styles(values["z"], labels, psi=0.5, cutoff=4), "ws_psi0.5_cutoff4")
    x = generator.input(ws[:, 0])
    same(x, "x_input")
    for k, (layer, fact) in enumerate(facts.items()):
        x = generator.layers[k](x, ws[:, k + 1])
        same(x, f"x_{layer}")
        if k < len(generator.bands):
            band = generator.bands[k]
            theirs = (fact["out_cutoff"], fact["out_hw"], fact["out_sr"], fact["out_size"][0], fact["crit"])
            assert (band.cutoff, band.half_width, band.rate, band.size, band.critical) == pytest.approx(
                theirs
            )
    same(generator.synthesis(ws), "img")
    same(generator.synthesis(generator.styles(values["z"], labels, psi=0.7)), "img_psi0.7")
    generator.move((0.25, 0.0), 30.0)
    torch.testing.assert_close(generator.input.transform, values["transform"])
    same(generator.synthesis(ws), "img_moved")
    generator.move()
    same(generator.synthesis(ws), "img")


def _tiny(rotation: bool = False) -> Generator:
    torch.manual_seed(0)
    return Generator(
        16, z_dim=4, layers=4, margin=1, layer_widths=[3, 3, 2, 2], rotation=rotation, clamp=None
    )


@pytest.mark.parametrize("rotation", [False, True])
def test_gradients_are_right(rotation: bool) -> None:
    """gradcheck, by w and by the parameters, of the whole synthesis in float64."""
    generator = _tiny(rotation).double().eval()
    torch.nn.init.normal_(generator.input.affine.weight)  # 0 at the start, so that its w would have no effect
    ws = torch.randn(1, generator.num_ws, 4, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def loss(ws: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return (generator.synthesis(ws, dtype=torch.float64) * probe).sum()

    trained = [p for name, p in generator.named_parameters() if "mapping" not in name]
    assert torch.autograd.gradcheck(loss, (ws, *trained), fast_mode=True)


def test_the_loss_reaches_every_parameter_through_the_discriminator() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(16, 64, layers=4), Discriminator(16, 64)
    images = generator(torch.randn(4, generator.latent_dim))
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.float32
    F.softplus(-discriminator(images)).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


def test_path_lengths_can_be_differentiated() -> None:
    generator = _tiny()
    ws = generator.styles(torch.randn(2, 4)).detach().requires_grad_()
    path_lengths(generator.synthesis(ws), ws, torch.randn(2, 3, 16, 16)).sum().backward()
    assert generator.layers[0].weight.grad.isfinite().all()


def test_running_magnitudes_move_in_training_alone() -> None:
    generator = _tiny()
    ws = generator.styles(torch.randn(2, 4))
    layer = generator.layers[1]
    assert isinstance(layer, Layer)
    generator.eval().synthesis(ws)
    generator.track(10_000, lambda tensors: None)
    assert layer.magnitude == 1
    generator.train().synthesis(ws)
    seen = layer.seen
    assert seen is not None
    generator.track(20_000, lambda tensors: None)  # a half-life of images
    torch.testing.assert_close(layer.magnitude, (1 + seen) / 2)
    averaged: list[int] = []
    generator.track(8, lambda tensors: averaged.append(len(tensors)))
    assert averaged == [5]  # all layers at once, over the processes


@pytest.mark.parametrize("rotation", [False, True])
def test_a_move_of_the_input_moves_the_picture(rotation: bool) -> None:
    """A shift by whole pixels of the coarsest rate leaves the inside what it was, elsewhere."""
    torch.manual_seed(0)
    generator = Generator(32, 256, z_dim=8, layers=6, rotation=rotation).eval()
    with torch.no_grad():
        ws = generator.styles(torch.randn(2, 8))
        still = generator.synthesis(ws)
        generator.move((0.25, 0.125))
        moved = generator.synthesis(ws)
    error = (moved[:, :, 8:, 12:] - still[:, :, 4:-4, 4:-8]).square().mean()
    assert error < 0.01 * still.var()


def test_turning_by_a_right_angle_turns_the_picture_of_r() -> None:
    torch.manual_seed(0)
    generator = Generator(32, 256, z_dim=8, layers=6, rotation=True).eval()
    with torch.no_grad():
        ws = generator.styles(torch.randn(2, 8))
        still = generator.synthesis(ws)
        generator.move(rotate=90.0)
        turned = generator.synthesis(ws)
    error = (turned - still.rot90(1, (2, 3))).square().mean()  # counterclockwise
    assert error < 0.01 * still.var()


def test_bf16_stays_close_to_fp32() -> None:
    torch.manual_seed(0)
    generator = Generator(32, 512, layers=6).eval()
    with torch.no_grad():
        ws = generator.styles(torch.randn(4, generator.z_dim))
        exact, fast = generator.synthesis(ws), generator.synthesis(ws, dtype=torch.bfloat16)
    assert (exact - fast).abs().mean() < 0.03 * exact.abs().mean()


def test_layers_of_the_published_networks() -> None:
    """Sizes and widths as the names of the layers in the files for 1024 pixels say."""
    found = bands(1024, 14, 2, 10)
    sizes = [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024]
    assert [band.size for band in found] == sizes
    widths = [512] * 7 + [323, 203, 128, 81, 51, 32, 32]
    assert [width_at(band, 32768) for band in found] == widths
    assert [band.critical for band in found[-3:]] == [False, True, True]
