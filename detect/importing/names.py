"""From the tensors of a published file to those of our model: names, and the few that are computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crossfake.detect.models import DetectorNetwork
from crossfake.errors import UserError
from crossfake.inert.values import shown

State = dict[str, Tensor]
_HINT = "name another --as, or give the authors' file"
_KERAS_EPSILON, _EPSILON = 1e-3, 1e-5  # of batch normalisation


def renamed(state: State, names: tuple[tuple[str, str], ...], unused: tuple[str, ...]) -> State:
    """The tensors that judging needs, under the names that regular expressions make of theirs."""
    skip, found = [re.compile(each) for each in unused], {}
    for name, tensor in state.items():
        if any(each.search(name) for each in skip):
            continue
        for expression, other in names:
            name = re.sub(expression, other, name)
        found[name] = tensor
    return found


def from_keras(state: State, model: DetectorNetwork) -> State:
    """Keras's layers in the order of their numbers are ours in the order in which an image passes them.

    Kernels are turned from HWIO to OIHW, the first dense one from a map of channels last, and the variance of a batch
    normalisation takes up the difference of the epsilons.
    """
    layers: dict[str, dict[int, State]] = {}
    for path, tensor in state.items():
        match = re.search(r"(?:^|/)([a-z0-9_]+?)(?:_(\d+))?/([a-z_]+)(?::\d+)?$", path)
        if match is None or path.startswith("optimizer_weights"):
            continue
        kind, number, what = match[1], int(match[2] or 0), match[3]
        layers.setdefault(kind, {}).setdefault(number, {})[what] = tensor
    kinds = {"conv2d": nn.Conv2d, "batch_normalization": nn.BatchNorm2d, "dense": nn.Linear}
    found: State = {}
    for kind, module in kinds.items():
        own = [name for name, each in model.named_modules() if isinstance(each, module)]
        theirs = [layers.get(kind, {})[number] for number in sorted(layers.get(kind, {}))]
        if len(own) != len(theirs):
            raise UserError(f"it has {len(theirs)} layers {kind}, not {len(own)}", hint="name another --as")
        for number, (name, layer) in enumerate(zip(own, theirs, strict=True)):
            found |= {f"{name}.{key}": value for key, value in _KERAS[kind](layer, not number).items()}
    return found


def _conv(layer: State, _: bool) -> State:
    return {"weight": layer["kernel"].permute(3, 2, 0, 1), "bias": layer["bias"]}


def _norm(layer: State, _: bool) -> State:
    variance = layer["moving_variance"] + (_KERAS_EPSILON - _EPSILON)
    return {
        "weight": layer["gamma"],
        "bias": layer["beta"],
        "running_mean": layer["moving_mean"],
        "running_var": variance,
    }


def _dense(layer: State, first: bool) -> State:
    kernel = layer["kernel"]
    if first:  # of a map that was flattened: 16 channels, and any square
        side = round((len(kernel) / 16) ** 0.5)
        kernel = kernel.reshape(side, side, 16, -1).permute(2, 0, 1, 3).reshape(kernel.shape)
    return {"weight": kernel.T, "bias": layer["bias"]}


_KERAS: dict[str, Callable[[State, bool], State]] = {
    "conv2d": _conv,
    "batch_normalization": _norm,
    "dense": _dense,
}


def from_efficientnet_pytorch(state: State, model: DetectorNetwork) -> State:
    """The names of the package efficientnet_pytorch, whose blocks are numbered through, as timm's in their stages."""
    network: Any = model.backbone
    places = [(s, b) for s, stage in enumerate(network.blocks) for b in range(len(stage))]
    found: State = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
            layer, _, rest = name.partition(".")
            found[f"network.{outside[layer]}.{rest}" if layer in outside else name] = tensor
            continue
        stage, block = places[int(match[1])]
        parts = _SEPARABLE if f"_blocks.{match[1]}._expand_conv.weight" not in state else _INVERTED
        found[f"network.blocks.{stage}.{block}.{parts[match[2]]}.{match[3]}"] = tensor
    return found


