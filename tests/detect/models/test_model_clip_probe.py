import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from crossfake.detect.models import create_model
from crossfake.detect.models.base import Model
from crossfake.errors import UserError


def _probe(**options: object) -> Model:
    torch.manual_seed(0)
    return create_model("clip_probe", options={"tower": "test_vit", "tower_size": 32, **options})


def test_the_tower_is_frozen() -> None:
    model = _probe()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    model.train()
    assert model.training and not any(module.training for module in model.tower.modules())


def test_layernorm_tuning_trains_nothing_else_of_the_tower() -> None:
    model = _probe(tune="layernorm")
    trained = {name for name, p in model.tower.named_parameters() if p.requires_grad}
    assert trained and all("norm" in name for name in trained)
    assert trained == {name for name, _ in model.tower.named_parameters() if "norm" in name}
    assert len(model.stages()) == 7  # six blocks, the last with the final norm, and the head
    with pytest.raises(UserError, match="no layer normalisation"):
        _probe(tower="resnet10t", tune="layernorm")
    with pytest.raises(UserError, match="nothing to tune"):
        _probe(head="nearest", tune="layernorm")


def test_images_are_resized_as_pillow_does() -> None:
    model = _probe(tower_size=48)
    seen: list[torch.Tensor] = []
    model.normalise.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    image = (torch.rand(1, 3, 96, 96) * 255).byte()
    model(image / 255)
    own = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BICUBIC)
    expected = torch.tensor(list(own.tobytes())).view(48, 48, 3).permute(2, 0, 1) / 255
    assert (seen[0][0] - expected).abs().max() < 1.6 / 255


def test_the_nearest_head_is_the_nearest_neighbour() -> None:
    model = _probe(head="nearest").eval()
    bank, labels = torch.randn(9, 64), torch.tensor([0, 1, 1, 0, 1, 0, 1, 1, 0])
    model.fit_bank(bank, labels)
    query = F.normalize(torch.randn(5, 64), dim=1)
    cosines = F.cosine_similarity(query[:, None], bank[None], dim=2)
    expected = 100 * (cosines[:, labels == 1].amax(1) - cosines[:, labels == 0].amax(1))
    torch.testing.assert_close(model.head(query)[:, 0], expected, atol=1e-4, rtol=1e-4)
    assert model.options["bank"] == [4, 5]
    features = model.features(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


def test_a_training_image_is_called_what_it_was() -> None:
    model, images = _probe(head="nearest").eval(), torch.rand(6, 3, 32, 32)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    model.fit_bank(model.features(images), labels)
    assert ((model(images) > 0) == labels.bool()).all()


def test_a_bank_needs_both_classes() -> None:
    model = _probe(head="nearest")
    with pytest.raises(UserError, match="nothing to compare with"):
        model(torch.rand(1, 3, 32, 32))
    for features, labels in ((torch.rand(3, 64), torch.ones(3)), (torch.rand(2, 7), torch.tensor([0, 1]))):
        with pytest.raises(UserError, match="of reals and of fakes"):
            model.fit_bank(features, labels)
    with pytest.raises(UserError, match="keeps no bank"):
        _probe().fit_bank(torch.rand(2, 64), torch.tensor([0, 1]))


def test_dinov2_and_a_convolutional_tower_go_too() -> None:
    model = _probe(tower="resnet10t", tower_size=None).eval()
    assert model.cam_layer is model.tower.layer4
    assert model(torch.rand(1, 3, 20, 20)).shape == (1,) and model.options["tower_size"] == 176
