"""SqueezeNet 1.1, which timm lacks (Iandola et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from crossfake.detect.models.base import IMAGENET, MODELS, DetectorNetwork, Normalise, pooled, unfit
from crossfake.errors import UserError

_SMALLEST = 17


@MODELS.register("squeezenet")
class SqueezeNet(DetectorNetwork):
    """torchvision's ``squeezenet1_1`` with one linear layer as its classifier; small, fast, often found as a file.

    Args:
        pretrained: fetch torchvision's ImageNet weights.

    Raises:
        UserError: they could not be fetched.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

        published = SqueezeNet1_1_Weights.IMAGENET1K_V1
        try:
            network = squeezenet1_1(weights=published if pretrained else None)
        except OSError as error:
            raise UserError(
                f"the weights of squeezenet could not be fetched ({type(error).__name__})",
                hint=f"fetch {published.url} elsewhere and name the file with --weights",
            ) from error
        # Its own classifier is a convolution to 1,000 classes
        network.classifier = nn.Identity()
        self.normalise = Normalise(*IMAGENET)
        self.network = network
        self.pool = pooled()
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 1))

    def features(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < _SMALLEST:
            raise unfit(images, self.name)
        features: Tensor = self.pool(self.network.features(self.normalise(images)))
        return features

    @property
    def backbone(self) -> nn.Module:
        return self.network

    @property
    def cam_layer(self) -> nn.Module:
        return self.network.features[-1]

    def stages(self) -> list[list[nn.Parameter]]:
        layers = [list(layer.parameters()) for layer in self.network.features]
        return [*filter(None, layers), list(self.head.parameters())]