_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_depthwise_conv": "conv_dw"}
_SEPARABLE = {**_SQUEEZE, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    **_SQUEEZE,
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def from_mesonet_pytorch(state: State, model: DetectorNetwork) -> State:
    """MesoNet in PyTorch: convolutions without biases, and batch norms that two stages share."""
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    inception = any(name.startswith("Incption1") for name in state)
    own = [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d)]
    paths = ("conv1", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv4_1", "conv4_2")
    theirs = [f"Incption{k}_{path}" for k in (1, 2) for path in paths] + ["conv1", "conv2"]
    norms = ["Incption1_bn", "Incption2_bn", "bn1", "bn1"]
    if not inception:
        theirs, norms = [f"conv{k}" for k in (1, 2, 3, 4)], ["bn1", "bn1", "bn2", "bn2"]
    found: State = {}
    for name, other in zip(own, theirs, strict=True):
        weight = state.pop(f"{other}.weight")
        found |= {f"{name}.weight": weight, f"{name}.bias": torch.zeros(len(weight))}
    for number, other in enumerate(norms):
        for key in ("weight", "bias", "running_mean", "running_var"):
            found[f"network.{number}.1.{key}"] = state[f"{other}.{key}"]
    for name, other in (("dense.2", "fc1"), ("head.1", "fc2")):
        found |= {f"{name}.{key}": state.pop(f"{other}.{key}") for key in ("weight", "bias")}
    return found | {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in norms}


def fold_residuals(state: State, _: DetectorNetwork) -> State:
    """Effort's weights: a frozen part and what was trained in the smallest singular directions, added up (eq. 3)."""
    found: State = {}
    for name, tensor in state.items():
        if name.endswith(".weight_main"):
            stem = name.removesuffix("weight_main")
            u, s, v = (state.get(f"{stem}{part}_residual") for part in "USV")
            if u is not None and s is not None and v is not None:
                tensor = tensor + (u * s) @ v
            found[f"{stem}weight"] = tensor
        elif not re.search(r"\.[USV]_residual$", name):
            found[name] = tensor
    return found


_HUGGING_FACE = (  # CLIP's vision tower, DINOv2 and DINOv3, as transformers name them
    (r"^.*?vision_model\.|^(dinov2|backbone)\.(?=embeddings|encoder|layernorm)", ""),
    (r"^embeddings\.(class_embedding|cls_token)$", "cls_token"),
    (r"^embeddings\.(position_embedding\.weight|position_embeddings)$", "pos_embed"),
    (r"^embeddings\.(patch_embedding|patch_embeddings(\.projection)?)\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(post_layernorm|layernorm)\.", "norm."),
    (r"^(encoder\.layers?|(model\.)?layer)\.", "blocks."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(attention\.)?([qkv])(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.(self_attn\.out_proj|attention\.output\.dense|attention\.o_proj)\.", ".attn.proj."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
_OPENAI = (  # CLIP's vision tower, as its authors name it
    (r"^visual\.(?!proj)", ""),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_OURS = ("head.", "chain.", "network.", "proj1.", "proj2.", "alpha")


def from_tower(state: State, model: DetectorNetwork) -> State:
    """A vision transformer's names, transformers' or OpenAI's or timm's own, as timm's below ``network``."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    towers = _OPENAI if any(name.startswith("visual.") for name in state) else _HUGGING_FACE
    found: State = {}
    for name, tensor in renamed(state, towers, (r"position_ids$", r"mask_token$")).items():
        if name == "visual_projection":  # OpenAI's, which multiplies from the right
            found["chain.0.weight"] = tensor.T
            continue
        if name in ("cls_token", "pos_embed"):
            tensor = tensor.reshape(1, -1, tensor.shape[-1])
        found[name if name.startswith(_OURS) else f"network.{name}"] = tensor
    own_state = model.state_dict()
    for name in [name for name in found if ".attn.q." in name]:
        stem, _, kind = name.rpartition("q.")
        if kind == "bias" and f"{stem}q_bias" in own_state:  # DINOv3's keys have none
            found |= {f"{stem}{each}_bias": found.pop(f"{stem}{each}.bias") for each in "qv"}
        else:
            parts = [found.pop(f"{stem}{each}.{kind}") for each in "qkv"]
            found[f"{stem}qkv.{kind}"] = torch.cat(parts)
    for name in [name for name in found if re.search(r"\.ls[12]\.gamma$", name) and name not in own_state]:
        found[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)] = found.pop(name)
    places, own = found.get("network.pos_embed"), own_state.get("network.pos_embed")
    if (
        places is not None
        and own is not None
        and places.shape != own.shape
        and places.shape[2] == own.shape[2]
    ):
        side = round((own.shape[1] - 1) ** 0.5)
        found["network.pos_embed"] = resample_abs_pos_embed(places, [side, side])
    return found


def fold_chain(state: State, _: DetectorNetwork) -> State:
    """Linear layers one after another, ``chain.0`` first, as the one that they are together."""
    found = {name: tensor for name, tensor in state.items() if not name.startswith("chain.")}
    layers = sorted({int(name.split(".")[1]) for name in state if name.startswith("chain.")})
    if not layers:
        return found
    weight, bias = torch.tensor(0.0), torch.tensor(0.0)
    for number in layers:
        own = state[f"chain.{number}.weight"].double()
        offset = state.get(f"chain.{number}.bias", torch.zeros(len(own))).double()
        first = number == layers[0]
        weight, bias = (own, offset) if first else (own @ weight, own @ bias + offset)
    return found | {"head.weight": weight.float(), "head.bias": bias.float()}


READS: dict[str, Callable[[State, Any], State]] = {
    "keras": from_keras,
    "efficientnet": from_efficientnet_pytorch,
    "mesonet-pytorch": from_mesonet_pytorch,
    "residuals": fold_residuals,
    "clip": from_tower,
    "dinov2": from_tower,
    "dinov3": from_tower,
    "chain": fold_chain,
}


def one_logit(state: State, model: DetectorNetwork, classes: int, positive: str) -> State:
    """The last layer so that it gives one logit, positive for fake: of two classes their difference, whose sigmoid is
    the softmax of the second."""
    last = [
        name
        for name, each in model.named_modules()
        if name.startswith("head") and isinstance(each, nn.Linear)
    ][-1]
    found = dict(state)
    for key in (f"{last}.weight", f"{last}.bias"):
        tensor = found.get(key)
        if tensor is None or not tensor.ndim:
            continue
        if classes == 2:
            if len(tensor) != 2:
                raise UserError(f"its last layer has {len(tensor)} outputs, not 2", hint="name another --as")
            tensor = tensor[1:] - tensor[:1]
        found[key] = -tensor if positive == "real" else tensor
    return found


def check(state: State, model: nn.Module) -> State:
    """The tensors of exactly the model's names and shapes; counters of batch norms are left as they are.

    Raises:
        UserError: one is missing, there is one more, or a shape differs.
    """
    own = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    theirs = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    for what, names in (
        ("lacks", own.keys() - theirs.keys()),
        ("has in addition", theirs.keys() - own.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise UserError(f"it {what} {shown(min(names))}{more}", hint=_HINT)
    for name, tensor in own.items():
        if tensor.shape != theirs[name].shape:
            mine, found = ("×".join(map(str, t.shape)) or "one number" for t in (tensor, theirs[name]))
            raise UserError(f"{name} is {found}, not {mine}", hint=_HINT)
    return theirs


def fill(model: nn.Module, state: State) -> None:
    """Copy the tensors that :func:`check` found into a model."""
    with torch.no_grad():
        model.load_state_dict({**model.state_dict(), **state})
