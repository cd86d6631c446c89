"""One score for what belongs together: the images of a person or source photo, the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

QUANTILE = 0.9
POOLINGS = ("mean", "max", "quantile")
_FRAME = "#frame="  # how the origin of a video's frame goes on after the video's name


@dataclass(frozen=True)
class Pooled:
    """Images of one label gathered into units.

    Attributes:
        unit: ``[N]``, number of the unit that each image went to.
        first: ``[U]``, an image of each unit, whose columns stand for the unit.
        count: ``[U]``, images in each unit.
        scores: ``[U]`` per pooling: the mean, the highest, and the 0.9 quantile of the unit's scores (linear between
            two scores, as ``numpy.quantile``).
    """

    unit: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    scores: dict[str, npt.NDArray[np.float64]]


def pool(scores: npt.ArrayLike, keys: Sequence[npt.ArrayLike]) -> Pooled:
    """Pool scores over the images that agree in all keys.

    Args:
        scores: ``[N]``.
        keys: each ``[N]``, any type that sorts: for example group, label and generator, since a photo and the fakes
            made from it share a group but are not one case.

    Example:
        >>> pool([0.1, 0.9, 0.4], [["a", "b", "a"]]).scores["max"].tolist()
        [0.4, 0.9]
    """
    values = np.asarray(scores, dtype=np.float64)
    unit = np.zeros(len(values), np.int64)
    for key in keys:
        names, codes = np.unique(np.asarray(key), return_inverse=True)
        unit = np.unique(unit * len(names) + codes, return_inverse=True)[1]
    order = np.lexsort((values, unit))
    count = np.bincount(unit)
    starts = np.cumsum(count) - count
    ranked = values[order]
    place = starts + QUANTILE * (count - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, starts + count - 1)
    return Pooled(
        unit,
        order[starts],
        count,
        {
            "mean": np.add.reduceat(ranked, starts) / count,
            "max": ranked[starts + count - 1],
            "quantile": ranked[low] + (place - low) * (ranked[high] - ranked[low]),
        },
    )


def videos(origins: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Name of the video that each image is a frame of, empty for what is no frame.

    Example:
        >>> videos(np.array(["a.mp4#frame=000003", "b.jpg"])).tolist()
        ['a.mp4', '']
    """
    parts = np.char.partition(origins.astype(np.str_), _FRAME)
    return np.where(parts[:, 1] == _FRAME, parts[:, 0], "")
