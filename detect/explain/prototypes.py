"""Prototypes: the training images that look most alike to the detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.explain.references import training_rows
from crossfake.errors import UserError
from crossfake.images import thumbnail

_MOST = 1000  # training images of each class that are looked through
_AT_ONCE = 128
_SHOWN = 96  # pixels of a native one


@dataclass(frozen=True)
class Prototypes:
    """Training images in the detector's feature space.

    Attributes:
        features: float32 ``[N, F]``, less their mean, of length 1.
        center: that mean, ``[F]``.
        images: uint8 ``[N, S, S, 3]``; native ones made smaller, to be looked at.
        labels: ``[N]``, 1 fake.
        names: what each is: its generator or source, and its origin.
    """

    detector: Any
    features: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32]
    images: Pixels
    labels: npt.NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, detector: Any, sets: Sequence[ShardSet]) -> Prototypes:
        """Of at most 1,000 reals and 1,000 fakes that the shards have for training.

        Raises:
            UserError: they have none, or of another size.
        """
        images, labels, names, parts = [], [], [], []
        for label in (0, 1):
            for shards, rows in training_rows(sets, _MOST, label):
                columns = shards.columns
                for start in range(0, len(rows), _AT_ONCE):
                    seen, kept, _ = detector.view.read(shards, rows[start : start + _AT_ONCE])
                    if not len(kept):
                        continue
                    parts.append(detector.outputs(seen)[1])
                    if not detector.view.native:
                        images += list(seen)
                    else:  # windows are none to look at
                        whole = detector.view.whole
                        some = seen.images if whole else [shards.read(int(row)) for row in kept]
                        images += [thumbnail(each, _SHOWN) for each in some]
                    labels += [label] * len(kept)
                    names += [str(columns["generator"][row] or columns["source"][row]) for row in kept]
        if not images:
            raise UserError(
                "there are no training images to compare with", hint="name shards with --data DIR"
            )
        found = np.concatenate(parts)
        center = found.mean(0)
        return cls(detector, _unit(found - center), center, np.stack(images), np.array(labels), names)

    def explain(self, image: Pixels, count: int = 6) -> dict[str, Any]:
        """The nearest training images by cosine similarity (of features less the training images' mean).

        Returns:
            ``nearest``: row numbers ``[count]``, ``similarity`` ``[count]`` in [-1, 1], ``labels`` ``[count]``, and
            ``names``.
        """
        return self.nearest(self.detector.outputs([image])[1][0], count)

    def nearest(self, features: npt.NDArray[np.float32], count: int = 6) -> dict[str, Any]:
        """:meth:`explain` for an image whose features ``[F]`` are known."""
        similarity = self.features @ _unit((features - self.center)[None])[0]
        nearest = np.argsort(-similarity, kind="stable")[:count]
        return {
            "nearest": nearest,
            "similarity": similarity[nearest],
            "labels": self.labels[nearest],
            "names": [self.names[row] for row in nearest],
        }


def _unit(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), np.float32)
