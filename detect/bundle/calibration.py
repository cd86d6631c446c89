"""From a logit to a probability that means what it says: calibration maps, their intervals and their figures.

A map is a plain dictionary, so that it can stand in a bundle's card:
``{"method": "temperature", "temperature": T}``, ``{"method": "beta", "a": …, "b": …, "c": …}`` or
``{"method": "isotonic", "logits": […], "probabilities": […]}``; ``"interval"`` may stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit

from crossfake.detect.evaluation import metrics
from crossfake.stats.bootstrap import bootstrap, cluster_resamples
from crossfake.stats.intervals import percentile_interval

Array = npt.NDArray[np.float64]
METHODS = ("temperature", "beta", "isotonic")
_FOLDS = 5
_KNOTS = 65
_AT_ONCE = 100
# Classes that a detector tells apart without a mistake would make every parameter infinite
_MOST = 20.0
_LOG_T = 3.0


def probability(calibration: Mapping[str, Any], logits: npt.ArrayLike) -> Array:
    """Calibrated probability of being fake, in [0, 1], for logits ``[N]``; never falls as the logit rises."""
    z = np.asarray(logits, np.float64)
    match calibration["method"]:
        case "temperature":
            return np.asarray(expit(z / calibration["temperature"]))
        case "beta":
            a, b, c = calibration["a"], calibration["b"], calibration["c"]
            return np.asarray(expit(a * log_expit(z) - b * log_expit(-z) + c))
        case _:
            return np.asarray(np.interp(z, calibration["logits"], calibration["probabilities"]))


def interval(calibration: Mapping[str, Any], logits: npt.ArrayLike) -> tuple[Array, Array] | None:
    """Low and high end ``[N]`` of the calibrated probability; None when the map was stored without.

    It says how well the validation images pin the map down, not how the detector fares on other kinds of images.
    """
    table = calibration.get("interval")
    if not table:
        return None
    z, middle = np.asarray(logits, np.float64), probability(calibration, logits)
    low, high = (np.interp(z, table["logits"], table[end]) for end in ("low", "high"))
    return np.minimum(low, middle), np.maximum(high, middle)


def check(calibration: Any) -> None:
    """Raise ``ValueError`` unless it is a map that :func:`probability` can follow."""
    if not isinstance(calibration, Mapping) or calibration.get("method") not in METHODS:
        raise ValueError("unknown calibration")
    match calibration["method"]:
        case "temperature":
            temperature = float(calibration["temperature"])
            fine = np.isfinite(temperature) and temperature > 0
        case "beta":
            a, b, c = (float(calibration[name]) for name in "abc")
            fine = np.isfinite([a, b, c]).all() and min(a, b) >= 0
        case _:
            fine = _is_curve(calibration["logits"], calibration["probabilities"])
    if table := calibration.get("interval"):
        fine = fine and all(_is_curve(table["logits"], table[end]) for end in ("low", "high"))
    if not fine:
        raise ValueError("calibration out of range")


def _is_curve(logits: Any, values: Any) -> bool:
    x, y = np.asarray(logits, np.float64), np.asarray(values, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x) or not np.isfinite([x, y]).all():
        return False
    return bool((np.diff(x) >= 0).all() and (np.diff(y) >= -1e-9).all() and y[0] >= 0 and y[-1] <= 1)


def fit(
    method: str, logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """The map of one method with the highest likelihood on held-out images.

    Args:
        method: ``temperature``: one divisor (Guo et al. 2017, sec. 4.2). ``beta``: sigmoid of
            ``a·ln s - b·ln(1-s) + c`` with s the sigmoid of the logit and a, b ≥ 0 (Kull et al. 2017, eq. 4).
            ``isotonic``: the best rising steps (Zadrozny & Elkan 2002), kept off 0 and 1 by one image in n + 2.
        logits: ``[N]``.
        labels: ``[N]``, 0 real and 1 fake; both must occur.
        weights: ``[N]``, how much each image counts.

    Example:
        >>> round(fit("temperature", [-2.0, -2.0, -2.0, 2.0, 2.0, 2.0], [0, 0, 1, 0, 1, 1])["temperature"], 2)
        2.89
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    w = np.ones_like(z) if weights is None else np.asarray(weights, np.float64)
    z, y, w = z[w > 0], y[w > 0], w[w > 0]
    if len(np.unique(y)) < 2:
        raise ValueError("a calibration needs reals and fakes")
    match method:
        case "temperature":
            return _temperature(z, y, w)
        case "beta":
            return _beta(z, y, w)
        case "isotonic":
            return _isotonic(z, y, w)
    raise ValueError(f"unknown calibration {method!r}")


