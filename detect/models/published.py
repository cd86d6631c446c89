"""A backbone of timm as somebody else trained it: their normalisation, their padding, their way to the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.detect.models.base import IMAGENET, MODELS, Normalise, check_choice, full_precision, pooled
from crossfake.detect.models.timm_model import TimmModel
from crossfake.errors import UserError

FORMS = ("plain", "unit", "phase", "shared", "blocks")
_SHARED = (512, 256)  # channels after UCF's adjustment, and of its two halves


@MODELS.register("published")
class Published(TimmModel):
    """Made by ``detect import``.

    Args:
        architecture: timm's name.
        size: of the images in pixels, where the architecture needs to know.
        mean: of each channel, for images in [0, 1].
        std: likewise.
        form: ``plain``. ``unit``: features are scaled to length 1 (GenD). ``phase``: the image that is left of the
            grey values when every frequency has the same strength is a fourth channel (Liu et al. 2021,
            "Spatial-phase shallow learning"). ``shared``: the half of the features that all forgeries share, as a
            small head sees it (Yan et al. 2023, "UCF", sec. 3.2). ``blocks``: of a vision transformer the class tokens
            of all blocks, as the second norm of each leaves them, projected, added up by learnt shares and projected
            again (Koutlis & Papadopoulos 2024, "RINE", sec. 3.2).
        padding: side of the images for which strided convolutions are padded as TensorFlow's SAME is, whatever the
            image's size, as the package efficientnet_pytorch does; 0 pads by the image's own size.
        stem_padding: with ``padding``, whether the first convolution is padded, too.
        pool: what of a vision transformer is the feature: ``token``, ``avg`` or ``map``; by default timm's choice.
        projections: layers of each projection of the form ``blocks``.
        width: their outputs.

    Raises:
        UserError: an option that does not go.
    """

    def __init__(
        self,
        *,
        architecture: str = "resnet18",
        size: int | None = None,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        form: str = "plain",
        padding: int = 0,
        stem_padding: bool = True,
        pool: str = "",
        projections: int = 2,
        width: int = 128,
    ) -> None:
        check_choice("form", form, FORMS)
        super().__init__(architecture, size=size)
        if len(mean) != 3 or len(std) != 3 or not all(each > 0 for each in std):
            raise UserError("mean and std need three numbers each", hint="give one per channel, std above 0")
        self.normalise = Normalise(tuple(map(float, mean)), tuple(map(float, std)))
        self.form = form
        self.options |= {"architecture": architecture, "mean": [*map(float, mean)], "std": [*map(float, std)]}
        self.options |= {"form": form} if form != "plain" else {}
        if pool:
            check_choice("pool", pool, ("token", "avg", "map"))
            self.network.global_pool = pool
            self.options |= {"pool": pool}
        if padding:
            pad_for(self.network, padding, stem_padding)
            self.options |= {"padding": padding, "stem_padding": stem_padding}
        if form == "phase":
            first: Any = self.network.get_submodule("conv1")
            wider = nn.Conv2d(
                4, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
            )
            self.network.set_submodule("conv1", wider)
        elif form == "shared":
            width, half = _SHARED
            self.network.set_submodule("act4", nn.Identity())  # the adjustment sees what is below zero, too
            self.adjust = nn.Sequential(
                nn.Conv2d(int(self.network.num_features), width, 1), nn.BatchNorm2d(width), nn.ReLU()
            )
            self.shared = nn.Sequential(
                nn.Conv2d(width, half, 1),
                nn.LeakyReLU(),
                nn.Conv2d(half, half, 1),
                nn.LeakyReLU(),
                nn.Conv2d(half, half, 1),
                pooled(),
            )
            self.head = nn.Sequential(nn.Linear(half, width), nn.LeakyReLU(), nn.Linear(width, 1))
        elif form == "blocks":
            self._add_projections(projections, width)

    def _add_projections(self, layers: int, width: int) -> None:
        blocks: Any = getattr(self.network, "blocks", None)
        if not blocks or not all(hasattr(blocks[0], part) for part in ("norm1", "attn", "norm2", "ls1")):
            raise UserError(
                f"{self.options['architecture']} has no such blocks", hint="name a vision transformer"
            )
        for name, number in (("projections", layers), ("width", width)):
            if type(number) is not int or not 1 <= number <= 8192:
                raise UserError(f"{name} is {number!r}", hint="give a whole number from 1 to 8,192")
        self.options |= {"projections": layers, "width": width}
        self.proj1 = _projection(int(self.network.embed_dim), width, layers)
        self.alpha = nn.Parameter(torch.zeros(1, len(blocks), width))
        self.proj2 = _projection(width, width, layers)
        hidden = [
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(),
        ]
        self.head = nn.Sequential(*hidden, nn.Linear(width, 1))

    def features(self, images: Tensor) -> Tensor:
        if self.form in ("plain", "unit"):
            features = super().features(images)
            return F.normalize(features.float(), dim=1) if self.form == "unit" else features
        network: Any = self.network
        images = self.normalise(images)
        if self.form == "blocks":
            return self._weighed_tokens(images)
        if self.form == "shared":
            shared: Tensor = self.shared(self.adjust(network.forward_features(images)))
            return shared
        maps = network.forward_features(torch.cat([images, phase_image(images)], dim=1))
        features = network.forward_head(maps, pre_logits=True)
        return features

    def _weighed_tokens(self, images: Tensor) -> Tensor:
        network: Any = self.network
        x = network.norm_pre(network._pos_embed(network.patch_embed(images)))
        tokens = []
        for block in network.blocks:
            x = x + block.ls1(block.attn(block.norm1(x)))
            normed = block.norm2(x)
            tokens.append(normed[:, 0])
            x = x + block.ls2(block.mlp(normed))
        projected = self.proj1(torch.stack(tokens, dim=1).float())
        features: Tensor = self.proj2((self.alpha.softmax(dim=1) * projected).sum(dim=1))
        return features


def _projection(inputs: int, width: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Dropout()]
    for number in range(layers):
        parts += [nn.Linear(width if number else inputs, width), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*parts)


def phase_image(images: Tensor) -> Tensor:
    """What is left of the grey values of images ``[B, C, H, W]`` when every frequency has strength 1: ``[B, 1, H, W]``.

    Of one image it is what the authors compute; of a batch they transform along the batch, too.
    """
    with full_precision(images):
        spectrum = torch.fft.fft2(images.float().mean(dim=1, keepdim=True))
        angle = torch.angle(spectrum)
        return torch.fft.ifft2(torch.polar(torch.ones_like(angle), angle)).real


class FixedPad(nn.Conv2d):
    """A convolution with its padding fixed, more below and to the right where it is odd."""

    def __init__(self, layer: nn.Conv2d, padding: int) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=layer.bias is not None,
            device=layer.weight.device,
        )
        self.sides = (padding // 2, padding - padding // 2) * 2
        with torch.no_grad():
            for own, given in zip(self.parameters(), layer.parameters(), strict=True):
                own.copy_(given)

    def forward(self, images: Tensor) -> Tensor:
        """As a convolution, after padding by fixed numbers of pixels."""
        return super().forward(F.pad(images, self.sides))


def pad_for(network: nn.Module, size: int, stem: bool) -> None:
    """Fix the padding of a network's strided convolutions to what SAME is for images of one size.

    Args:
        network: one of timm's ``tf_efficientnet`` networks.
        size: side of these images.
        stem: whether the first convolution is padded.

    Raises:
        UserError: it has no such convolutions.
    """
    strided = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1]
    if not strided or any(m.kernel_size[0] == 1 for _, m in strided):
        raise UserError("only EfficientNets have a padding to fix", hint="leave padding out")
    for number, (name, layer) in enumerate(strided):
        stride, kernel, smaller = layer.stride[0], layer.kernel_size[0], -(-size // layer.stride[0])
        padding = max(0, (smaller - 1) * stride + kernel - size) if number or stem else 0
        network.set_submodule(name, FixedPad(layer, padding))
        size = smaller
