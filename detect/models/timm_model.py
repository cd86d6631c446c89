"""Any image model of timm, by its name."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from crossfake.detect.models.base import (
    MODELS,
    DetectorNetwork,
    Normalise,
    check_choice,
    check_images,
    check_size,
    linear_head,
    split_stages,
    unfit,
)
from crossfake.errors import UserError
from crossfake.registry import unknown
from crossfake.weights import unreachable

# What torch says where a size does not go through an architecture
_UNFIT = ("Kernel size can't be greater", "Output size is too small", "must match the size")


class TimmModel(DetectorNetwork):
    """An architecture of timm exactly as published, but for its classifier, which is one linear layer to one logit.

    The image is seen at its own size. Networks with position embeddings or windows are built for one size.

    Args:
        architecture: ``resnet18``, ``vgg16``, ``convnext_tiny``, ``vit_small_patch16_224``, …
        size: of the images in pixels, where the architecture needs to know; by default the published one.
        head: ``linear``, or ``positive`` for :class:`~crossfake.detect.models.base.PositiveHead`.
        pretrained: load timm's published weights from the hub or its cache.

    Raises:
        UserError: unknown name or head, weights that cannot be had, or a size that does not go.
    """

    def __init__(
        self, architecture: str, *, size: int | None = None, head: str = "linear", pretrained: bool = False
    ) -> None:
        super().__init__()
        check_choice("head", head, ("linear", "positive"))
        if size is not None:
            check_size(size)
        network = timm_network(architecture, size, pretrained)
        published: Any = network.pretrained_cfg
        self.size: int | None = None
        if published.get("fixed_input_size"):
            self.size = size or int(published["input_size"][-1])
            self.options = {"size": self.size}
        self.normalise = Normalise(tuple(published["mean"]), tuple(published["std"]))
        self.network = network
        self.head = linear_head(int(network.head_hidden_size), head)
        if head != "linear":
            self.options["head"] = head
        self._cam_layer: list[nn.Module | None] = []

    def features(self, images: Tensor) -> Tensor:
        if self.size:
            check_images(images, self.size)
        network: Any = self.network
        try:
            maps = network.forward_features(self.normalise(images))
        except RuntimeError as error:
            if any(complaint in str(error) for complaint in _UNFIT):
                raise unfit(images, self.name) from error
            raise
        features: Tensor = network.forward_head(maps, pre_logits=True)
        return features

    @property
    def backbone(self) -> nn.Module:
        return self.network

    @property
    def cam_layer(self) -> nn.Module | None:
        if not self._cam_layer:
            self._cam_layer.append(last_map(self.network, self.size))
        return self._cam_layer[0]

    def stages(self) -> list[list[nn.Parameter]]:
        return [*timm_stages(self.network), list(self.head.parameters())]


def timm_network(architecture: str, size: int | None, pretrained: bool, flexible: bool = False) -> Any:
    """timm's network without its classifier: images in, features ``[B, network.head_hidden_size]`` out.

    Args:
        architecture: its name.
        size: of the images in pixels, where it needs to know.
        pretrained: load timm's published weights.
        flexible: positions are interpolated where images are of other sizes, and those need not be whole patches.

    Raises:
        UserError: unknown name, weights that cannot be had, or a size that does not go.
    """
    import timm

    if not isinstance(architecture, str) or ":" in architecture or not timm.is_model(architecture):
        raise unknown("model", str(architecture), [*MODELS.names(), *timm.list_models()])
    config = timm.get_pretrained_cfg(architecture)
    arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    if size and config and config.fixed_input_size:
        arguments["img_size"] = size
    if flexible and config and config.fixed_input_size:
        arguments["dynamic_img_size"] = True
    if pretrained and config:
        arguments |= _source(architecture, config)
    try:
        network = timm.create_model(architecture, **arguments)
    except TypeError as error:
        if not flexible:
            raise
        raise UserError(
            f"{architecture} takes images of one size only",
            hint="choose a vision transformer or a convolutional network for native pixels",
        ) from error
    except Exception as error:  # hubs raise many kinds of error when there is no network
        if not pretrained:
            if "img_size" not in arguments:
                raise
            raise UserError(
                f"{architecture} cannot be built for images of {size} pixels",
                hint=f"choose another size, such as {config.input_size[-1] if config else 224}",
            ) from error
        wanted = config.hf_hub_id or config.url if config else "the hub"
        raise UserError(
            f"the weights of {architecture} could not be fetched ({type(error).__name__})",
            hint=f"fetch {wanted} elsewhere and name the file with --weights",
        ) from error
    patch = patch_size(network)
    if "img_size" in arguments and size and size % patch and not flexible:
        raise UserError(
            f"{architecture} cuts images into patches of {patch} pixels, and {size} is no multiple of that",
            hint=f"prepare images of {max(1, size // patch) * patch} pixels",
        )
    return network


def patch_size(network: Any) -> int:
    """Side in pixels of the patches that a network cuts images into; 1 where it cuts none."""
    patches: Any = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return patches if isinstance(patches, int) else int(patches[0])


def _source(architecture: str, config: Any) -> dict[str, Any]:
    """How timm gets at the published weights: from the hub's cache without a look at the network, if they are there.

    Raises:
        UserError: they are not, and the hub cannot be reached; its own client would try for a minute.
    """
    if not config.hf_hub_id:
        return {}
    from huggingface_hub import constants, try_to_load_from_cache

    name = (config.hf_hub_filename or "model.safetensors").replace("pytorch_model.bin", "model.safetensors")
    kept = try_to_load_from_cache(config.hf_hub_id, name)
    if isinstance(kept, str):
        return {"pretrained_cfg_overlay": {"file": kept}}
    url = f"{constants.ENDPOINT}/{config.hf_hub_id}/resolve/main/{name}"
    if why := "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(url):
        raise UserError(
            f"the weights of {architecture} could not be fetched: {constants.ENDPOINT} cannot be reached ({why}), and "
            f"they are not in {constants.HF_HUB_CACHE}",
            hint=f"fetch {url} elsewhere and name the file with --weights in place of --pretrained",
        )
    return {}


def timm_stages(network: Any) -> list[list[nn.Parameter]]:
    """The parameters as timm groups them, from stem to last stage."""
    from timm.models import group_parameters

    if not hasattr(network, "group_matcher"):
        return split_stages(network)
    try:
        matcher = network.group_matcher(coarse=True)
    except AssertionError:  # a few architectures know the fine groups only
        matcher = network.group_matcher(coarse=False)
    groups = group_parameters(network, matcher)
    named = dict(network.named_parameters())
    return [[named[name] for name in groups[number]] for number in sorted(groups)]


@torch.no_grad()
def last_map(network: Any, size: int | None) -> nn.Module | None:
    """The module that timm lists as the last one with a map ``[B, C, h, w]``, found by a trial run at the published
    size or the one that the network is for."""
    listed = getattr(network, "feature_info", None)
    try:
        info: Any = listed[-1]  # type: ignore[index]
        module: nn.Module = network.get_submodule(info["module"])
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    training = network.training
    parameter = next(network.parameters())
    side = size or int(network.pretrained_cfg["input_size"][-1])
    try:
        network.eval()
        network.forward_features(
            torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)
        )
    finally:
        handle.remove()
        network.train(training)
    maps = [output for output in seen if isinstance(output, Tensor) and output.ndim == 4]
    return module if maps and maps[-1].shape[1] == info["num_chs"] else None


def published_names(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published checkpoint as timm's own loader would change it for this network: names, position embeddings."""
    change = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if change is None or not hasattr(network, "pretrained_cfg"):
        return state
    try:
        changed: dict[str, Tensor] = change(dict(state), network)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return state  # of another architecture: the count of fitting tensors tells
    return changed
