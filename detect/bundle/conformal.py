"""When to say "uncertain": split conformal prediction with a guarantee for each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def fit(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    coverage: float = 0.9,
    weights: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Up to which logit an image may be real, and from which on it may be fake.

    A label stays in an image's prediction set while its p-value exceeds ``1 - coverage``. The p-value is the share
    of calibration images *of that class* that look at least as little like it, the image itself included
    (class-conditional or Mondrian conformal prediction, Vovk et al. 2005; Angelopoulos & Bates 2023, sec. 4.1).
    Images of one group count together as one (Lee, Barber & Willett 2023), so near-copies do not fake precision.
    Then, of new images of either class drawn like these, at most ``1 - coverage`` lack their own label.
    With weights that holds of images drawn in these proportions (Tibshirani et al. 2019, eq. 10); a new image counts
    as much as the heaviest of its class, since its own weight is not known.

    Args:
        logits: ``[N]``.
        labels: ``[N]``, 0 real and 1 fake.
        groups: ``[N]``, what belongs together.
        coverage: in (0, 1).
        weights: ``[N]``, how much each image counts among those of its class, from 0; all alike when None.

    Returns:
        ``real_at_most`` and ``fake_at_least``, logits, or None where there are too few groups to ever leave the
        label out; ``coverage``; the number of groups of each class.
    """
    z, y, g = np.asarray(logits, np.float64), np.asarray(labels), np.asarray(groups)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    z, y, g, w = z[w > 0], y[w > 0], g[w > 0], w[w > 0]
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage lies between 0 and 1, not {coverage}")
    real, reals = _limit(z[y == 0], g[y == 0], w[y == 0], 1 - coverage)
    fake, fakes = _limit(-z[y == 1], g[y == 1], w[y == 1], 1 - coverage)
    return {
        "method": "mondrian",
        "coverage": coverage,
        "real_at_most": real,
        "fake_at_least": None if fake is None else -fake,
        "groups": [reals, fakes],
    }


def _limit(
    strangeness: npt.NDArray[np.float64], groups: Any, weights: npt.NDArray[np.float64], alpha: float
) -> tuple[float | None, int]:
    """Largest strangeness whose p-value still exceeds ``alpha``, and the number of groups."""
    _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    own = np.bincount(number, weights) / sizes  # of a group, which counts once whatever its size
    heaviest = own.max() if len(own) else 1.0
    order = np.argsort(-strangeness, kind="stable")
    stranger = (
        np.cumsum((weights / sizes[number])[order]) / heaviest
    )  # groups at least as strange, up to each image
    total = own.sum() / heaviest
    p = (stranger + 1) / (total + 1)
    inside = np.flatnonzero(p > alpha + 1e-12)
    if 1 / (total + 1) > alpha + 1e-12 or not len(inside):
        return None, len(sizes)
    return float(strangeness[order[inside[0]]]), len(sizes)


def allowed(abstention: Mapping[str, Any], logits: npt.ArrayLike) -> tuple[Bools, Bools]:
    """Whether ``real`` and whether ``fake`` are in the prediction set, each ``[N]``."""
    z = np.asarray(logits, np.float64)
    real, fake = abstention["real_at_most"], abstention["fake_at_least"]
    everything = np.ones(z.shape, bool)
    return everything if real is None else z <= real, everything if fake is None else z >= fake


def check(abstention: Any) -> None:
    """Raise ``ValueError`` unless :func:`allowed` can use it."""
    for name in ("real_at_most", "fake_at_least"):
        if abstention[name] is not None and not np.isfinite(float(abstention[name])):
            raise ValueError("abstention out of range")
    if not 0 < float(abstention["coverage"]) < 1:
        raise ValueError("abstention out of range")
