"""A small network to train from scratch."""

from __future__ import annotations

from torch import Tensor, nn

from crossfake.detect.models.base import MODELS, DetectorNetwork, Normalise, conv_block, pooled


@MODELS.register("cnn")
class Cnn(DetectorNetwork):
    """Seven 3×3 convolutions, for faces of 32 to 128 pixels. The first two keep the full resolution: that is where
    the traces of up-sampling are. Any size goes, since the last map is averaged."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 32, 64, 64, 128, 128, 256]
        self.normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.network = nn.Sequential(
            *(
                conv_block(inputs, outputs, stride=2 if number in (2, 4, 6) else 1)
                for number, (inputs, outputs) in enumerate(zip([3, *widths[:-1]], widths, strict=True))
            )
        )
        self.pool = pooled()
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], 1))

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.pool(self.network(self.normalise(images)))
        return features

    @property
    def cam_layer(self) -> nn.Module:
        return self.network[-1]
