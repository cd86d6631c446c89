import pytest
import timm
import torch

from crossfake.detect.models import create_model
from crossfake.errors import UserError


@pytest.mark.parametrize(
    "name", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_vit", "test_nfnet"]
)
def test_it_is_timms_network_with_timms_normalisation(name: str) -> None:
    model = create_model(name, options={"size": 32}).eval()
    more = {"img_size": 32} if name == "test_vit" else {}
    theirs = timm.create_model(name, num_classes=1, **more).eval()
    theirs.load_state_dict(model.network.state_dict(), strict=False)
    classifier = theirs.get_classifier()
    classifier.load_state_dict(model.head.state_dict())
    config = theirs.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), theirs((images - mean) / std).squeeze(1))


def test_stages_are_timms_groups() -> None:
    model = create_model("resnet10t")
    names = {id(p): name for name, p in model.named_parameters()}
    stages = [{names[id(p)].split(".")[1] for p in stage} for stage in model.stages()]
    assert stages == [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"weight", "bias"}]


def test_where_timm_knows_no_coarse_groups() -> None:
    from crossfake.detect.models.timm_model import timm_stages

    class Fine(torch.nn.Sequential):
        def group_matcher(self, coarse: bool = False) -> dict[str, str]:
            assert not coarse
            return {"stem": "^0", "blocks": r"^(\d)"}

    network = Fine(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert [len(stage) for stage in timm_stages(network)] == [2, 2, 2]


def test_a_vit_is_built_for_the_size() -> None:
    model = create_model("test_vit", options={"size": 48})
    assert model.network.pos_embed.shape[1] == 9 + model.network.num_prefix_tokens
    assert create_model("test_vit").options == {"size": 160}  # as published
    with pytest.raises(UserError, match=r"patches of 16 pixels, and 40 is no multiple.*of 32 pixels"):
        create_model("test_vit", options={"size": 40})


def test_the_cam_layer_is_looked_for_without_a_trace() -> None:
    model = create_model("resnet10t").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert model.cam_layer is model.network.layer4
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.network.layer4._forward_hooks


def test_images_that_an_architecture_cannot_take_are_one_line() -> None:
    with pytest.raises(UserError, match="test_convnext cannot take images of 24×24"):
        create_model("test_convnext").eval()(torch.rand(1, 3, 24, 24))


def test_where_timm_groups_nothing() -> None:
    from crossfake.detect.models.timm_model import timm_stages

    network = torch.nn.ModuleDict({"stem": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2)})
    assert [len(stage) for stage in timm_stages(network)] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "resnet50",
        "densenet121",
        "efficientnet_b4",
        "xception",
        "inception_v3",
        "convnext_tiny",
        "vit_tiny_patch16_224",
        "vit_small_patch16_dinov3",
        "deit_tiny_distilled_patch16_224",
        "swin_tiny_patch4_window7_224",
        "xcit_nano_12_p16_224",
        "poolformer_s12",
        "levit_128s",
        "dla34",
    ],
)
def test_architectures_of_every_kind(name: str) -> None:
    model = create_model(name, options={"size": 128}).eval()
    images = torch.rand(1, 3, 128, 128)
    features = model.features(images)
    assert features.shape == (1, model.head.in_features)
    torch.testing.assert_close(model(images), model.head(features).squeeze(1))
    staged = [id(p) for stage in model.stages() for p in stage]
    assert len(staged) == len(set(staged)) == len(list(model.parameters())) and len(model.stages()) > 3
    again = create_model(name, options=model.options)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(images), model(images))
    layer = model.cam_layer
    assert (layer is None) == any(part in name for part in ("vit", "deit", "swin", "xcit"))
