import numpy as np
import pytest
import torch
from scipy.fft import dctn

from crossfake.detect.models import create_model
from crossfake.detect.models.frequency import dct_matrix


@pytest.mark.parametrize("size", [16, 33])
def test_the_spectrum_is_scipys(size: int) -> None:
    images = torch.rand(2, 3, size, size)
    expected = np.log(np.abs(dctn(images.double().numpy() - 0.5, axes=(2, 3), norm="ortho")) + 1e-3)
    spectrum = create_model("frequency", options={"size": size}).spectrum(images)
    assert spectrum.dtype == torch.float32
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=1e-3)  # where a coefficient is almost 0
    assert np.median(np.abs(spectrum.numpy() - expected)) < 1e-5


def test_the_matrix_is_orthonormal() -> None:
    matrix = dct_matrix(64)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64), atol=1e-5, rtol=0)


def test_autocast_does_not_blur_the_spectrum() -> None:
    model, images = create_model("frequency", options={"size": 32}), torch.rand(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        blurred = model.spectrum(images)
    assert torch.equal(blurred, model.spectrum(images))


def test_it_is_standardised_by_the_average_over_all_batches() -> None:
    model = create_model("frequency", options={"size": 16}).train()
    batches = [torch.rand(8, 3, 16, 16) for _ in range(5)]
    for batch in batches:
        model(batch)
    spectra = torch.stack([model.spectrum(batch).flatten(1) for batch in batches])
    torch.testing.assert_close(model.standardise.running_mean, spectra.mean((0, 1)))
    torch.testing.assert_close(model.standardise.running_var, spectra.var(1).mean(0))
    features = model.eval().features(torch.cat(batches))
    assert features.mean(0).abs().max() < 1e-4 and (features.std(0) - 1).abs().max() < 0.5
    assert not list(model.standardise.parameters())


def test_the_linear_model_is_linear_and_the_cnn_is_not() -> None:
    for head, width in (("linear", 3 * 20 * 20), ("cnn", 64 * 3 * 3)):
        model = create_model("frequency", options={"size": 20, "head": head})
        assert model.head.in_features == width
        assert len(model.stages()) == (1 if head == "linear" else 4)
