"""How images get to a network's size, and the networks of timm."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from crossfake.errors import UserError
from crossfake.synth.quality.features import InceptionFeatures, TimmFeatures, resized

CPU = torch.device("cpu")


def _photo(height: int, width: int) -> torch.Tensor:
    smooth = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 255).byte()


@pytest.mark.parametrize("shape", [(64, 64), (40, 72), (400, 400)])
def test_tf_is_torch_fidelitys(shape: tuple[int, int]) -> None:
    photo = _photo(*shape)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(photo.float(), size=(299, 299), align_corners=False)
    torch.testing.assert_close(resized(photo, 299, "tf"), theirs, atol=1e-2, rtol=0)


@pytest.mark.parametrize("side", [64, 400])
def test_clean_is_pils_bicubic(side: int) -> None:
    photo = _photo(side, side)
    planes = [Image.fromarray(plane.numpy().astype(np.float32)) for plane in photo[0]]
    theirs = np.stack([np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)) for plane in planes])
    np.testing.assert_allclose(resized(photo, 299, "clean")[0], theirs.clip(0, 255), atol=0.02)


def test_the_ways_differ_and_an_unknown_one_is_refused(random_inception: Path) -> None:
    found = [
        InceptionFeatures(random_inception, 64, CPU, "fp32", way)(_photo(64, 64))
        for way in ("torch", "tf", "clean")
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-4 < np.abs(found[0] - found[2]).max()
    with pytest.raises(UserError, match=r"no resize 'nearest'.*torch, tf, clean"):
        resized(_photo(8, 8), 16, "nearest")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "resnet10t.pth"
    torch.save(
        timm.create_model("resnet10t", num_classes=1000).state_dict(), file
    )  # with a head, as published
    return file


def test_timm_features_are_the_models_own(resnet: Path) -> None:
    features = TimmFeatures("resnet10t", resnet, CPU, "fp32")
    model = timm.create_model("resnet10t", num_classes=0, checkpoint_path="").eval()
    weights = torch.load(resnet, weights_only=True)
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")})
    photo = _photo(64, 64)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    side = model.pretrained_cfg["input_size"][-1]
    with torch.inference_mode():
        theirs = model((resized(photo, side, "clean") / 255 - mean) / std).numpy()
    found = features(photo)
    assert found.shape == (1, features.dims) and found.dtype == np.float32
    np.testing.assert_allclose(found, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_wrong_models_and_files_are_named(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="timm knows no model 'dinosaur'"):
        TimmFeatures("dinosaur", resnet, CPU)
    with pytest.raises(UserError, match=r"resnet10t\.pth is not the resnet18 of timm: it lacks"):
        TimmFeatures("resnet18", resnet, CPU)
    (tmp_path / "x.pth").write_text("no")
    with pytest.raises(UserError, match=r"x\.pth holds no weights"):
        TimmFeatures("resnet10t", tmp_path / "x.pth", CPU)
