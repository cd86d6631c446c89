"""How unusual an image is for a detector: "I don't know this kind of image".

The reference is of training rows; the scale on which an image is called unusual is of validation rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.provenance import hash_file

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
MOST_REFERENCES = 1000
_NEIGHBOUR = 10
_CHUNK = 1024
_SHAPES = {
    "knn": {"vectors": 2},
    "mahalanobis": {"means": 2, "axes": 2, "variances": 1, "rest": 1},
    "energy": {},
}


@dataclass(frozen=True)
class Novelty:
    """What usual images look like.

    Attributes:
        method: ``knn``: distance of the unit feature vector to its 10th nearest training vector (Sun et al. 2022,
            eq. 2). Bundles made before may have ``mahalanobis``: squared distance to the nearer class mean under the
            shared covariance (Lee et al. 2018, eq. 2), beyond its ``axes`` with one variance; or ``energy``:
            ``-log(2·cosh(logit/2))``, the free energy of the logits (-z/2, z/2) (Liu et al. 2020, eq. 4).
        arrays: the reference.
        scale: distances of validation images, rising, float32.
        quantile: share of validation images beyond which an image counts as out of distribution.
    """

    method: str
    arrays: dict[str, npt.NDArray[Any]]
    scale: npt.NDArray[np.float32]
    quantile: float = 0.95

    def distance(self, logits: npt.ArrayLike, features: Features) -> Array:
        """Larger is more unusual, ``[N]``, of logits ``[N]`` and features ``[N, F]``."""
        if self.method == "energy":
            half = np.abs(np.asarray(logits, np.float64)) / 2
            return -(half + np.log1p(np.exp(-2 * half)))
        part = _knn if self.method == "knn" else _mahalanobis
        chunks = [part(self.arrays, features[i : i + _CHUNK]) for i in range(0, len(features), _CHUNK)]
        return np.concatenate([np.empty(0), *chunks])

    def share(self, logits: npt.ArrayLike, features: Features) -> Array:
        """Share of validation images that are less unusual, ``[N]`` in [0, 1]."""
        distance = self.distance(logits, features).astype(np.float32)
        return np.asarray(np.searchsorted(self.scale, distance) / len(self.scale))


def fit(
    features: Features,
    validation: tuple[npt.ArrayLike, Features],
    quantile: float = 0.95,
    weights: npt.ArrayLike | None = None,
) -> Novelty:
    """Learn what is usual, by nearest neighbours.

    Args:
        features: of training rows, ``[M, F]``, of which at most 1,000 are taken, evenly spread.
        validation: logits and features of the images that set the scale.
        quantile: share of these beyond which an image is called out of distribution.
        weights: how much each of these counts, from 0; all alike when None.

    Raises:
        UserError: the model has no features, or too few rows.
    """
    if not features.size:
        raise UserError("this model gives no features", hint="use --novelty none")
    if len(features) <= _NEIGHBOUR:
        raise UserError(
            f"{len(features)} training images are too few to tell what is usual", hint="give more"
        )
    chosen = np.linspace(0, len(features) - 1, min(len(features), MOST_REFERENCES)).astype(np.int64)
    arrays = {"vectors": _unit(features[chosen]).astype(np.float16)}
    novelty = Novelty("knn", arrays, np.zeros(1, np.float32), quantile)
    distances = novelty.distance(*validation).astype(np.float32)
    order = np.argsort(distances, kind="stable")
    below = np.cumsum(np.ones(len(order)) if weights is None else np.asarray(weights, np.float64)[order])
    # as many evenly spaced quantiles as images: the images themselves where all count alike
    places = np.searchsorted(below, (np.arange(len(order)) + 0.5) / len(order) * below[-1])
    return replace(novelty, scale=distances[order][places])


def _unit(features: npt.NDArray[Any]) -> Features:
    norms = np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True)
    return np.asarray(features / np.maximum(norms, 1e-12), np.float32)


def _knn(arrays: Mapping[str, npt.NDArray[Any]], features: Features) -> Array:
    vectors = arrays["vectors"].astype(np.float32)
    squared = 2 - 2 * (_unit(features) @ vectors.T).astype(np.float64)
    nearest = min(_NEIGHBOUR, len(vectors)) - 1
    return np.sqrt(np.maximum(np.partition(squared, nearest, axis=1)[:, nearest], 0))


def _mahalanobis(arrays: Mapping[str, npt.NDArray[Any]], features: Features) -> Array:
    axes, variances = arrays["axes"].astype(np.float64), arrays["variances"].astype(np.float64)
    distances = []
    for mean in arrays["means"]:
        centered = features.astype(np.float64) - mean
        along = centered @ axes
        beside = np.maximum((centered**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distances.append((along**2 / variances).sum(axis=1) + beside / float(arrays["rest"][0]))
    return np.asarray(np.min(distances, axis=0))


def save(novelty: Novelty, folder: Path) -> dict[str, Any]:
    """Write the arrays; returns what the card has to say. The file's name is new for new content."""
    content = serialise({**novelty.arrays, "scale": novelty.scale})
    digest = hashlib.sha256(content).hexdigest()
    name = f"novelty-{digest[:12]}.safetensors"
    write_bytes(folder / name, content)
    return {"method": novelty.method, "file": name, "sha256": digest, "quantile": novelty.quantile}


def noticed_words(card: Mapping[str, Any]) -> str:
    """How often strangers were noticed, of what a bundle's card says of its novelty.

    Example:
        >>> noticed_words({"noticed": [{"source": "web", "n": 40, "flagged": 0.2, "interval": [0.1, 0.35]}]})[:54]
        'Kept from its reference, reals were flagged as unusual'
        >>> noticed_words({})
        'How often it notices pictures of a kind that it does not know was never measured.'
    """
    found = [
        f"{each['source']} {round(each['flagged'] * each['n']):,} of {each['n']:,} "
        f"({each['interval'][0]:.0%} to {each['interval'][1]:.0%})"
        for each in card.get("noticed") or ()
    ]
    if not found:
        return "How often it notices pictures of a kind that it does not know was never measured."
    return (
        f"Kept from its reference, reals were flagged as unusual so often, by source: {', '.join(found)}. The network "
        "had learned from them: of real strangers it notices fewer, and a picture without that flag may be one."
    )


def load(folder: Path, card: Mapping[str, Any]) -> Novelty:
    """What :func:`save` wrote.

    Raises:
        ValueError, KeyError, OSError, safetensors.SafetensorError: the file is missing, damaged or another.
    """
    name, method, quantile = str(card["file"]), card["method"], float(card["quantile"])
    if Path(name).name != name or method not in _SHAPES or not 0 < quantile < 1:
        raise ValueError("novelty out of range")
    noticed_words(card)  # fails here, not before a visitor, where the card's figures are damaged
    if hash_file(folder / name) != card["sha256"]:
        raise ValueError(f"{name} is not the file that the card was made with")
    arrays = load_file(folder / name)
    scale = arrays.pop("scale").astype(np.float32)
    shapes = {key: array.ndim for key, array in arrays.items()}
    if shapes != _SHAPES[method] or scale.ndim != 1 or not len(scale) or (np.diff(scale) < 0).any():
        raise ValueError(f"{name} holds other arrays than {method} needs")
    if not all(np.isfinite(array).all() or key == "rest" for key, array in arrays.items()):
        raise ValueError(f"{name} holds numbers that are not finite")
    return Novelty(method, arrays, scale, quantile)
