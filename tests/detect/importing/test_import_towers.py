"""Vision towers read from transformers' files give what transformers gives, and RINE's sum is the paper's."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from crossfake.detect.importing import names
from crossfake.detect.importing.importer import translated
from crossfake.detect.importing.table import PublishedEntry, load_table
from crossfake.detect.models import DetectorNetwork, create_model
from crossfake.errors import UserError

TABLE = load_table()
MEAN = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def _read(published: dict[str, Tensor], options: dict[str, Any], like: str, **facts: Any) -> DetectorNetwork:
    """A model with the weights of a file that is like that of an entry, but smaller."""
    entry = TABLE[like]
    facts = {
        "names": entry.names,
        "reads": entry.reads,
        "unused": entry.unused,
        "classes": entry.classes,
    } | facts
    model = create_model("published", options={**options, **MEAN}).eval()
    small = PublishedEntry("x", "p", "l", "w", ("d",), entry.sees, ("published",), model.options, **facts)
    names.fill(model, translated(small, published, model))
    return model


def _randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.ndim == 1)
    return module.eval()


def _images(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_dinov3_is_transformers_and_the_class_token_counts() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DINOv3ViTConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_register_tokens=4,
    )
    tower = _randomised(transformers.DINOv3ViTModel(config))
    state = {f"feature_extractor.backbone.{name}": value for name, value in tower.state_dict().items()}
    state |= {"model.linear.weight": torch.randn(2, 384), "model.linear.bias": torch.randn(2)}
    options = {"architecture": "vit_small_patch16_dinov3_qkvb", "size": 64, "pool": "token", "form": "unit"}
    model = _read(state, options, "gend/dinov3")
    with torch.inference_mode():
        wanted = nn.functional.normalize(tower(_images(64)).last_hidden_state[:, 0], dim=1)
        torch.testing.assert_close(model.features(_images(64)), wanted, atol=1e-4, rtol=1e-4)


def test_dinov2_is_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=70, patch_size=14
    )
    tower = _randomised(transformers.Dinov2Model(config))
    state = {**tower.state_dict(), "fc.weight": torch.randn(1, 384), "fc.bias": torch.randn(1)}
    model = _read(state, {"architecture": "vit_small_patch14_dinov2", "size": 70}, "dinov2_linear")
    with torch.inference_mode():
        wanted = tower(_images(70)).last_hidden_state[:, 0]
        torch.testing.assert_close(model.features(_images(70)), wanted, atol=1e-4, rtol=1e-4)


def _clip(transformers: Any) -> nn.Module:
    config = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=32,
        hidden_act="quick_gelu",
    )
    return _randomised(transformers.CLIPVisionModel(config))


CLIP = {"architecture": "vit_base_patch32_clip_quickgelu_224", "size": 224}


def _named(tower: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}


def test_clip_is_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    tower = _clip(transformers)
    state = _named(tower, "feature_extractor.vision_model.")
    state |= {"model.linear.weight": torch.randn(2, 768), "model.linear.bias": torch.randn(2)}
    model = _read(state, {**CLIP, "form": "unit"}, "gend")
    with torch.inference_mode():
        wanted = nn.functional.normalize(tower(_images(224)).pooler_output, dim=1)
        torch.testing.assert_close(model.features(_images(224)), wanted, atol=1e-4, rtol=1e-4)


def test_rine_weighs_what_the_second_norms_give() -> None:
    """By the paper's formula, on transformers' tower, whose second norms are heard."""
    transformers = pytest.importorskip("transformers")
    tower, width = _clip(transformers), 16
    heard: list[Tensor] = []
    for name, module in tower.named_modules():
        if name.endswith("layer_norm2"):
            module.register_forward_hook(lambda _m, _i, output: heard.append(output[:, 0]))
    parts = nn.ModuleDict(
        {
            "proj1": nn.Sequential(nn.Dropout(), nn.Linear(768, width), nn.ReLU(), nn.Dropout()),
            "proj2": nn.Sequential(nn.Dropout(), nn.Linear(width, width), nn.ReLU(), nn.Dropout()),
            "head": nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(width, 1),
            ),
        }
    ).eval()
    alpha = torch.randn(1, 12, width)
    state = {**_named(tower, "vision_model."), **parts.state_dict(), "alpha": alpha}
    options = {**CLIP, "form": "blocks", "projections": 1, "width": width}
    model = _read(state, options, "rine/1class")
    with torch.inference_mode():
        tower(_images(224))
        shares = alpha.softmax(dim=1)
        summed = (shares * parts["proj1"](torch.stack(heard, dim=1))).sum(dim=1)
        wanted = parts["head"](parts["proj2"](summed))[:, 0]
        torch.testing.assert_close(model(_images(224)), wanted, atol=1e-4, rtol=1e-4)


def test_positions_of_a_larger_perception_encoder_are_timms_at_the_smaller_size() -> None:
    name = "vit_pe_core_tiny_patch16_384"
    network = _randomised(timm.create_model(name, num_classes=0, dynamic_img_size=True))
    state = {f"feature_extractor.backbone.{key}": value for key, value in network.state_dict().items()}
    state |= {"model.linear.weight": torch.randn(2, 192), "model.linear.bias": torch.randn(2)}
    model = _read(state, {"architecture": name, "size": 224, "form": "unit"}, "gend/pe")
    with torch.inference_mode():
        wanted = nn.functional.normalize(network(_images(224)), dim=1)
        torch.testing.assert_close(model.features(_images(224)), wanted, atol=1e-4, rtol=1e-4)


def test_only_a_vision_transformer_has_blocks_to_weigh() -> None:
    with pytest.raises(UserError, match="no such blocks"):
        create_model("published", options={"architecture": "test_resnet", "form": "blocks"})
    options = {"architecture": "test_vit", "size": 32, "form": "blocks"}
    with pytest.raises(UserError, match="width is 0"):
        create_model("published", options={**options, "width": 0})
    model = create_model("published", options={**options, "width": 8}).eval()
    again = create_model("published", options=model.options).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(_images(32)), model(_images(32)))
