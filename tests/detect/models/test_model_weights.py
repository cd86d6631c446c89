import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from crossfake.detect.models import create_model
from crossfake.errors import UserError


def test_published_weights_load_but_for_the_classifier(tmp_path: Path) -> None:
    published = timm.create_model("resnet10t", num_classes=7)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in published.state_dict().items()}}, tmp_path / "w.pth"
    )
    for file in ("w.safetensors", "w.pth"):
        model = create_model("resnet10t", weights=tmp_path / file)
        assert torch.equal(model.network.conv1[0].weight, published.conv1[0].weight)
        assert model.head.weight.shape == (1, 512)


def test_a_vits_positions_are_stretched_to_the_size(tmp_path: Path) -> None:
    published = timm.create_model("test_vit", img_size=160, num_classes=10)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    expected = timm.create_model("test_vit", img_size=32, num_classes=10)
    timm.models.load_checkpoint(
        expected, str(tmp_path / "w.pth"), filter_fn=timm.models.vision_transformer.checkpoint_filter_fn
    )
    model = create_model("test_vit", weights=tmp_path / "w.pth", options={"size": 32})
    torch.testing.assert_close(model.network.pos_embed, expected.pos_embed)
    assert torch.equal(model.network.blocks[3].attn.qkv.weight, published.blocks[3].attn.qkv.weight)


def test_weights_of_a_bundle_start_another(tmp_path: Path) -> None:
    for name in ("cnn", "resnet10t"):
        trained = create_model(name)
        save_file(trained.state_dict(), tmp_path / "model.safetensors")
        started = create_model(name, weights=tmp_path / "model.safetensors")
        assert all(
            torch.equal(a, b)
            for a, b in zip(trained.state_dict().values(), started.state_dict().values(), strict=True)
        )


def test_weights_for_a_tower(tmp_path: Path) -> None:
    published = timm.create_model("test_vit", img_size=32, num_classes=5)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    options = {"tower": "test_vit", "tower_size": 32}
    model = create_model("clip_probe", weights=tmp_path / "w.safetensors", options=options)
    assert torch.equal(model.tower.patch_embed.proj.weight, published.patch_embed.proj.weight)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        create_model("resnet10t", weights=tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="text.pth"):
        create_model("resnet10t", weights=tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as weights"):
        create_model("resnet10t", weights=tmp_path / "text.safetensors")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    for name in ("resnet10t", "convnext_atto", "test_vit", "npr"):
        with pytest.raises(UserError, match="fits only 0 of"):
            create_model(name, weights=tmp_path / "other.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no weights"):
        create_model("resnet10t", weights=tmp_path / "list.pth")
    with pytest.raises(UserError, match="exclude each other"):
        create_model("resnet10t", pretrained=True, weights=tmp_path / "other.pth")


def test_a_hostile_pickle_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    for name in ("resnet10t", "cnn", "squeezenet"):
        with pytest.raises(UserError, match="more than tensors"):
            create_model(name, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()
