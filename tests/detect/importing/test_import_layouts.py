"""Files laid out as the authors' code lays them out are read; of large networks names and shapes alone are compared."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from crossfake.detect.importing import names
from crossfake.detect.importing.importer import translated
from crossfake.detect.importing.table import PublishedEntry, load_table
from crossfake.detect.models import create_model
from crossfake.errors import UserError

TABLE = load_table()
State = dict[str, Tensor]


def _shape(*sides: int) -> Tensor:
    return torch.empty(sides, device="meta")


def _linear(name: str, inputs: int, outputs: int) -> State:
    return {f"{name}.weight": _shape(outputs, inputs), f"{name}.bias": _shape(outputs)}


def _norm(name: str, width: int) -> State:
    return {f"{name}.weight": _shape(width), f"{name}.bias": _shape(width)}


def _batch_norm(name: str, width: int) -> State:
    counts = {f"{name}.num_batches_tracked": _shape()}
    return (
        _norm(name, width)
        | {f"{name}.running_mean": _shape(width), f"{name}.running_var": _shape(width)}
        | counts
    )


def _of(module: nn.Module, prefix: str = "") -> State:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def _clip(prefix: str, width: int = 1024, depth: int = 24) -> State:
    """transformers' names."""
    e = f"{prefix}embeddings."
    found = {f"{e}class_embedding": _shape(width), f"{e}patch_embedding.weight": _shape(width, 3, 14, 14)}
    found |= {f"{e}position_embedding.weight": _shape(257, width), f"{e}position_ids": _shape(1, 257)}
    found |= _norm(f"{prefix}pre_layrnorm", width) | _norm(f"{prefix}post_layernorm", width)
    for k in range(depth):
        layer = f"{prefix}encoder.layers.{k}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{layer}self_attn.{part}", width, width)
        found |= _norm(f"{layer}layer_norm1", width) | _norm(f"{layer}layer_norm2", width)
        found |= _linear(f"{layer}mlp.fc1", width, 4 * width) | _linear(f"{layer}mlp.fc2", 4 * width, width)
    return found


def _openai(prefix: str, width: int = 1024) -> State:
    found = {f"{prefix}class_embedding": _shape(width), f"{prefix}positional_embedding": _shape(257, width)}
    found |= {f"{prefix}conv1.weight": _shape(width, 3, 14, 14), f"{prefix}proj": _shape(width, 768)}
    found |= _norm(f"{prefix}ln_pre", width) | _norm(f"{prefix}ln_post", width)
    for k in range(24):
        layer = f"{prefix}transformer.resblocks.{k}."
        found |= {
            f"{layer}attn.in_proj_weight": _shape(3 * width, width),
            f"{layer}attn.in_proj_bias": _shape(3 * width),
        }
        found |= _linear(f"{layer}attn.out_proj", width, width)
        found |= _norm(f"{layer}ln_1", width) | _norm(f"{layer}ln_2", width)
        found |= _linear(f"{layer}mlp.c_fc", width, 4 * width) | _linear(
            f"{layer}mlp.c_proj", 4 * width, width
        )
    return found


def _dinov2(prefix: str, width: int = 1024) -> State:
    e = f"{prefix}embeddings."
    found = {f"{e}cls_token": _shape(1, 1, width), f"{e}mask_token": _shape(1, width)}
    found |= {f"{e}position_embeddings": _shape(1, 1370, width)} | _norm(f"{prefix}layernorm", width)
    found |= {f"{e}patch_embeddings.projection.weight": _shape(width, 3, 14, 14)}
    found |= {f"{e}patch_embeddings.projection.bias": _shape(width)}
    for k in range(24):
        layer = f"{prefix}encoder.layer.{k}."
        for part in ("query", "key", "value"):
            found |= _linear(f"{layer}attention.attention.{part}", width, width)
        found |= _linear(f"{layer}attention.output.dense", width, width)
        found |= {f"{layer}layer_scale{n}.lambda1": _shape(width) for n in (1, 2)}
        found |= _norm(f"{layer}norm1", width) | _norm(f"{layer}norm2", width)
        found |= _linear(f"{layer}mlp.fc1", width, 4 * width) | _linear(f"{layer}mlp.fc2", 4 * width, width)
    return found


