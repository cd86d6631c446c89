"""The registry of explanations, and maps from any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crossfake.datasets.types import Pixels
from crossfake.detect.explain.cams import gradcam, gradcam_plus_plus, hirescam
from crossfake.detect.explain.networks import as_it_is, home, is_differentiable, is_spatial
from crossfake.detect.explain.pixels import integrated_gradients, occlusion
from crossfake.detect.explain.prototypes import Prototypes
from crossfake.detect.explain.rollout import rollout, transformer
from crossfake.detect.explain.spectrum import Spectra
from crossfake.errors import UserError
from crossfake.registry import Registry

Maps = npt.NDArray[np.float32]  # [N, H, W]
Kind = Literal["signed", "positive", "attention", "picture"]
_BATCH = 16


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        kind: what a map's numbers mean: ``signed`` (above 0 speaks for fake, below 0 for real), ``positive`` (only
            what speaks for fake), ``attention`` (what was looked at); or ``picture``, which has no map.
        needs: what a network must have for it, in words.
        fits: whether a network that takes images of that size has it.
        maps: float ``[B, 3, H, W]`` in [0, 1] to float32 ``[B, H, W]``.
        reference: of a picture: what it is compared with, made once from a detector and shards.
    """

    kind: Kind
    needs: str
    fits: Callable[[nn.Module, int], bool]
    maps: Callable[[nn.Module, Tensor], Tensor] | None = None
    reference: Callable[[Any, Any], Any] | None = None


METHODS: Registry[Method] = Registry("method")


def _always(network: nn.Module, size: int) -> bool:
    return True


_SPATIAL = "a last spatial feature map"
METHODS.register("gradcam")(Method("signed", _SPATIAL, is_spatial, gradcam))
METHODS.register("gradcam++")(Method("positive", _SPATIAL, is_spatial, gradcam_plus_plus))
METHODS.register("hirescam")(Method("signed", _SPATIAL, is_spatial, hirescam))
METHODS.register("integrated-gradients")(
    Method("signed", "a gradient down to the pixels", is_differentiable, integrated_gradients)
)
METHODS.register("occlusion")(Method("signed", "nothing", _always, occlusion))
METHODS.register("rollout")(
    Method(
        "attention",
        "the attention of a plain ViT",
        lambda network, _: transformer(network) is not None,
        rollout,
    )
)
METHODS.register("spectrum")(Method("picture", "nothing", _always, reference=Spectra.of))
METHODS.register("prototypes")(
    Method("picture", "features", lambda network, _: hasattr(network, "features"), reference=Prototypes.of)
)


def usable(network: nn.Module, size: int, maps_only: bool = False) -> list[str]:
    """Names of the methods that work for a network."""
    return [
        name
        for name in METHODS.names()
        if (METHODS.get(name).maps or not maps_only) and METHODS.get(name).fits(network, size)
    ]


def pick(network: nn.Module, size: int, name: str = "auto") -> str:
    """The method of that name; ``auto`` is gradcam where there is a spatial map, rollout for a ViT, else integrated
    gradients, and occlusion where there is no gradient either.

    Raises:
        UserError: there is no such method, or it does not work for this network.
    """
    if name == "auto":
        order = ("gradcam", "rollout", "integrated-gradients", "occlusion")
        return next(each for each in order if METHODS.get(each).fits(network, size))
    method = METHODS.get(name)
    if not method.fits(network, size):
        raise UserError(
            f"{name} needs {method.needs}, which this model has not",
            hint=f"choose one of {', '.join(usable(network, size))}",
        )
    return name


def attribute(network: nn.Module, images: Pixels, name: str = "auto") -> Maps:
    """Maps of images: what in them speaks for fake.

    Args:
        network: float ``[B, 3, H, W]`` in [0, 1] to logits ``[B]``.
        images: uint8 ``[N, H, W, 3]``.
        name: of a method that makes maps.

    Returns:
        float32 ``[N, H, W]``, in whatever unit the method has.

    Raises:
        UserError: no such method, it makes no map, or does not work for this network.
        MissingDependency: it comes with a package that is not installed.
    """
    method = METHODS.get(pick(network, images.shape[1], name))
    if method.maps is None:
        raise UserError(
            f"{name} makes a picture, not a map",
            hint=f"choose one of {', '.join(usable(network, images.shape[1], maps_only=True))}",
        )
    found = [np.empty((0, *images.shape[1:3]), np.float32)]
    with as_it_is(network):
        for start in range(0, len(images), _BATCH):
            batch = torch.tensor(images[start : start + _BATCH]).to(home(network))
            maps = method.maps(network, batch.permute(0, 3, 1, 2).float().div_(255))
            found.append(maps.detach().float().cpu().numpy())
    return np.concatenate(found)
