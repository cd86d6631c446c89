import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crossfake.detect.models import MODELS, create_model
from crossfake.errors import UserError

SMALL_TIMM = ["resnet10t", "mobilenetv3_small_050", "convnext_atto"]


@pytest.mark.parametrize("name", [*MODELS.names(), *SMALL_TIMM])
@pytest.mark.parametrize("size", [32, 48])
def test_images_to_one_logit_each(name: str, size: int) -> None:
    model = create_model(name)
    logits = model(torch.rand(3, 3, size, size))
    assert logits.shape == (3,) and logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "densenet121"])
def test_the_classic_backbones_are_known(name: str) -> None:
    import timm

    assert timm.is_model(name)


def test_normalisation_is_timms() -> None:
    model = create_model("resnet10t").eval()
    config = model.network.pretrained_cfg
    image = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(model(image), model.network((image - mean) / std).squeeze(1))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model 'resnet19'.*did you mean 'resnet"):
        create_model("resnet19")


def test_published_weights_load_but_for_the_classifier(tmp_path: Path) -> None:
    import timm

    published = timm.create_model("resnet10t", num_classes=7)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in published.state_dict().items()}}, tmp_path / "w.pth"
    )
    for file in ("w.safetensors", "w.pth"):
        model = create_model("resnet10t", weights=tmp_path / file)
        assert torch.equal(model.network.conv1[0].weight, published.conv1[0].weight)
        assert model.network.fc.weight.shape == (1, 512)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        create_model("resnet10t", weights=tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="text.pth"):
        create_model("resnet10t", weights=tmp_path / "text.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="fits only 0 of"):
        create_model("resnet10t", weights=tmp_path / "other.pth")
    with pytest.raises(UserError, match="exclude each other"):
        create_model("resnet10t", pretrained=True, weights=tmp_path / "other.pth")


def test_a_hostile_pickle_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="more than tensors"):
        create_model("resnet10t", weights=tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


def test_pretrained_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"weights of resnet10t could not be fetched.*--weights"):
        create_model("resnet10t", pretrained=True)
