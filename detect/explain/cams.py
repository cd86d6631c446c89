"""Class activation maps: where the last spatial features speak for fake, and where for real.

Grad-CAM (Selvaraju et al. 2017), Grad-CAM++ (Chattopadhay et al. 2018), HiResCAM (Draelos and Carin 2020), as in
the package grad-cam, less its scaling of every map to [0, 1]: a detector has one logit, so what is negative in the
map of "fake" is Grad-CAM's map of "real" (its ReLU taken away), and is kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.explain.networks import cam_layer, needs


def gradcam(network: nn.Module, images: Tensor) -> Tensor:
    """Feature maps weighted by their mean gradient (eq. 1 and 2), signed: ``[B, 3, H, W]`` to ``[B, H, W]``."""
    return _map("GradCAM", network, images)


def gradcam_plus_plus(network: nn.Module, images: Tensor) -> Tensor:
    """Weighted by where the gradient is positive (eq. 19), so that several places count; not negative."""
    return _map("GradCAMPlusPlus", network, images).clamp_(min=0)


def hirescam(network: nn.Module, images: Tensor) -> Tensor:
    """Features times gradient at each place, signed. Where a linear head follows the average of the last features
    the map is how much each place adds to the logit, up to a constant factor."""
    return _map("HiResCAM", network, images)


def _map(name: str, network: nn.Module, images: Tensor) -> Tensor:
    library: Any = getattr(needs("pytorch_grad_cam", "grad-cam"), name)
    layer = cam_layer(network)
    assert layer is not None
    with library(network, [layer]) as cam, torch.enable_grad():
        recorder = cam.activations_and_grads
        recorder(images.detach().requires_grad_()).sum().backward()
        features, gradients = recorder.activations[0].float().numpy(), recorder.gradients[0].float().numpy()
        found = cam.get_cam_image(images, layer, None, features, gradients, False)
    small = torch.from_numpy(found).to(images.device).float()
    return F.interpolate(small[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