def _temperature(z: Array, y: Array, w: Array) -> dict[str, Any]:
    signed = np.where(y == 1, 1.0, -1.0) * z
    found = minimize_scalar(
        lambda log_t: -np.average(log_expit(signed / np.exp(log_t)), weights=w),
        bounds=(-_LOG_T, _LOG_T),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return {"method": "temperature", "temperature": float(np.exp(found.x))}


def _beta(z: Array, y: Array, w: Array) -> dict[str, Any]:
    columns = np.stack([log_expit(z), -log_expit(-z), np.ones_like(z)])
    share = w / w.sum()

    def loss(parameters: Array) -> tuple[float, Array]:
        u = parameters @ columns
        value = -(share * (y * log_expit(u) + (1 - y) * log_expit(-u))).sum()
        return float(value), columns @ (share * (expit(u) - y))

    found = minimize(
        loss,
        np.array([1.0, 1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, _MOST), (0, _MOST), (-_MOST, _MOST)],
        options={"ftol": 1e-12, "gtol": 1e-8},
    )
    return {"method": "beta", **dict(zip("abc", map(float, found.x), strict=True))}


def _isotonic(z: Array, y: Array, w: Array) -> dict[str, Any]:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(z, y, w)
    least = 1 / (w.sum() + 2)
    heights = np.clip(np.asarray(steps.y_thresholds_, np.float64), least, 1 - least)
    return {
        "method": "isotonic",
        "logits": np.asarray(steps.X_thresholds_, np.float64).tolist(),
        "probabilities": heights.tolist(),
    }


def with_interval(
    calibration: dict[str, Any],
    logits: Array,
    labels: npt.NDArray[np.int64],
    groups: npt.ArrayLike,
    weights: Array,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """The map with ``"interval"``: percentiles of the maps fitted to resampled groups (Efron 1979), over 65 logits."""
    knots = np.unique(np.quantile(logits, np.linspace(0, 1, _KNOTS)))
    curves = []
    for drawn in cluster_resamples(groups, resamples, seed):
        if all(drawn[labels == label].any() for label in (0, 1)):
            curves.append(probability(fit(calibration["method"], logits, labels, drawn * weights), knots))
    low, high = percentile_interval(curves, level)
    # a percentile of rising curves rises too, but for rounding
    low, high = np.maximum.accumulate(low), np.maximum.accumulate(high)
    table = {"level": level, "logits": knots.tolist(), "low": low.tolist(), "high": high.tolist()}
    return {**calibration, "interval": table}


def cross_validated(
    method: str,
    logits: Array,
    labels: npt.NDArray[np.int64],
    groups: npt.ArrayLike,
    weights: Array,
    seed: int = 0,
) -> Array:
    """Probability ``[N]`` of each image by a map fitted without its group: five folds, or as many as there can be."""
    from sklearn.model_selection import StratifiedGroupKFold

    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    fewest = min(len(np.unique(number[labels == label])) for label in (0, 1))
    if fewest < 2:
        raise ValueError("each class needs two groups")
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    found = np.empty(len(logits))
    for rest, part in folds.split(logits, labels, number):
        found[part] = probability(fit(method, logits[rest], labels[rest], weights[rest]), logits[part])
    return found


def class_weights(labels: npt.ArrayLike, prior: float | None, weights: npt.ArrayLike | None = None) -> Array:
    """Weights ``[N]`` of mean 1 under which the share ``prior`` is fake; None leaves the share as it is.

    Args:
        weights: ``[N]``, how the images of a class weigh against each other; all alike when None.
    """
    y = np.asarray(labels)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.mean()
    if prior is None:
        return w
    fakes = float(np.average(y == 1, weights=w))
    return np.asarray(w * np.where(y == 1, prior / fakes, (1 - prior) / (1 - fakes)))


def figures(labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: Array) -> dict[str, float]:
    """``nll`` in nats, ``brier`` and ``ece`` (Guo et al. 2017, eq. 3); 0 is perfect for all."""
    return {name: float(found[0]) for name, found in _figures(labels, probabilities, weights[None]).items()}


def figures_interval(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike,
    weights: Array,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of :func:`figures`, resampling groups.

    Resampling adds noise to each bin and so raises the ``ece``; an interval that lies above the figure is extended
    down to it.
    """
    draws = bootstrap(lambda times: _figures(labels, probabilities, times * weights), groups, resamples, seed)
    middle = figures(labels, probabilities, weights)
    ends = {name: percentile_interval(values) for name, values in draws.items()}
    return {
        name: (min(float(low), middle[name]), max(float(high), middle[name]))
        for name, (low, high) in ends.items()
    }


def _figures(labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: Array) -> dict[str, Array]:
    """Each figure ``[B]`` for each row of ``weights`` ``[B, N]``."""
    y, p = np.asarray(labels), np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
    losses = -np.where(y == 1, np.log(p), np.log1p(-p))
    found = metrics.weighted(y, p, weights, probabilities=True)
    return {"nll": weights @ losses / weights.sum(axis=1), "brier": found["brier"], "ece": found["ece"]}


def by_temperature(
    logits: Array, labels: npt.NDArray[np.int64], weights: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """What a card says of a detector before it is calibrated any better: temperature (Guo et al. 2017, sec. 4.2)
    by maximum likelihood, and the threshold of best balanced accuracy, of images that count by ``weights`` ``[N]``."""
    fitted = fit("temperature", logits, labels, weights)
    return {
        "temperature": fitted["temperature"],
        "threshold": metrics.best_threshold(labels, probability(fitted, logits), weights),
        "threshold_rule": "best balanced accuracy on validation",
    }
