"""Networks whose features are compared: the Inception of FID, and any image model of timm. All from local files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crossfake.device import compute_dtype, pick_device
from crossfake.errors import UserError
from crossfake.options import Precision

_INCEPTION_SIDE = 299
# Feature dimension -> the stages behind the previous one's, in torchvision's names.
STAGES: dict[int, tuple[str, ...]] = {
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    768: (*(f"Mixed_5{x}" for x in "bcd"), *(f"Mixed_6{x}" for x in "abcde")),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


def _tf(x: Tensor, side: int) -> Tensor:
    """Bilinear, with the first pixels on one another, as TensorFlow 1 and so the first FID did."""
    height, width = x.shape[2:]
    rows, columns = (torch.arange(side, device=x.device) * (n / side) for n in (height, width))
    grid = torch.stack(
        torch.meshgrid(2 * rows / max(height - 1, 1) - 1, 2 * columns / max(width - 1, 1) - 1, indexing="ij"),
        dim=2,
    ).flip(2)
    return F.grid_sample(
        x, grid.expand(len(x), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )


def _clean(x: Tensor, side: int) -> Tensor:
    """Bicubic with antialiasing in float, as PIL does it (Parmar et al. 2022, "On aliased resizing")."""
    return F.interpolate(x, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 255
    )


def _torch(x: Tensor, side: int) -> Tensor:
    """Bilinear, pixel centres on one another, without antialiasing: pytorch-fid's."""
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {"torch": _torch, "tf": _tf, "clean": _clean}


def resized(images: Tensor, side: int, resize: str) -> Tensor:
    """uint8 ``[B, 3, H, W]`` -> float32 ``[B, 3, side, side]``, still 0 to 255.

    Raises:
        UserError: there is no such resize.

    Example:
        >>> resized(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8), 16, "clean").unique().tolist()
        [7.0]
    """
    if resize not in RESIZES:
        raise UserError(f"there is no resize {resize!r}", hint=f"use {', '.join(RESIZES)}")
    return RESIZES[resize](images.float(), side)


