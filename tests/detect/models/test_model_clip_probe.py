import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from crossfake.detect.models import create_model
from crossfake.detect.models.adapters import ResidualLinear
from crossfake.detect.models.base import DetectorNetwork, PositiveHead
from crossfake.errors import UserError


def _probe(**options: object) -> DetectorNetwork:
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


@pytest.mark.parametrize("size", [32, 37, 48])
def test_native_windows_are_cut_never_resampled(size: int) -> None:
    model = create_model("clip_probe", options={"tower": "test_vit", "pixels": "native", "size": 32}).eval()
    seen: list[torch.Tensor] = []
    model.normalise.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    images = torch.rand(2, 3, size, size)
    model(images)
    side = size // 16 * 16
    top = (size - side) // 2
    assert torch.equal(seen[0], images[..., top : top + side, top : top + side])
    assert model.options["pixels"] == "native" and "tower_size" not in model.options


def test_windows_that_are_no_multiple_of_a_patch_have_positions_of_their_own(tmp_path: Path) -> None:
    published = timm.create_model("test_vit", img_size=160, num_classes=0)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    options = {"tower": "test_vit", "pixels": "native", "size": 40}
    model = create_model("clip_probe", weights=tmp_path / "w.pth", options=options).eval()
    assert model.tower.patch_embed.grid_size == (2, 2)  # type: ignore[union-attr]
    images = torch.rand(2, 3, 40, 40)
    exact = timm.create_model("test_vit", img_size=32, num_classes=0).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(published.state_dict(), exact)
    exact.load_state_dict(state)
    expected = exact(model.normalise(images[..., 4:36, 4:36]))  # type: ignore[operator]
    torch.testing.assert_close(model.features(images), expected)


def test_native_windows_that_do_not_go_are_one_line() -> None:
    native = {"tower": "test_vit", "pixels": "native"}
    with pytest.raises(UserError, match=r"never resized.*tower_size"):
        create_model("clip_probe", options={**native, "tower_size": 32})
    with pytest.raises(UserError, match="takes images of one size only"):
        create_model("clip_probe", options={**native, "tower": "mixer_s32_224"})
    model = create_model("clip_probe", options={**native, "size": 32})
    with pytest.raises(UserError, match="clip_probe cannot take images of 12×12"):
        model(torch.rand(1, 3, 12, 12))
    with pytest.raises(UserError, match="pixels cannot be 'raw'"):
        create_model("clip_probe", options={"tower": "test_vit", "pixels": "raw"})


@pytest.mark.parametrize("tune", ["lora", "effort"])
def test_published_weights_stay_whole_until_something_is_trained(tune: str, tmp_path: Path) -> None:
    published = timm.create_model("test_vit", img_size=32, num_classes=5)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    options = {"tower": "test_vit", "tower_size": 32, "tune": tune, "rank": 4}
    torch.manual_seed(0)
    model = create_model("clip_probe", weights=tmp_path / "w.pth", options=options).eval()
    plain = {"tower": "test_vit", "tower_size": 32}
    frozen = create_model("clip_probe", weights=tmp_path / "w.pth", options=plain).eval()
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model.features(images), frozen.features(images), atol=1e-5, rtol=1e-4)
    trained = [name for name, p in model.tower.named_parameters() if p.requires_grad]
    assert trained and all(".attn." in name and ("lora_" in name or "residual_" in name) for name in trained)
    # A bundle of it starts another as it is: nothing is divided a second time
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    again = create_model("clip_probe", weights=tmp_path / "whole.pth", options=options)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_what_is_trained_of_a_layer_are_its_smallest_directions() -> None:
    for inputs, outputs in ((24, 16), (16, 48)):
        layer = torch.nn.Linear(inputs, outputs)
        weight = layer.weight.detach().clone()
        divided = ResidualLinear(layer, 3)
        divided.split()
        residual = (divided.residual_left * divided.residual_scale) @ divided.residual_right
        torch.testing.assert_close(divided.weight + residual, weight, atol=1e-6, rtol=1e-5)
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        torch.testing.assert_close(divided.residual_scale.sort().values, s[-3:].flip(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(residual, (u[:, -3:] * s[-3:]) @ v[-3:], atol=1e-5, rtol=1e-3)
        assert not divided.weight.requires_grad


def test_what_cannot_be_tuned_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for tune in ("lora", "effort"):
        with pytest.raises(UserError, match="no attention that lora or effort could tune"):
            _probe(tower="resnet10t", tune=tune)
        for rank in (0, 10_000, 2.5, "8", True):
            with pytest.raises(UserError, match="rank cannot be"):
                _probe(tune=tune, rank=rank)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="needs the package peft"):
        _probe(tune="lora")


@pytest.mark.parametrize("name", ["clip_probe", "resnet10t"])
def test_with_a_positive_head_nothing_speaks_against_a_fake(name: str) -> None:
    torch.manual_seed(0)
    options = {"tower": "test_vit", "tower_size": 32} if name == "clip_probe" else {}
    model = create_model(name, options={**options, "head": "positive"}).train()
    assert isinstance(model.head, PositiveHead) and model.options["head"] == "positive"
    optimizer = torch.optim.SGD(model.head.parameters(), lr=10.0)
    images = torch.rand(8, 3, 32, 32)
    for _ in range(3):
        loss = F.binary_cross_entropy_with_logits(model(images), torch.tensor([0.0, 1.0] * 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.head.weight < 0).any()
    model.eval()
    assert (model(images) >= model.head.bias).all()
    more = model.features(images) + 1
    assert (model.head(more) >= model.head(more - 1)).all()
    model.train()
    model(images)
    assert (model.head.weight >= 0).all()


@pytest.mark.parametrize("tune", ["layernorm", "lora", "effort"])
def test_the_real_dinov2_goes_at_windows(tune: str, real_weights: Path) -> None:
    file = real_weights / "vit_small_patch14_dinov2-imgfocus.safetensors"
    options = {"tower": "vit_small_patch14_dinov2", "pixels": "native", "size": 128, "tune": tune}
    model = create_model("clip_probe", weights=file, options=options).eval()
    state = load_file(file)
    own = model.tower.state_dict()
    assert torch.equal(own["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"].float())
    with torch.no_grad():
        for size in (128, 224):
            assert not model(torch.rand(1, 3, size, size)).any()  # the head starts at zero
