import pytest
import torch
import torch.nn.functional as F

from crossfake.detect.models import create_model
from crossfake.detect.models.npr import neighbour_residual


@pytest.mark.parametrize("shape", [(8, 8), (9, 8), (7, 11)])
def test_the_residual_is_the_definition(shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *shape)
    expected = images.clone()
    for y in range(shape[0]):
        for x in range(shape[1]):
            expected[..., y, x] = images[..., y, x] - images[..., y - y % 2, x - x % 2]
    torch.testing.assert_close(neighbour_residual(images), expected)


def test_the_residual_is_the_authors() -> None:
    images = torch.rand(2, 3, 16, 16)
    down = F.interpolate(images, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    up = F.interpolate(down, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    torch.testing.assert_close(neighbour_residual(images), images - up)


def test_nearest_upsampling_leaves_nothing() -> None:
    small = torch.rand(2, 3, 8, 8)
    assert neighbour_residual(F.interpolate(small, scale_factor=2.0)).abs().max() == 0


def test_the_papers_parameter_count() -> None:
    assert round(sum(p.numel() for p in create_model("npr").parameters()) / 1e6, 2) == 1.44


def test_the_stages_are_resnet50s() -> None:
    from torchvision.models import resnet50

    theirs, model = resnet50(), create_model("npr")
    for own, layer in ((model.network[2], theirs.layer1), (model.network[3], theirs.layer2)):
        # the short cut of a first block is the last thing in torchvision's, and here too
        shapes = [p.shape for p in layer.parameters()]
        assert [p.shape for p in own.parameters()] == shapes
        own.load_state_dict(dict(zip(own.state_dict(), layer.state_dict().values(), strict=True)))
        own.eval(), layer.eval()
        maps = torch.rand(1, shapes[0][1], 8, 8)
        torch.testing.assert_close(own(maps), layer(maps))