def _dinov3(prefix: str, width: int = 1024) -> State:
    e = f"{prefix}embeddings."
    found = {f"{e}cls_token": _shape(1, 1, width), f"{e}mask_token": _shape(1, 1, width)}
    found |= {f"{e}register_tokens": _shape(1, 4, width)} | _norm(f"{prefix}norm", width)
    found |= {
        f"{e}patch_embeddings.weight": _shape(width, 3, 16, 16),
        f"{e}patch_embeddings.bias": _shape(width),
    }
    for k in range(24):
        layer = f"{prefix}layer.{k}."
        for part in ("q_proj", "v_proj", "o_proj"):
            found |= _linear(f"{layer}attention.{part}", width, width)
        found |= {f"{layer}attention.k_proj.weight": _shape(width, width)}
        found |= {f"{layer}layer_scale{n}.lambda1": _shape(width) for n in (1, 2)}
        found |= _norm(f"{layer}norm1", width) | _norm(f"{layer}norm2", width)
        found |= _linear(f"{layer}mlp.up_proj", width, 4 * width) | _linear(
            f"{layer}mlp.down_proj", 4 * width, width
        )
    return found


def _rine(layers: int, width: int) -> State:
    """Their own part, and CLIP's file beside it."""
    found = {"alpha": _shape(1, 24, width)}
    for k in range(layers):
        found |= _linear(f"proj1.{1 + 3 * k}", width if k else 1024, width)
        found |= _linear(f"proj2.{1 + 3 * k}", width, width)
    for k, outputs in ((0, width), (3, width), (6, 1)):
        found |= _linear(f"head.{k}", width, outputs)
    clip = {"visual_projection.weight": _shape(768, 1024), "text_projection.weight": _shape(768, 768)}
    clip |= {"logit_scale": _shape(), "text_model.final_layer_norm.weight": _shape(768)}
    return _clip("vision_model.") | clip | found


def _pe() -> State:
    """timm's names, for images of 336 pixels."""
    network = timm.create_model("vit_pe_core_large_patch14_336", num_classes=0)
    return _of(network, "feature_extractor.backbone.") | _linear("model.linear", 1024, 2)


