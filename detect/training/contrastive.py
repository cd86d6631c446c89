"""A loss that draws the features of a class together (Khosla et al. 2020, "Supervised contrastive learning")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.detect.models.base import full_precision

_TEMPERATURE = 0.1  # the paper's


def supervised_contrastive(features: Tensor, labels: Tensor) -> Tensor:
    """Equation 2: every image against all others of the batch, those of its class being its positives.

    Args:
        features: ``[B, F]``, of any length; compared by their cosines.
        labels: ``[B]``, the same number for the images of a class.

    Returns:
        The mean over the images that are not alone in their class, a float32 scalar; 0 where all are.
    """
    with full_precision(features):
        unit = F.normalize(features.float(), dim=1)
        alone = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similar = (unit @ unit.T / _TEMPERATURE).masked_fill(alone, -torch.inf)
        log_share = F.log_softmax(similar, dim=1).masked_fill(alone, 0)
        positive = (labels[:, None] == labels[None]) & ~alone
        count = positive.sum(1)
        losses = -(log_share * positive).sum(1) / count.clamp_min(1)
        return losses.sum() / (count > 0).sum().clamp_min(1)
