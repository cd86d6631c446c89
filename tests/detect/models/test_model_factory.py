from pathlib import Path

import pytest
import torch

from crossfake.detect.models import create_model
from crossfake.errors import UserError


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "vgg16", "densenet121", "efficientnet_b4", "xception", "convnext_tiny"]
)
def test_the_classic_backbones_are_known(name: str) -> None:
    import timm

    assert timm.is_model(name)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model 'resnet19'.*did you mean 'resnet"):
        create_model("resnet19")
    with pytest.raises(UserError, match=r"no model 'nprr'.*did you mean 'npr'"):
        create_model("nprr")


@pytest.mark.parametrize("name", ["hf-hub:someone/else", "local-dir:/tmp", "", "cnn\n"])
def test_a_name_leads_to_no_hub(name: str) -> None:
    with pytest.raises(UserError, match="there is no model"):
        create_model(name)
    with pytest.raises(UserError, match="there is no model"):
        create_model("clip_probe", options={"tower": name})


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match=r"frequency has no option 'heads'.*head, size"):
        create_model("frequency", options={"heads": "cnn"})
    with pytest.raises(UserError, match=r"resnet10t has no option 'pretrained'.*size"):
        create_model("resnet10t", options={"pretrained": True})
    with pytest.raises(UserError, match=r"head cannot be 'tree'.*linear, cnn"):
        create_model("frequency", options={"head": "tree"})
    for size in (0, 8, -16, 10**6, "32", 32.0, True):
        with pytest.raises(UserError, match="cannot be built for images of"):
            create_model("meso", options={"size": size})


def test_size_is_kept_only_by_those_made_for_one() -> None:
    assert create_model("cnn", options={"size": 32}).options == {}
    assert create_model("resnet10t", options={"size": 32}).options == {}
    assert create_model("test_vit", options={"size": 32}).options == {"size": 32}
    assert create_model("meso", options={"size": 32}).options == {"size": 32}


@pytest.mark.parametrize("name", ["meso", "frequency", "test_vit"])
def test_images_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"built for images of 32×32, not 48×48.*'size': 48"):
        create_model(name, options={"size": 32})(torch.rand(2, 3, 48, 48))


def test_where_there_are_no_published_weights() -> None:
    with pytest.raises(UserError, match="no published weights for npr"):
        create_model("npr", pretrained=True)


@pytest.mark.parametrize("name", ["resnet10t", "clip_probe", "squeezenet"])
def test_pretrained_without_a_network_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def unreachable(*_args: object, **_more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    options = {"tower": "vit_tiny_patch16_224"} if name == "clip_probe" else {}
    with pytest.raises(UserError, match=r"the weights of \w+ could not be fetched.*--weights") as caught:
        create_model(name, pretrained=True, options=options)
    assert "\n" not in str(caught.value)


def test_weights_in_the_cache_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    published = timm.create_model("resnet10t", num_classes=1000)
    state = {name: tensor.contiguous() for name, tensor in published.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")

    def kept(repository: str, name: str) -> str:
        assert (repository, name) == ("timm/resnet10t.c3_in1k", "model.safetensors")
        return str(tmp_path / "model.safetensors")

    def asked(url: str) -> str:
        raise AssertionError(url)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", kept)
    monkeypatch.setattr("crossfake.detect.models.timm_model.unreachable", asked)
    model = create_model("resnet10t", pretrained=True)
    assert torch.equal(model.state_dict()["network.conv1.0.weight"], state["conv1.0.weight"])


def test_a_hub_out_of_reach_names_file_origin_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("crossfake.detect.models.timm_model.unreachable", lambda url: "no route")
    with pytest.raises(UserError) as caught:
        create_model("resnet10t", pretrained=True)
    for part in ("(no route)", "timm/resnet10t.c3_in1k/resolve/main/model.safetensors", "--weights"):
        assert part in str(caught.value)
