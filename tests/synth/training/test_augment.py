import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.distributed import Ranks
from crossfake.synth.training.augment import GROUPS, Adaptive, band_filters, diff_augment, warp
from crossfake.synth.training.learner import (
    Draws,
)


def _draws(seed: int = 0) -> Draws:
    device = torch.device("cpu")
    return Draws(seed, Ranks(device, 16), device)


def _smooth(count: int, size: int, seed: int = 0) -> Tensor:
    """Random pictures without anything near the Nyquist frequency."""
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1)


def _affine(linear: list[list[float]], shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    (a, b), (c, d) = linear
    return torch.tensor([[[a, b, shift[0]], [c, d, shift[1]], [0.0, 0.0, 1.0]]])


@pytest.mark.parametrize("size", [16, 32, 33])
def test_warps_that_hit_pixels_move_them_exactly(size: int) -> None:
    images = _smooth(1, 32)[..., :size, :size].contiguous()
    inner = slice(4, -4)
    for matrix, expected in (
        (_affine([[-1, 0], [0, 1]]), images.flip(3)),
        (_affine([[0, -1], [1, 0]]), images.rot90(1, (2, 3))),
        (_affine([[1, 0], [0, 1]], (3, -2)), images.roll((2, -3), (2, 3))),
    ):
        moved = warp(images, matrix)
        assert (moved - expected)[..., inner, inner].abs().max() < 0.08  # the filter's own ripple
    assert torch.equal(warp(images, _affine([[1, 0], [0, 1]])), images)


def test_outside_the_picture_it_is_mirrored() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32).contiguous()
    moved = warp(ramp, _affine([[1, 0], [0, 1]], (8, 0)))
    torch.testing.assert_close(moved[0, 0, 16, 24:30], ramp[0, 0, 16].flip(0)[:6], atol=0.1, rtol=0)


def test_a_warp_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    matrix = torch.cat([_affine([[0.8, -0.3], [0.3, 0.8]], (0.7, 1.1)), _affine([[-1, 0], [0, 1]])]).double()
    assert torch.autograd.gradcheck(lambda x: warp(x, matrix), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: warp(x, matrix).square(), images, fast_mode=True)


def test_bands_sum_to_the_identity_and_lie_an_octave_apart() -> None:
    bands = band_filters()
    whole = bands.sum(dim=0)
    torch.testing.assert_close(whole, F.one_hot(torch.tensor(21), 43).float(), atol=1e-6, rtol=0)
    response = torch.fft.rfft(bands.double(), 1024).abs()
    middle = [(response[k] * torch.arange(513)).sum() / response[k].sum() / 512 for k in range(4)]
    assert middle[0] < 0.125 < middle[1] < 0.25 < middle[2] < 0.5 < middle[3]


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_changes_a_share_p_of_the_images_only(group: str) -> None:
    images = _smooth(64, 32)
    adaptive = Adaptive((group,), p=0.0)
    assert adaptive(images, _draws()) is images
    adaptive.p = 0.1
    changed = (adaptive(images, _draws()) - images).abs().flatten(1).amax(dim=1) > 1e-3
    at_most = {"geometry": 5, "colour": 5, "blit": 3, "filter": 4}.get(group, 1)
    assert 1 <= changed.sum() < 64 * (1 - 0.9**at_most) + 4 * math.sqrt(64 * 0.25)
    adaptive.p = 0.8
    again = adaptive(images, _draws())
    assert again.isfinite().all() and again.shape == images.shape
    torch.testing.assert_close(again, adaptive(images, _draws()), rtol=0, atol=0)  # from the draws alone


def test_colours_of_grey_pictures_stay_grey_under_hue_and_saturation() -> None:
    grey = _smooth(16, 16)[:, :1].expand(-1, 3, -1, -1).contiguous()
    found = Adaptive(("colour",), p=0.8)(grey, _draws())
    assert (found - found.mean(dim=1, keepdim=True)).abs().max() < 1e-5
    assert (found - grey).abs().max() > 0.1  # brightness and contrast did something


def test_p_follows_the_discriminator_and_stays_in_bounds() -> None:
    adaptive = Adaptive()
    for _ in range(10):
        adaptive.adapt(0.9, 16)
    assert adaptive.p == pytest.approx(10 * 16 / 500_000)
    adaptive.adapt(0.3, 16)
    assert adaptive.p == pytest.approx(9 * 16 / 500_000)
    adaptive.adapt(float("nan"), 16)
    assert adaptive.p == pytest.approx(9 * 16 / 500_000)
    for _ in range(100):
        adaptive.adapt(-1.0, 1000)
    assert adaptive.p == 0
    for _ in range(1000):
        adaptive.adapt(1.0, 1000)
    assert adaptive.p == 0.8
    restored = Adaptive()
    restored.restore(adaptive.state())
    assert restored.p == 0.8


def test_diff_augment_moves_colours_and_pixels_a_little() -> None:
    images = _smooth(32, 32).requires_grad_(True)
    found = diff_augment(images, _draws())
    assert (
        found.shape == images.shape and (found == 0).flatten(1).float().mean(dim=1).min() > 0.05
    )  # the cutout
    (gradient,) = torch.autograd.grad(found.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()


def test_augmentations_do_not_leak_into_what_is_learned() -> None:
    """Karras et al. 2020b, sec. 2.2: the generator learns the unaugmented distribution, though the discriminator sees
    augmented images only. A one-pixel world: reals are red of value 0.5 ± 0.1, and half are turned to other hues."""
    torch.manual_seed(0)
    red = torch.tensor([0.5, -0.5, -0.5])
    generator = torch.nn.Linear(8, 3)
    discriminator = torch.nn.Sequential(
        torch.nn.Linear(3, 64),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(64, 64),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(64, 1),
    )
    step_g = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.0, 0.9))
    step_d = torch.optim.Adam(discriminator.parameters(), 2e-3, betas=(0.0, 0.9))
    adaptive, draws = Adaptive(("colour",), p=0.5), _draws()

    def seen(colours: Tensor) -> Tensor:
        return adaptive(colours[:, :, None, None].expand(-1, -1, 2, 2).contiguous(), draws)[:, :, 0, 0]

    means = []
    for step in range(700):
        real = red + 0.1 * torch.randn(64, 3)
        fake = generator(torch.randn(64, 8))
        seen_real = seen(real).requires_grad_(True)
        logits = discriminator(seen_real)
        (slope,) = torch.autograd.grad(logits.sum(), seen_real, create_graph=True)
        loss = F.softplus(-logits).mean() + F.softplus(discriminator(seen(fake.detach()))).mean()
        step_d.zero_grad()
        (loss + 0.05 * slope.square().sum(dim=1).mean()).backward()
        step_d.step()
        step_g.zero_grad()
        F.softplus(-discriminator(seen(fake))).mean().backward()
        step_g.step()
        if step >= 450:
            means.append(fake.detach().mean(dim=0))
    learned = torch.stack(means).mean(dim=0)
    assert (learned - red).abs().max() < 0.15, learned
