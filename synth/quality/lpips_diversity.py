"""Diversity as the mean LPIPS distance between random pairs (Zhang et al. 2018; used so by Zhu et al. 2017).

The perceptual weights come with the package ``lpips``; the network under them is torchvision's and is read
from a local file, never downloaded.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from crossfake.errors import UserError
from crossfake.synth.quality.moments import Measurement

SMALLEST = 64  # the patch size that LPIPS was fitted to; smaller images are enlarged to it


class Lpips:
    """LPIPS v0.1 between images.

    Args:
        net: ``alex``, ``vgg`` or ``squeeze``.
        trunk: weights of torchvision's ``alexnet``, ``vgg16`` or ``squeezenet1_1``.
        device: where it runs.

    Raises:
        UserError: the file holds other weights.

    Example:
        >>> distance = Lpips("alex", Path("alexnet-owt-7be5be79.pth"), torch.device("cpu"))  # doctest: +SKIP
        >>> distance(images[:8], images[8:]).shape  # doctest: +SKIP
        torch.Size([8])
    """

    def __init__(self, net: str, trunk: Path, device: torch.device) -> None:
        import lpips

        with warnings.catch_warnings():  # torchvision's, about arguments that lpips passes
            warnings.simplefilter("ignore")
            self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        try:
            weights = torch.load(trunk, map_location="cpu", weights_only=True)
            for part in self.model.net.children():
                for index, layer in part.named_children():
                    start = f"features.{index}."
                    own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
                    layer.load_state_dict(own)
        except Exception as error:  # a wrong or cut file fails in many ways, and no other code runs here
            raise UserError(
                f"{trunk} does not hold the network of LPIPS {net}", hint="see --lpips-net"
            ) from error
        self.model.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """uint8 ``[B, 3, H, W]`` twice -> float32 ``[B]``, 0 for identical images."""
        x, y = (self._scaled(images) for images in (a, b))
        distances: Tensor = self.model(x, y, normalize=True)
        return distances.flatten().cpu()

    def _scaled(self, images: Tensor) -> Tensor:
        x = images.to(self.device).float() / 255
        if x.shape[-1] < SMALLEST:
            x = F.interpolate(x, size=(SMALLEST, SMALLEST), mode="bilinear", align_corners=False)
        return x


def lpips_diversity(
    distance: Callable[[Tensor, Tensor], Tensor], batches: Iterable[Tensor]
) -> tuple[Measurement, int]:
    """Mean distance of consecutive images, two by two, and the number of pairs.

    With images in random order these are random pairs, and as none is used twice they are independent:
    the standard error is the plain one. A single image left over is not used.
    """
    each = torch.cat([distance(b[0 : len(b) // 2 * 2 : 2], b[1::2]) for b in batches if len(b) > 1]).double()
    error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None
    return Measurement(float(each.mean()), error, None), len(each)
