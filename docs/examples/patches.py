"""A detector of one's own: small patches are judged one by one, and the strangest decide (after Chai et al. 2020)."""

import torch
from torch import Tensor, nn

from crossfake.cli import main
from crossfake.detect.models.base import MODELS, DetectorNetwork, Normalise, conv_block


@MODELS.register("patches")
class Patches(DetectorNetwork):
    """Four convolutions that see 11×11 pixels; each feature is the mean of its largest values.

    Args:
        share: of the patches that decide, above 0 and at most 1.
    """

    def __init__(self, *, share: float = 0.1) -> None:
        super().__init__()
        self.options = {"share": share}
        self.share = share
        self.normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.network = nn.Sequential(
            conv_block(3, 32), conv_block(32, 32), conv_block(32, 64, stride=2), conv_block(64, 64)
        )
        self.head = nn.Linear(64, 1)

    def features(self, images: Tensor) -> Tensor:
        """``[B, 64]`` of float images ``[B, 3, H, W]`` in [0, 1]."""
        maps = self.network(self.normalise(images)).flatten(2)
        most: int = max(1, round(self.share * maps.shape[2]))
        return torch.topk(maps, most, dim=2).values.mean(dim=2)

    @property
    def cam_layer(self) -> nn.Module:
        return self.network[-1]


if __name__ == "__main__":
    main()