def efficientnet(network: nn.Module, prefix: str) -> State:
    """A network of timm's under the names of efficientnet_pytorch, written by its own list of parts."""
    found, number = {}, 0
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    for name, other in outside.items():
        found |= _of(network.get_submodule(name), f"{prefix}{other}.")
    for stage in network.get_submodule("blocks").children():
        for block in stage.children():
            wide = hasattr(block, "conv_pwl")
            parts = {
                "conv_dw": "_depthwise_conv",
                "se.conv_reduce": "_se_reduce",
                "se.conv_expand": "_se_expand",
            }
            if wide:
                parts |= {
                    "conv_pw": "_expand_conv",
                    "bn1": "_bn0",
                    "bn2": "_bn1",
                    "conv_pwl": "_project_conv",
                    "bn3": "_bn2",
                }
            else:
                parts |= {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
            for name, other in parts.items():
                found |= _of(block.get_submodule(name), f"{prefix}_blocks.{number}.{other}.")
            number += 1
    return found


def _timm(entry: str) -> nn.Module:
    network: nn.Module = create_model(TABLE[entry].model[0], options=TABLE[entry].options).backbone
    return network


def _xception(prefix: str, outputs: int = 2, first: int = 3) -> State:
    found = _of(_timm("deepfakebench/xception"), prefix) | _linear(f"{prefix}last_linear", 2048, outputs)
    found[f"{prefix}conv1.weight"] = _shape(32, first, 3, 3)
    adjust = {
        f"{prefix}adjust_channel.0.weight": _shape(512, 2048, 1, 1),
        f"{prefix}adjust_channel.0.bias": _shape(512),
    }
    return found | adjust | _batch_norm(f"{prefix}adjust_channel.1", 512)


def _ucf() -> State:
    found = _xception("encoder_f.") | _xception("encoder_c.") | _linear("con_gan.conv_last", 3, 3)
    for name in ("sha", "spe"):
        for k, inputs in ((0, 512), (2, 256), (4, 256)):
            found[f"block_{name}.conv2d.{k}.weight"] = _shape(256, inputs, 1, 1)
            found[f"block_{name}.conv2d.{k}.bias"] = _shape(256)
        found |= _linear(f"head_{name}.mlp.0", 256, 512) | _linear(
            f"head_{name}.mlp.2", 512, 2 if name == "sha" else 5
        )
    return found


def _meso4(outputs: int = 2) -> State:
    convolutions = {"conv1": (8, 3, 3), "conv2": (8, 8, 5), "conv3": (16, 8, 5), "conv4": (16, 16, 5)}
    found = {f"backbone.{k}.weight": _shape(o, i, s, s) for k, (o, i, s) in convolutions.items()}
    found |= _batch_norm("backbone.bn1", 8) | _batch_norm("backbone.bn2", 16)
    return found | _linear("backbone.fc1", 1024, 16) | _linear("backbone.fc2", 16, outputs)


def _meso_inception() -> State:
    found = {}
    for k, inputs, widths in ((1, 3, (1, 4, 4, 2)), (2, 11, (2, 4, 4, 2))):
        found[f"backbone.Incption{k}_conv1.weight"] = _shape(widths[0], inputs, 1, 1)
        for path, width in zip((2, 3, 4), widths[1:], strict=True):
            found[f"backbone.Incption{k}_conv{path}_1.weight"] = _shape(width, inputs, 1, 1)
            found[f"backbone.Incption{k}_conv{path}_2.weight"] = _shape(width, width, 3, 3)
        found |= _batch_norm(f"backbone.Incption{k}_bn", sum(widths))
    found |= {"backbone.conv1.weight": _shape(16, 12, 5, 5), "backbone.conv2.weight": _shape(16, 16, 5, 5)}
    found |= _batch_norm("backbone.bn1", 16)
    return found | _linear("backbone.fc1", 1024, 16) | _linear("backbone.fc2", 16, 2)


def _effort() -> State:
    found = {}
    for name, tensor in _clip("backbone.").items():
        if ".self_attn." in name and name.endswith(".weight"):
            stem = name.removesuffix("weight")
            found |= {f"{stem}weight_main": tensor, f"{stem}U_residual": _shape(1024, 1)}
            found |= {f"{stem}S_residual": _shape(1), f"{stem}V_residual": _shape(1, 1024)}
        else:
            found[name] = tensor
    return found | _linear("head", 1024, 2)


def _resnet34() -> State:
    whole = torchvision.models.resnet34()
    return _of(nn.Sequential(*list(whole.children())[:-2]), "backbone.resnet.") | _linear(
        "backbone.fc", 512, 2
    )


def _convnext() -> State:
    head = _linear("model.head.fc", 1024, 1024) | _linear("fc", 1024, 2)
    return _of(_timm("drct/convnext_base"), "model.") | head


LAYOUTS: dict[str, Callable[[], State]] = {
    "cnndetection": lambda: _of(torchvision.models.resnet50(num_classes=1)),
    "deepfakebench/xception": lambda: _xception("backbone."),
    "deepfakebench/efficientnetb4": lambda: (
        efficientnet(_timm("deepfakebench/efficientnetb4"), "backbone.efficientnet.")
        | _linear("backbone.last_layer", 1792, 2)
    ),
    "deepfakebench/meso4": _meso4,
    "deepfakebench/meso4Inception": _meso_inception,
    "deepfakebench/resnet34": _resnet34,
    "deepfakebench/spsl": lambda: _xception("backbone.", first=4),
    "deepfakebench/ucf": _ucf,
    "sbi": lambda: efficientnet(_timm("sbi"), "net.") | _linear("net._fc", 1792, 2),
    "communityforensics": lambda: _of(_timm("communityforensics"), "vit.") | _linear("vit.head", 384, 1),
    "univfd": lambda: (
        _clip("vision_model.")
        | {"visual_projection.weight": _shape(768, 1024), "logit_scale": _shape()}
        | {"weight": _shape(1, 768), "bias": _shape(1)}
    ),
    "clip_linear": lambda: _openai("visual.") | _linear("fc", 1024, 1),
    "dinov2_linear": lambda: _dinov2("") | _linear("fc", 1024, 1),
    "gend": lambda: (
        _clip("feature_extractor.vision_model.")
        | {"feature_extractor.visual_projection.weight": _shape(768, 1024)}
        | _linear("model.linear", 1024, 2)
    ),
    "gend/dinov3": lambda: _dinov3("feature_extractor.backbone.") | _linear("model.linear", 1024, 2),
    "gend/pe": _pe,
    "effort": _effort,
    "effort/genimage": _effort,
    "communityforensics/224": lambda: (
        _of(_timm("communityforensics/224"), "vit.") | _linear("vit.head", 384, 1)
    ),
    "rine/1class": lambda: _rine(4, 1024),
    "rine/2class": lambda: _rine(4, 128),
    "rine/4class": lambda: _rine(2, 1024),
    "rine/ldm": lambda: _rine(4, 1024),
    "drct/convnext_base": _convnext,
    "drct/clip_large": lambda: (
        _openai("model.model.visual.")
        | {"model.model.text_projection": _shape(768, 768)}
        | _linear("model.fc", 768, 1024)
        | _linear("fc", 1024, 2)
    ),
}


def test_every_entry_says_what_its_facts_were_read_in() -> None:
    for entry in TABLE.values():
        assert entry.checked and entry.facts()["facts from"] == entry.checked
        assert all(source.count("(") == source.count(")") for source in entry.trained_on)


ELSEWHERE = {"mesonet", "npr"}  # read with numbers, beside the vectors


def test_every_entry_has_a_layout() -> None:
    assert set(LAYOUTS) | ELSEWHERE == set(TABLE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_and_shapes_fit(name: str) -> None:
    with torch.device("meta"):
        state, entry = LAYOUTS[name](), TABLE[name]
        if name == "clip_linear":
            state.pop("visual.proj")
        model = create_model(entry.model[0], options=entry.options)
        found = translated(entry, state, model)
        lacking = dict(list(state.items())[1:])
        if name not in ("dinov2_linear",):
            with pytest.raises(UserError):
                translated(entry, lacking, model)
    assert not any(tensor.device.type != "meta" for key, tensor in found.items() if "conv" not in key)


def _entry(options: dict[str, object], **facts: object) -> PublishedEntry:
    return PublishedEntry(
        "x", "paper", "licence", "weights", ("data",), TABLE["npr"].sees, ("published",), options, **facts
    )  # type: ignore[arg-type]


def test_efficientnets_numbers_arrive() -> None:
    options = {"architecture": "tf_efficientnet_b0"}
    model = create_model("published", options=options).eval()
    state = efficientnet(model.backbone, "") | _of(model.head, "head.")
    found = translated(_entry(options, reads=("efficientnet",)), state, model)
    for name, tensor in names.check(found, model).items():
        torch.testing.assert_close(tensor, model.state_dict()[name])


def test_same_padding_for_one_size_is_timms_for_that_size() -> None:
    plain = create_model("published", options={"architecture": "tf_efficientnet_b0"}).eval()
    fixed = create_model("published", options={"architecture": "tf_efficientnet_b0", "padding": 96}).eval()
    fixed.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fixed(images), plain(images))


def test_residuals_are_added_up() -> None:
    u, s, v = torch.rand(4, 2), torch.rand(2), torch.rand(2, 3)
    main = torch.rand(4, 3)
    state = {
        "a.weight_main": main,
        "a.U_residual": u,
        "a.S_residual": s,
        "a.V_residual": v,
        "a.bias": torch.rand(4),
    }
    found = names.fold_residuals(state, nn.Module())  # type: ignore[arg-type]
    assert set(found) == {"a.weight", "a.bias"}
    torch.testing.assert_close(found["a.weight"], main + u @ torch.diag(s) @ v)


def test_a_chain_of_layers_is_one() -> None:
    layers = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3), nn.Linear(3, 1))
    state = {f"chain.{name}": tensor for name, tensor in layers.state_dict().items()}
    found = names.fold_chain(state, nn.Module())  # type: ignore[arg-type]
    x = torch.rand(2, 5)
    torch.testing.assert_close(nn.functional.linear(x, found["head.weight"], found["head.bias"]), layers(x))


