import warnings
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from crossfake.errors import UserError
from crossfake.synth.quality.lpips_diversity import Lpips, lpips_diversity

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    return file


def _images(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_equals_the_package_with_the_same_trunk(trunk: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    weights = torch.load(trunk, weights_only=True)
    own = reference.net.state_dict()
    reference.net.load_state_dict({key: weights["features." + key.split(".", 1)[1]] for key in own})
    a, b = _images(3, 64, 1), _images(3, 64, 2)
    with torch.inference_mode():
        expected = reference(2 * (a / 255) - 1, 2 * (b / 255) - 1).flatten()
    torch.testing.assert_close(Lpips("squeeze", trunk, CPU)(a, b), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [16, 32, 64, 100])
def test_any_size_works_and_equal_images_are_at_zero(trunk: Path, size: int) -> None:
    images = _images(2, size)
    distances = Lpips("squeeze", trunk, CPU)(images, images.flip(0))
    assert distances.shape == (2,) and (distances > 0).all()
    assert (Lpips("squeeze", trunk, CPU)(images, images) == 0).all()


def test_diversity_is_the_mean_of_disjoint_pairs() -> None:
    batches = [torch.arange(6)[:, None], torch.tensor([[10], [13], [99]])]
    estimate, pairs = lpips_diversity(lambda a, b: (b - a).flatten().float(), batches)
    assert pairs == 4  # 99 has no partner
    assert estimate.value == np.mean([1, 1, 1, 3])
    assert estimate.standard_error == pytest.approx(np.std([1, 1, 1, 3], ddof=1) / 2)


def test_one_pair_has_no_error() -> None:
    estimate, pairs = lpips_diversity(lambda a, b: (b - a).flatten().float(), [torch.tensor([[1], [3]])])
    assert (estimate.value, estimate.standard_error, pairs) == (2.0, None, 1)


def test_a_wrong_trunk_is_named(trunk: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"squeezenet\.pth does not hold the network of LPIPS alex"):
        Lpips("alex", trunk, CPU)
    (tmp_path / "text.pth").write_text("no")
    with pytest.raises(UserError, match=r"text\.pth"):
        Lpips("squeeze", tmp_path / "text.pth", CPU)


def test_the_real_squeezenet_tells_near_from_far(real_weights: Path) -> None:
    file = real_weights / "squeezenet1_1-caffe-imagenet.pth"
    if not file.exists():
        pytest.skip(f"needs {file.name}")
    distance = Lpips("squeeze", file, CPU)
    photo = torch.nn.functional.interpolate(_images(1, 8).float(), 64, mode="bilinear").to(torch.uint8)
    noisy = (photo.float() + 5).clamp(0, 255).to(torch.uint8)
    assert distance(photo, noisy) < 0.5 * distance(photo, _images(1, 64, 9))
