import torch

from crossfake.detect.models import create_model


def test_the_papers_parameter_count() -> None:
    assert sum(p.numel() for p in create_model("meso").parameters()) == 28_615


def test_the_last_map_is_the_papers() -> None:
    model = create_model("meso").eval()
    assert model.network(torch.rand(1, 3, 256, 256)).shape == (1, 16, 8, 8)
    assert model.features(torch.rand(1, 3, 256, 256)).shape == (1, 16)
