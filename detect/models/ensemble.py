"""Several trained detectors as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crossfake.detect.models.base import MODELS, DetectorNetwork
from crossfake.errors import UserError


class WeightedSum(nn.Module):
    """Fixed weights on the first columns of the features, and a bias: ``[B, F]`` to ``[B, 1]``."""

    def __init__(self, weights: Sequence[float], bias: float) -> None:
        super().__init__()
        self.bias = bias
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32)[:, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        members: Tensor = (features[:, : len(self.weights)].float().T * self.weights).sum(0)
        return members[:, None] + self.bias


@MODELS.register("ensemble")
class Ensemble(DetectorNetwork):
    """Weighted sum of the members' logits, each divided by its temperature. Made by ``detect ensemble``; not trained.

    The features are the members' scaled logits, then the members' own features one after the other.

    Args:
        members: what each is built from: ``model``, ``options`` and ``temperature``.
        weights: one per member; by default the mean.
        bias: added to the sum.

    Raises:
        UserError: no members, or as many weights as there are not members.
    """

    def __init__(
        self,
        *,
        members: Sequence[Mapping[str, Any]] = (),
        weights: Sequence[float] | None = None,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        from crossfake.detect.models.factory import create_model

        if not members:
            raise UserError("an ensemble needs members", hint="make one with 'detect ensemble BUNDLE BUNDLE'")
        weights = [1 / len(members)] * len(members) if weights is None else [float(w) for w in weights]
        self.temperatures = [float(member.get("temperature", 1.0)) for member in members]
        if len(weights) != len(members) or not all(map(math.isfinite, [*weights, float(bias)])):
            raise UserError(
                f"an ensemble of {len(members)} cannot have the weights {weights}", hint="give one per member"
            )
        if not all(0 < temperature < math.inf for temperature in self.temperatures):
            raise UserError("a temperature must be positive", hint="calibrate the members again")
        self.members = nn.ModuleList(
            create_model(member["model"], options=member.get("options") or {}) for member in members
        )
        self.head = WeightedSum(weights, float(bias))
        self.options = {
            "members": [dict(member) for member in members],
            "weights": weights,
            "bias": float(bias),
        }
        self.requires_grad_(False)
        self.train(False)

    def features(self, images: Tensor) -> Tensor:
        logits, features = [], []
        for member, temperature in zip(self.members, self.temperatures, strict=True):
            own: Tensor = member.features(images)  # type: ignore[operator]
            logit: Tensor = member.logits(own)  # type: ignore[operator]
            logits.append(logit[:, None] / temperature)
            features.append(own.float())
        return torch.cat([*logits, *features], dim=1)

    def train(self, mode: bool = True) -> Ensemble:
        super().train(mode)
        for member in self.members:
            member.eval()
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        return []
