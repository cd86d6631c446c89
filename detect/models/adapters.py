"""A frozen vision transformer learns with a few weights added to its attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossfake.errors import MissingDependency, UserError


class ResidualLinear(nn.Linear):
    """A linear layer whose principal part is frozen and whose smallest singular directions are trained (Yan et al.
    2025, "Orthogonal subspace decomposition for generalizable AI-generated image detection", eq. 3; without the
    penalties of its eqs. 5 and 6).

    The output is that of the layer it is made of until something is trained.

    Args:
        layer: what is divided; its parameters are taken over.
        rank: how many singular directions are trained.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make weights that are thrown away
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight.requires_grad_(False), layer.bias
        # As long as nothing was published for the layer: any directions, of no weight
        self.residual_left = nn.Parameter(torch.randn(layer.out_features, rank) / layer.out_features**0.5)
        self.residual_scale = nn.Parameter(torch.zeros(rank))
        self.residual_right = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[…, inputs] -> […, outputs]``."""
        residual = F.linear(inputs, self.residual_right) * self.residual_scale
        return F.linear(inputs, self.weight, self.bias) + F.linear(residual, self.residual_left)

    @torch.no_grad()
    def split(self) -> None:
        """Move the smallest singular directions of the weight into the trained factors."""
        weight, rank = self.weight.double(), len(self.residual_scale)
        wide = self.in_features > self.out_features
        tall = weight.T if wide else weight
        # Eigenvectors of the Gram matrix, smallest first: the sum of both parts is exact whatever their error
        right = torch.linalg.eigh(tall.T @ tall).eigenvectors[:, :rank]
        scaled = tall @ right
        scale = scaled.norm(dim=0)
        left = scaled / scale.clamp_min(torch.finfo(scale.dtype).tiny)
        self.weight.copy_(weight - (right @ scaled.T if wide else scaled @ right.T))
        self.residual_left.copy_(right if wide else left)
        self.residual_right.copy_((left if wide else right).T)
        self.residual_scale.copy_(scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Published weights come whole and are divided here; a bundle's are divided already."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if f"{prefix}weight" in state_dict and f"{prefix}residual_left" not in state_dict:
            self.split()


def add_residuals(network: nn.Module, rank: int, split: bool) -> None:
    """Put a :class:`ResidualLinear` in place of each linear layer of the attention; nothing else is trained.

    Args:
        network: a vision transformer of timm.
        rank: singular directions of each layer that are trained.
        split: the network has published weights already.
    """
    names = attention_layers(network, rank)
    network.requires_grad_(False)
    for name in names:
        layer: Any = network.get_submodule(name)
        divided = ResidualLinear(layer, rank)
        if split:
            divided.split()
        network.set_submodule(name, divided)


def add_lora(network: nn.Module, rank: int) -> None:
    """Low-rank updates of the attention's linear layers (Hu et al. 2022, "LoRA", eq. 3); nothing else is trained.

    Raises:
        MissingDependency: peft is not installed.
    """
    names = attention_layers(network, rank)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependency("peft", extra="lora") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), network)


def attention_layers(network: nn.Module, rank: int) -> list[str]:
    """The names of the linear layers in the attention of timm's vision transformers: CLIP's, DINOv2's.

    Raises:
        UserError: there are none, or the rank is out of reach.
    """
    from timm.layers.attention import Attention

    found: dict[str, nn.Linear] = {
        f"{name}.{part}": layer
        for name, module in network.named_modules()
        if isinstance(module, Attention)
        for part, layer in module.named_children()
        if isinstance(layer, nn.Linear)
    }
    if not found:
        raise UserError(
            "the tower has no attention that lora or effort could tune", hint="leave tune at none"
        )
    most = min(min(layer.in_features, layer.out_features) for layer in found.values())
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= most:
        raise UserError(f"rank cannot be {rank!r}", hint=f"choose a whole number from 1 to {most}")
    return list(found)
