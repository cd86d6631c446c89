import torch

from crossfake.detect.models import create_model
from crossfake.detect.models.noise import ConstrainedConv, srm_kernels


def test_the_kernels_are_thirty_different_residuals() -> None:
    kernels = srm_kernels()
    assert kernels.shape == (30, 1, 5, 5)
    assert len({tuple(kernel.flatten().tolist()) for kernel in kernels}) == 30
    torch.testing.assert_close(kernels.sum((1, 2, 3)), torch.zeros(30), atol=1e-6, rtol=0)
    assert (kernels[:, 0, 2, 2] == -1).all()


def test_the_orders_of_difference_vanish_on_polynomials() -> None:
    place = torch.arange(16.0)
    ramp = (0.7 * place[:, None] + 0.3 * place)[None, None]
    bowl = (place[:, None] ** 2 + place**2 + place[:, None] * place)[None, None] / 16
    kernels = srm_kernels()
    slope, curve = (
        torch.nn.functional.conv2d(image, kernels)[0].abs().amax((1, 2)) for image in (ramp, bowl)
    )
    assert (slope[:8] > 0.1).all() and (
        slope[8:20] < 1e-4
    ).all()  # first order sees a ramp, higher ones do not
    assert (curve[8:12] > 0.01).all() and (curve[12:20] < 1e-3).all()


def test_the_constrained_kernels_predict_the_centre_from_its_neighbours() -> None:
    layer = ConstrainedConv(3, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    kernels = layer.kernels().detach()
    assert (kernels[..., 2, 2] == -1).all()
    torch.testing.assert_close(kernels.sum((2, 3)), torch.zeros(6, 3), atol=1e-5, rtol=0)
    flat = layer(torch.full((1, 3, 9, 9), 0.5))[..., 2:-2, 2:-2]
    assert flat.abs().max() < 1e-5


def test_the_projection_is_the_nearest_kernel_that_obeys() -> None:
    layer = ConstrainedConv(1, 1)
    raw, kernel = layer.weight.detach()[0, 0], layer.kernels().detach()[0, 0]
    moved = (kernel - raw).flatten()
    others = torch.cat([moved[:12], moved[13:]])
    torch.testing.assert_close(others, others.mean().expand(24))


def test_residuals_are_truncated_and_in_steps_of_brightness() -> None:
    model = create_model("noise")
    image = torch.full((1, 3, 16, 16), 100 / 255)
    image[..., 8, 8] += 1 / 255
    residuals = model.residuals(image)[0, :30, 2:-2, 2:-2]
    torch.testing.assert_close(residuals.flatten(1).amin(1), torch.full((30,), -1.0), atol=1e-3, rtol=0)
    assert model.residuals(torch.rand(2, 3, 16, 16))[:, :30].abs().max() == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.residuals(image)[0, :30, 2:-2, 2:-2], residuals)
