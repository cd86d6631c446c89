"""A frozen CLIP or DINOv2 tower and a small head (Ojha et al. 2023, "Towards universal fake image detectors")."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.base import (
    MODELS,
    Model,
    Normalise,
    check_choice,
    check_size,
    full_precision,
)
from crossfake.detect.models.timm_model import last_map, timm_network, timm_stages
from crossfake.errors import UserError

# CLIP's own factor from cosines to logits (Radford et al. 2021, sec. 2.5)
_SCALE = 100.0


class NearestHead(nn.Module):
    """How much nearer a unit vector is to its nearest fake than to its nearest real: no parameters, two banks.

    Args:
        reals: size of the bank of reals.
        fakes: size of the bank of fakes.
        width: of the features.
    """

    def __init__(self, reals: int, fakes: int, width: int) -> None:
        super().__init__()
        self.real: Tensor
        self.fake: Tensor
        self.register_buffer("real", torch.zeros(reals, width))
        self.register_buffer("fake", torch.zeros(fakes, width))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[B, 1]``: 100 × (largest cosine to a fake − largest cosine to a real)."""
        if not len(self.real) or not len(self.fake):
            raise UserError(
                "the nearest-neighbour head has nothing to compare with", mend="call fit_bank first"
            )
        with full_precision(features):
            real, fake = (
                (features.float() @ bank.T).amax(1, keepdim=True) for bank in (self.real, self.fake)
            )
            return _SCALE * (fake - real)


@MODELS.register("clip_probe")
class ClipProbe(Model):
    """Images are resized to the tower's size; its class token, before any projection, is what the head sees.

    Args:
        tower: a model of timm: CLIP's, or ``vit_large_patch14_dinov2`` and the like.
        tower_size: pixels that the tower works at; by default what it was trained with.
        head: ``linear``, or ``nearest`` for the distance to a bank of training images, set by :meth:`fit_bank`.
        tune: ``none`` keeps the tower as it is; ``layernorm`` trains the affine part of its layer normalisations.
        bank: reals and fakes in the bank, set by :meth:`fit_bank`.
        pretrained: fetch the tower's published weights. Without any the tower is random.

    Raises:
        UserError: an option that does not go, or weights that cannot be had.
    """

    def __init__(
        self,
        *,
        tower: str = "vit_large_patch14_clip_224.openai",
        tower_size: int | None = None,
        head: str = "linear",
        tune: str = "none",
        bank: tuple[int, int] = (0, 0),
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_choice("head", head, ("linear", "nearest"))
        check_choice("tune", tune, ("none", "layernorm"))
        if head == "nearest" and tune != "none":
            raise UserError("the nearest-neighbour head has nothing to tune", mend="leave tune at none")
        network = timm_network(tower, None if tower_size is None else check_size(tower_size), pretrained)
        published: Any = network.pretrained_cfg
        self.size = tower_size or int(published["input_size"][-1])
        self.options = {"tower": tower, "tower_size": self.size, "head": head, "tune": tune}
        self.normalise = Normalise(tuple(published["mean"]), tuple(published["std"]))
        self.tower = network.requires_grad_(False).eval()
        self.width = int(network.head_hidden_size)
        self.nearest = head == "nearest"
        self.head = nn.Linear(self.width, 1)
        if self.nearest:
            self._set_bank(*(int(count) for count in bank))
        if tune == "layernorm":
            norms = [module for module in self.tower.modules() if isinstance(module, nn.LayerNorm)]
            if not norms:
                raise UserError(f"{tower} has no layer normalisation to tune", mend="leave tune at none")
            for norm in norms:
                norm.requires_grad_(True)
        self._tuned = [name for name, p in self.tower.named_parameters() if p.requires_grad]

    def features(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(
                images.float(), (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        network: Any = self.tower
        features: Tensor = network.forward_head(
            network.forward_features(self.normalise(images)), pre_logits=True
        )
        return F.normalize(features.float(), dim=1) if self.nearest else features

    @torch.no_grad()
    def fit_bank(self, features: Tensor, labels: Tensor) -> None:
        """Remember training images for the nearest-neighbour head.

        Args:
            features: of training images, ``[N, F]``, as :meth:`features` returns them.
            labels: ``[N]``, 1 for fakes.

        Raises:
            UserError: the head is another, or a class is missing.
        """
        if not self.nearest:
            raise UserError(
                "a linear head keeps no bank", mend="build the model with options={'head': 'nearest'}"
            )
        fakes = labels.bool()
        if features.shape != (len(labels), self.width) or fakes.all() or not fakes.any():
            raise UserError(
                f"a bank needs features [N, {self.width}] of reals and of fakes", mend="give it both kinds"
            )
        unit = F.normalize(features.float(), dim=1)
        self._set_bank(int((~fakes).sum()), int(fakes.sum()))
        self.head.get_buffer("real").copy_(unit[~fakes])
        self.head.get_buffer("fake").copy_(unit[fakes])

    def _set_bank(self, reals: int, fakes: int) -> None:
        device = next(self.tower.parameters()).device
        self.head = NearestHead(reals, fakes, self.width).to(device)
        self.options["bank"] = [reals, fakes]

    def train(self, mode: bool = True) -> ClipProbe:
        super().train(mode)
        self.tower.eval()
        return self

    @property
    def backbone(self) -> nn.Module:
        return self.tower

    @property
    def cam_layer(self) -> nn.Module | None:
        return last_map(self.tower, self.size)

    def stages(self) -> list[list[nn.Parameter]]:
        named = dict(self.tower.named_parameters())
        tuned = {id(named[name]) for name in self._tuned}
        towers = [[p for p in stage if id(p) in tuned] for stage in timm_stages(self.tower)]
        return [*filter(None, towers), *filter(None, [list(self.head.parameters())])]
