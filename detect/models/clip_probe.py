"""A CLIP or DINOv2 tower, frozen but for a few weights, and a small head (Ojha et al. 2023, "Towards universal fake
image detectors")."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.adapters import add_lora, add_residuals
from crossfake.detect.models.base import (
    MODELS,
    DetectorNetwork,
    Normalise,
    check_choice,
    check_size,
    full_precision,
    linear_head,
    unfit,
)
from crossfake.detect.models.timm_model import last_map, patch_size, timm_network, timm_stages
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
                "the nearest-neighbour head has nothing to compare with", hint="call fit_bank first"
            )
        with full_precision(features):
            real, fake = (
                (features.float() @ bank.T).amax(1, keepdim=True) for bank in (self.real, self.fake)
            )
            return _SCALE * (fake - real)


@MODELS.register("clip_probe")
class ClipProbe(DetectorNetwork):
    """The tower's class token, before any projection, is what the head sees.

    Args:
        tower: a model of timm: CLIP's, or ``vit_large_patch14_dinov2`` and the like.
        tower_size: pixels that aligned images are resized to; by default what the tower was trained with.
        size: of native windows in pixels; windows of other sizes go, too.
        pixels: ``aligned`` images are resized to the tower's size. ``native`` windows are never resampled: what is
            beyond whole patches is cut off, half on each side, and the tower's positions are interpolated.
        head: ``linear``, ``positive`` for :class:`~crossfake.detect.models.base.PositiveHead`, or ``nearest`` for the
            distance to a bank of training images, set by :meth:`fit_bank`.
        tune: ``none`` keeps the tower as it is; ``layernorm`` trains the affine part of its layer normalisations,
            ``lora`` low-rank updates of its attention and ``effort`` the smallest singular directions of that.
        rank: of ``lora``, or the directions of ``effort``.
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
        size: int | None = None,
        pixels: str = "aligned",
        head: str = "linear",
        tune: str = "none",
        rank: int = 8,
        bank: tuple[int, int] = (0, 0),
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_choice("pixels", pixels, ("aligned", "native"))
        check_choice("head", head, ("linear", "positive", "nearest"))
        check_choice("tune", tune, ("none", "layernorm", "lora", "effort"))
        if head == "nearest" and tune != "none":
            raise UserError("the nearest-neighbour head has nothing to tune", hint="leave tune at none")
        self.native = pixels == "native"
        if self.native and tower_size is not None:
            raise UserError("native windows are never resized", hint="leave tower_size out")
        asked = size if self.native else tower_size
        network = timm_network(tower, None if asked is None else check_size(asked), pretrained, self.native)
        published: Any = network.pretrained_cfg
        self.size = asked or int(published["input_size"][-1])
        self.patch = patch_size(network)
        own: dict[str, Any] = (
            {"size": self.size, "pixels": pixels} if self.native else {"tower_size": self.size}
        )
        self.options = {"tower": tower, **own, "head": head, "tune": tune}
        self.normalise = Normalise(tuple(published["mean"]), tuple(published["std"]))
        self.tower = network.requires_grad_(False).eval()
        self.width = int(network.head_hidden_size)
        self.nearest = head == "nearest"
        self.head = linear_head(self.width, head)
        if self.nearest:
            self._set_bank(*(int(count) for count in bank))
        if tune == "layernorm":
            norms = [module for module in self.tower.modules() if isinstance(module, nn.LayerNorm)]
            if not norms:
                raise UserError(f"{tower} has no layer normalisation to tune", hint="leave tune at none")
            for norm in norms:
                norm.requires_grad_(True)
        elif tune in ("lora", "effort"):
            self.options["rank"] = rank
            add_lora(self.tower, rank) if tune == "lora" else add_residuals(self.tower, rank, pretrained)
        self._tuned = [name for name, p in self.tower.named_parameters() if p.requires_grad]

    def features(self, images: Tensor) -> Tensor:
        if self.native:
            images = whole_patches(images, self.patch, self.name)
        elif images.shape[-2:] != (self.size, self.size):
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
                "a linear head keeps no bank", hint="build the model with options={'head': 'nearest'}"
            )
        fakes = labels.bool()
        if features.shape != (len(labels), self.width) or fakes.all() or not fakes.any():
            raise UserError(
                f"a bank needs features [N, {self.width}] of reals and of fakes", hint="give it both kinds"
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


def whole_patches(images: Tensor, patch: int, name: str) -> Tensor:
    """The middle of images ``[B, 3, H, W]`` whose sides are multiples of ``patch``.

    Raises:
        UserError: they are smaller than one patch.
    """
    height, width = (side // patch * patch for side in images.shape[-2:])
    if not height or not width:
        raise unfit(images, name)
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
