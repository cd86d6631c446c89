"""Explanations of a detector of native pixels: maps over the whole face from maps of its windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from crossfake.datasets.types import Pixels
from crossfake.detect.explain.methods import attribute
from crossfake.detect.view import View

Map = npt.NDArray[np.float32]  # [H, W]
_ALONG = 9  # half-overlapping windows along a side; of a larger image they overlap less
_MOST = 17  # windows along a side, so that a picture of any size takes no longer than 289
_AT_ONCE = 64


def maps_of(network: nn.Module, view: View, images: Sequence[Pixels], name: str = "auto") -> list[Map]:
    """A map over the whole of each image: what in it speaks for fake.

    Of a native view it is the mean, pixel by pixel, of the maps of windows on a dense grid. So one image's map shows
    what windows say wherever they lie, not only the few that a verdict averages. Between the windows of an image of
    more than 17 windows across, which do not touch, it is 0.

    Args:
        network: float ``[B, 3, S, S]`` in [0, 1] to logits ``[B]``.
        view: what it sees of an image.
        images: uint8 ``[S, S, 3]`` each, of a native view ``[H, W, 3]``; of a view of whole images what its network
            sees (:func:`middle`).
        name: of a method that makes maps.

    Returns:
        float32 ``[H, W]`` each.

    Raises:
        UserError: as :func:`~crossfake.detect.explain.methods.attribute`, or an image is smaller than a window.
    """
    if view.whole:
        return [attribute(network, image[None], name)[0] for image in images]
    if not view.native:
        return list(attribute(network, np.stack(images), name)) if len(images) else []
    return [_whole(network, view, image, name) for image in images]


def _whole(network: nn.Module, view: View, image: Pixels, name: str) -> Map:
    size = view.window
    along = max(image.shape[:2]) / size
    side = min(_MOST, max(math.ceil(along), min(_ALONG, math.ceil(2 * along) - 1)) | 1)
    corners = view.places(image.shape, side**2)
    total, count = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for start in range(0, len(corners), _AT_ONCE):
        some = corners[start : start + _AT_ONCE]
        windows = np.stack([image[y : y + size, x : x + size] for y, x in some])
        for (y, x), chart in zip(some, attribute(network, windows, name), strict=True):
            total[y : y + size, x : x + size] += chart
            count[y : y + size, x : x + size] += 1
    return np.asarray(total / np.maximum(count, 1), np.float32)


def middle(view: View, image: Pixels) -> Pixels:
    """The middle window of a native view, elsewhere the whole image as the network sees it: ``[S, S, 3]``, or of any
    size where a published detector takes that."""
    return view.cut([image], 1).images[0] if view.native else image
