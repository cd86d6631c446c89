from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from crossfake.detect.models import create_model
from crossfake.errors import UserError


def test_its_features_are_torchvisions(tmp_path: Path) -> None:
    theirs = squeezenet1_1().eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = create_model("squeezenet", weights=tmp_path / "w.pth").eval()
    images = torch.rand(2, 3, 64, 64)
    expected = theirs.features((images - model.normalise.mean) / model.normalise.std).mean((2, 3))
    torch.testing.assert_close(model.features(images), expected)


def test_the_smallest_image() -> None:
    model = create_model("squeezenet").eval()
    assert model(torch.rand(1, 3, 17, 17)).isfinite().all()
    with pytest.raises(UserError, match="squeezenet cannot take images of 16×16"):
        model(torch.rand(1, 3, 16, 16))


def test_published_weights(real_weights: Path) -> None:
    file = real_weights / "squeezenet1_1-caffe-imagenet.pth"
    model = create_model("squeezenet", weights=file).eval()
    first = torch.load(file, weights_only=True)["features.0.weight"]
    torch.testing.assert_close(model.network.features[0].weight, first.float())
    features = model.features(torch.rand(2, 3, 96, 96))
    assert features.isfinite().all() and features.std() > 0.01