def test_two_classes_become_the_softmax_of_the_second() -> None:
    model = create_model("published", options={"architecture": "test_resnet"})
    weight, bias = torch.rand(2, 64), torch.rand(2)
    one = names.one_logit({"head.weight": weight, "head.bias": bias}, model, 2, "fake")
    x = torch.rand(3, 64)
    logit = nn.functional.linear(x, one["head.weight"], one["head.bias"])[:, 0]
    wanted = nn.functional.linear(x, weight, bias).softmax(1)[:, 1]
    torch.testing.assert_close(logit.sigmoid(), wanted)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    entry = (
        "mine:\n  paper: p\n  licence: l\n  weights: w\n  trained_on: [d]\n  sees: {looks_at: picture, crop: 64}\n"
        "  model: published\n  options: {architecture: test_resnet}\n  names: [['^', 'network.']]\n"
    )
    file.write_text(entry)
    assert load_table(file)["mine"].sees.words() == "the whole picture, the middle 64×64 of it"
    for wrong, words in {
        "paper: p": "it lacks paper",
        "model: published": "there is no model 'cnnn'",
        "crop: 64": "interpolation is 'cubic'",
        "['^', 'network.']": "no regular expression",
    }.items():
        other = {"model: published": "model: cnnn", "crop: 64": "interpolation: cubic"}
        other |= {"['^', 'network.']": "['(', 'x']", "paper: p": "# none"}
        file.write_text(entry.replace(wrong, other[wrong]))
        with pytest.raises(UserError, match=words):
            load_table(file)
