"""Fréchet Inception Distance (Heusel et al. 2017), with the network of pytorch-fid read from a local file."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pytorch_fid import inception as fid
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, inception_v3

from crossfake.device import Precision, compute_dtype
from crossfake.errors import UserError
from crossfake.synth.quality.moments import Moments

# Feature dimension -> the stages behind the previous one's, in torchvision's names.
STAGES: dict[int, tuple[str, ...]] = {
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    768: (*(f"Mixed_5{x}" for x in "bcd"), *(f"Mixed_6{x}" for x in "abcde")),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |μa - μb|² + tr(Σa + Σb - 2(Σa Σb)^½), never negative.

    With Σa = R Rᵀ, the eigenvalues of Σa Σb are those of the symmetric Rᵀ Σb R: real, quick to compute and
    good for singular covariances, where the general matrix square root is none of these.

    Example:
        >>> a = Moments.of([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> b = Moments(a.n, a.mean + 3.0, a.scatter)
        >>> round(frechet_distance(a, b), 6)
        18.0
    """
    eigenvalues = np.linalg.eigvalsh(a.root.T @ b.covariance @ a.root)
    cross = np.sqrt(eigenvalues.clip(min=0)).sum()
    traces = (np.trace(a.scatter) / (a.n - 1)) + (np.trace(b.scatter) / (b.n - 1))
    return max(0.0, float(((a.mean - b.mean) ** 2).sum() + traces - 2 * cross))


class InceptionFeatures:
    """Spatial means of one stage of the FID network, as pytorch-fid computes them.

    Images are resized to 299×299 (bilinear, no antialiasing) and scaled to [-1, 1]. Only the stages that
    are needed are kept; batch norms are folded into the convolutions.

    Args:
        file: weights in pytorch-fid's layout.
        dims: 64, 192, 768 or 2048.
        device: where it runs.
        precision: ``auto`` is bfloat16 where that is quick, ``fp32`` gives pytorch-fid's own figures.

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
    ) -> None:
        self.dims, self.device = dims, device
        self.dtype = compute_dtype(device, precision)
        network = _load(file)
        whole = list(takewhile(lambda dim: all(_is_whole(getattr(network, n)) for n in STAGES[dim]), STAGES))
        if dims not in whole:
            mend = (
                f"give --dims {whole[-1]}, or the full file with --inception" if whole else "fetch it again"
            )
            raise UserError(f"{file} lacks the layers for dims {dims}", mend=mend)
        kept = [getattr(network, name) for dim in STAGES if dim <= dims for name in STAGES[dim]]
        self.stages = nn.Sequential(*kept).eval().requires_grad_(False)
        _fold_batch_norms(self.stages)
        self.stages.to(device, self.dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> npt.NDArray[np.float32]:
        """uint8 ``[B, 3, H, W]`` -> float32 ``[B, dims]``."""
        x = images.to(self.device).float() / 255
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        x = (2 * x - 1).to(self.dtype, memory_format=torch.channels_last)
        features: npt.NDArray[np.float32] = self.stages(x).float().mean((2, 3)).cpu().numpy()
        return features


def empty_network() -> nn.Module:
    """The whole network as pytorch-fid builds it, but without weights and without memory for them."""
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
        raise UserError(f"{file} is not the FID network of pytorch-fid", mend="fetch it again") from error
    return network


def _is_whole(stage: nn.Module) -> bool:
    """No convolution of all zeros, which stand for layers that a cut-down file left out."""
    return all(bool(m.weight.any()) for m in stage.modules() if isinstance(m, nn.Conv2d))


def _fold_batch_norms(stages: nn.Module) -> None:
    for module in stages.modules():
        if isinstance(module, BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
