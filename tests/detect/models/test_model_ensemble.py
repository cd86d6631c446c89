import math

import pytest
import torch

from crossfake.detect.models import create_model
from crossfake.errors import UserError

MEMBERS = [{"model": "cnn", "temperature": 2.0}, {"model": "meso", "options": {"size": 32}}]


def test_it_is_the_weighted_sum_of_scaled_logits() -> None:
    model = create_model(
        "ensemble", options={"members": MEMBERS, "weights": [0.25, -1.5], "bias": 0.5}
    ).eval()
    images = torch.rand(3, 3, 32, 32)
    first, second = (member(images) for member in model.members)
    torch.testing.assert_close(model(images), 0.25 * first / 2 - 1.5 * second + 0.5)
    features = model.features(images)
    assert features.shape == (3, 2 + 256 + 16)
    torch.testing.assert_close(features[:, :2], torch.stack([first / 2, second], 1))
    torch.testing.assert_close(features[:, 2:258], model.members[0].features(images))


def test_without_weights_it_is_the_mean() -> None:
    model = create_model("ensemble", options={"members": MEMBERS[:1] * 4})
    assert model.options["weights"] == [0.25] * 4


def test_nothing_of_it_is_trained() -> None:
    model = create_model("ensemble", options={"members": MEMBERS}).train()
    assert not any(p.requires_grad for p in model.parameters()) and model.stages() == []
    assert not any(module.training for module in model.members[0].modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs members"),
        ({"members": MEMBERS, "weights": [1.0]}, "cannot have the weights"),
        ({"members": MEMBERS, "weights": [1.0, math.nan]}, "cannot have the weights"),
        ({"members": MEMBERS, "bias": math.inf}, "cannot have the weights"),
        ({"members": [{"model": "cnn", "temperature": 0.0}]}, "temperature must be positive"),
        ({"members": [{"model": "hf-hub:x/y"}]}, "there is no model"),
    ],
)
def test_impossible_ensembles(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("ensemble", options=options)