class InceptionFeatures:
    """Spatial means of one stage of the FID network, as pytorch-fid computes them.

    Images are resized to 299×299 and scaled to [-1, 1]. Only the stages that are needed are kept; batch norms are
    folded into the convolutions.

    Args:
        file: weights in pytorch-fid's layout.
        dims: 64, 192, 768 or 2048.
        device: where it runs.
        precision: ``auto`` is bfloat16 where that is quick, ``fp32`` gives pytorch-fid's own figures.
        resize: a name in :data:`RESIZES`; pytorch-fid's is ``torch``.

    Raises:
        UserError: the file is no such network, or its layers for ``dims`` are missing (all zero).

    Example:
        >>> features = InceptionFeatures(file, 2048, torch.device("cpu"))  # doctest: +SKIP
        >>> features(torch.zeros(4, 3, 64, 64, dtype=torch.uint8)).shape  # doctest: +SKIP
        (4, 2048)
    """

    def __init__(
        self,
        file: Path,
        dims: int,
        device: torch.device,
        precision: Precision = "auto",
        resize: str = "torch",
    ) -> None:
        self.dims, self.device, self.resize = dims, device, resize
        self.dtype = compute_dtype(device, precision)
        network = _load(file)
        whole = list(takewhile(lambda dim: all(_is_whole(getattr(network, n)) for n in STAGES[dim]), STAGES))
        if dims not in whole:
            hint = (
                f"give --dims {whole[-1]}, or the full file with --inception" if whole else "fetch it again"
            )
            raise UserError(f"{file} lacks the layers for dims {dims}", hint=hint)
        kept = [getattr(network, name) for dim in STAGES if dim <= dims for name in STAGES[dim]]
        self.stages = nn.Sequential(*kept).eval().requires_grad_(False)
        _fold_batch_norms(self.stages)
        self.stages.to(device, self.dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> npt.NDArray[np.float32]:
        """uint8 ``[B, 3, H, W]`` -> float32 ``[B, dims]``."""
        x = resized(images.to(self.device), _INCEPTION_SIDE, self.resize) / 127.5 - 1
        x = x.to(self.dtype, memory_format=torch.channels_last)
        features: npt.NDArray[np.float32] = self.stages(x).float().mean((2, 3)).cpu().numpy()
        return features


def empty_network() -> nn.Module:
    """The whole network as pytorch-fid builds it, but without weights and without memory for them."""
    from pytorch_fid import inception as fid
    from torchvision.models.inception import inception_v3

    with torch.device("meta"):
        network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
        for name, block, *arguments in (
            ("Mixed_5b", fid.FIDInceptionA, 192, 32),
            ("Mixed_5c", fid.FIDInceptionA, 256, 64),
            ("Mixed_5d", fid.FIDInceptionA, 288, 64),
            ("Mixed_6b", fid.FIDInceptionC, 768, 128),
            ("Mixed_6c", fid.FIDInceptionC, 768, 160),
            ("Mixed_6d", fid.FIDInceptionC, 768, 160),
            ("Mixed_6e", fid.FIDInceptionC, 768, 192),
            ("Mixed_7b", fid.FIDInceptionE_1, 1280),
            ("Mixed_7c", fid.FIDInceptionE_2, 2048),
        ):
            setattr(network, name, block(*arguments))
    return network


def _load(file: Path) -> nn.Module:
    network = empty_network()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # a wrong or cut file fails in many ways, and no other code runs here
        raise UserError(f"{file} is not the FID network of pytorch-fid", hint="fetch it again") from error
    return network


def _is_whole(stage: nn.Module) -> bool:
    """No convolution of all zeros, which stand for layers that a cut-down file left out."""
    return all(bool(m.weight.any()) for m in stage.modules() if isinstance(m, nn.Conv2d))


def _fold_batch_norms(stages: nn.Module) -> None:
    from torchvision.models.inception import BasicConv2d

    for module in stages.modules():
        if isinstance(module, BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()


class TimmFeatures:
    """Pooled features of an image model of timm, such as DINOv2's or CLIP's tower, from a local file.

    Images are resized to what the model takes and normalised as its card says.

    Args:
        name: of timm's: ``vit_small_patch14_dinov2``, ``vit_base_patch16_clip_224``, …
        file: its weights (safetensors, or a ``.pth`` without code in it).
        device: where it runs.
        precision: ``auto`` is bfloat16 where that is quick.
        resize: a name in :data:`RESIZES`.

    Raises:
        UserError: timm knows no such model, or the file holds another.

    Example:
        >>> features = TimmFeatures("resnet18", file, torch.device("cpu"))  # doctest: +SKIP
        >>> features(torch.zeros(4, 3, 64, 64, dtype=torch.uint8)).shape  # doctest: +SKIP
        (4, 512)
    """

    def __init__(
        self,
        name: str,
        file: Path,
        device: torch.device,
        precision: Precision = "auto",
        resize: str = "clean",
    ) -> None:
        import timm

        self.device, self.resize, self.dtype = device, resize, compute_dtype(device, precision)
        try:
            if ":" in name:  # timm would fetch it
                raise RuntimeError
            network: Any = timm.create_model(name, num_classes=0)
        except RuntimeError as error:
            raise UserError(
                f"timm knows no model {name!r}", hint="look it up with timm.list_models()"
            ) from error
        _load_timm(network, name, file)
        facts = network.pretrained_cfg
        self.side = int(facts["input_size"][-1])
        mean, deviation = (torch.tensor(facts[key]).reshape(1, 3, 1, 1) * 255 for key in ("mean", "std"))
        self._mean, self._deviation = mean.to(device), deviation.to(device)
        self.network = network.eval().requires_grad_(False).to(device, self.dtype)
        self.network.to(memory_format=torch.channels_last)
        self.dims = int(network.num_features)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> npt.NDArray[np.float32]:
        """uint8 ``[B, 3, H, W]`` -> float32 ``[B, dims]``."""
        x = (resized(images.to(self.device), self.side, self.resize) - self._mean) / self._deviation
        features = self.network(x.to(self.dtype, memory_format=torch.channels_last))
        found: npt.NDArray[np.float32] = features.float().cpu().numpy()
        return found


def open_features(
    kind: str, file: Path, dims: int, device: str, precision: Precision, resize: str
) -> InceptionFeatures | TimmFeatures:
    """The network ``inception``, with features of ``dims``, or ``timm:NAME``, from its file.

    Raises:
        UserError: the file is of something else, or there is no such device.
    """
    target = pick_device(device)
    if kind == "inception":
        return InceptionFeatures(file, dims, target, precision, resize)
    return TimmFeatures(kind.removeprefix("timm:"), file, target, precision, resize)


def _load_timm(network: nn.Module, name: str, file: Path) -> None:
    """Weights of the trunk; those of a head are left out."""
    from timm.models import load_state_dict

    try:
        weights = load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # a wrong or cut file fails in many ways, and no other code runs here
        raise UserError(f"{file} holds no weights", hint="fetch it again") from error
    wanted = network.state_dict()
    if missing := [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]:
        raise UserError(f"{file} is not the {name} of timm: it lacks {missing[0]}", hint="name its own file")
    network.load_state_dict({key: weights[key] for key in wanted})
