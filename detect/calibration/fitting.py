"""``detect calibrate``: what a trained detector's logits mean, when it should abstain, and what it does not know."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.firewall import refuse_overlap, refuse_unknown
from crossfake.detect import bundle, metrics
from crossfake.detect.bundle import CARD, Detector
from crossfake.detect.calibration import conformal, novelty
from crossfake.detect.calibration import maps as calibration
from crossfake.detect.evaluation.overlap import seen_by
from crossfake.detect.tables import aligned
from crossfake.detect.training.data import Part, TrainingData, digest_of, read_told
from crossfake.errors import UserError
from crossfake.files import write_text
from crossfake.progress import tqdm

BEFORE = "bundle.json.before"
FIGURES = ("nll", "brier", "ece")
_READ = 512


@dataclass(frozen=True)
class CalibrateSettings:
    """What to calibrate on what.

    Attributes:
        bundle: run of ``detect train``, or a bundle folder.
        real: shard folders of reals, the ones that were trained with, in the same order. Only their validation rows
            calibrate; training rows serve the novelty's reference; test rows are never read.
        fake: shard folders of fakes, given ones before one's own.
        method: ``temperature``, ``beta``, ``isotonic``, or ``auto``: the one with the best cross-validated likelihood.
        prior: share of fakes among the images that the detector will meet, at which the probabilities hold; None is
            the share in the validation set.
        coverage: of either class, share of images that are not to be called the other; None never abstains.
        novelty: ``knn``, ``mahalanobis``, ``energy``, or None for no out-of-distribution score.
        quantile: share of validation images beyond which an image counts as out of distribution.
        bootstrap: resamples for the intervals of the figures.
        force: calibrate on other validation images than training used; the threshold is then chosen on them.
    """

    bundle: Path
    real: tuple[Path, ...]
    fake: tuple[Path, ...]
    method: str = "auto"
    prior: float | None = None
    coverage: float | None = 0.9
    novelty: str | None = "knn"
    quantile: float = 0.95
    bootstrap: int = 1000
    seed: int = 0
    device: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("auto", *calibration.METHODS):
            methods = ", ".join(("auto", *calibration.METHODS))
            raise UserError(f"there is no calibration {self.method!r}", mend=f"use {methods}")
        if self.method == "temperature" and self.prior is not None:
            raise UserError(
                "a temperature cannot shift a prior",
                mend="use --method beta or isotonic, or leave out --prior",
            )
        if self.novelty is not None and self.novelty not in novelty.METHODS:
            raise UserError(f"there is no novelty {self.novelty!r}", mend=f"use {', '.join(novelty.METHODS)}")
        for name in ("prior", "coverage", "quantile"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UserError(
                    f"{name} is a share, not {value}", mend="give a value between 0 and 1, like 0.9"
                )
        if self.bootstrap < 100:
            raise UserError("intervals need resamples", mend="give --bootstrap 1000")


@dataclass(frozen=True)
class _Judged:
    """What the network says of chosen rows."""

    logits: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[Any]


def calibrate(settings: CalibrateSettings) -> dict[str, Any]:
    """Fit everything on validation rows and replace the bundle's card; the old one stays as ``bundle.json.before``.

    Returns:
        ``card``; ``figures``, method to ``{"nll", "brier", "ece"}`` with ``"intervals"``: ``logit`` is the plain
        sigmoid, ``before`` the bundle's present map, which saw these images, the others by cross-validation over
        groups; ``chosen``; ``abstains``, share of validation images of each class; ``notes``.

    Raises:
        UserError: other data than the detector was trained with, too little of it, or images that it was trained on.
    """
    detector = bundle.load(settings.bundle, settings.device)
    data = TrainingData.open(settings.real, settings.fake, (), settings.force)
    for pool in data.real + data.fake:
        detector.check_data(pool.shards, force=settings.force)
    parts = data.validation_rows()
    digest = digest_of(parts).hexdigest()
    notes = _check_hash(detector, digest, settings.force)
    if notes:
        notes += _check_unseen(detector, parts)
    held = _judge(detector, parts, "validation")
    weights = calibration.class_weights(held.labels, settings.prior)
    figures = _compare(detector, held, weights, settings)
    chosen = settings.method
    if chosen == "auto":
        chosen = min(calibration.METHODS, key=lambda method: figures[method]["nll"])
    fitted = calibration.with_interval(
        calibration.fit(chosen, held.logits, held.labels, weights),
        held.logits,
        held.labels,
        held.groups,
        weights,
        seed=settings.seed,
    )
    prior = settings.prior or float(held.labels.mean())
    threshold = metrics.best_threshold(held.labels, calibration.probability(fitted, held.logits))
    card = {
        **{key: value for key, value in detector.card.items() if key not in ("abstention", "novelty")},
        "calibration": {**fitted, "prior": prior, "measured": {n: figures[n] for n in ("before", chosen)}},
        "threshold": threshold,
        "threshold_rule": "best balanced accuracy on validation",
        "validation_hash": digest,
        "validation_ap": metrics.average_precision(held.labels, held.logits),
        "calibrated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if chosen == "temperature":
        card["temperature"] = fitted["temperature"]
    if settings.coverage is not None:
        card["abstention"] = conformal.fit(held.logits, held.labels, held.groups, settings.coverage)
        notes += _few(card["abstention"])
    reference = _novelty(detector, data, held, settings) if settings.novelty else None
    if reference:
        card["novelty"] = novelty.save(reference, detector.path)
    _replace_card(detector.path, card)
    judged = bundle.load(settings.bundle, settings.device).judge_outputs(held.logits, held.features)
    abstains = np.array([judgement.verdict == "uncertain" for judgement in judged])
    if any(detector.path.glob("model*.onnx")) or any(detector.path.glob("*.torchscript")):
        notes.append("exported files still hold the old calibration: run 'detect export' again")
    return {
        "bundle": str(detector.path),
        "card": card,
        "figures": figures,
        "chosen": chosen,
        "images": [int((held.labels == label).sum()) for label in (0, 1)],
        "groups": len(np.unique(held.groups)),
        "abstains": [float(abstains[held.labels == label].mean()) for label in (0, 1)],
        "notes": notes,
    }


def _check_hash(detector: Detector, found: str, force: bool) -> list[str]:
    expected = detector.card.get("validation_hash")
    if found == expected:
        return []
    if not force:
        raise UserError(
            "these are not the validation images that the detector was chosen on",
            mend="name the folders of its training in the same order, or --force to calibrate on these",
        )
    return ["calibrated on other validation images than training used; the threshold is theirs too"]


def _check_unseen(detector: Detector, parts: Sequence[Part]) -> list[str]:
    """Raise :class:`UserError` if an image was trained on; notes on folders that are gone."""
    sets = [pool.shards for pool, _, _ in parts]
    seen = seen_by(detector, sets)
    refuse_overlap(
        seen.only("trained on"),
        sets,
        [rows for _, _, rows in parts],
        mend="name folders that were split as for its training",
    )
    return refuse_unknown(seen, force=True, mend="")


def _training(data: TrainingData) -> list[Part]:
    """Training rows for the reference: as many of either class, evenly over the pools."""
    parts = []
    for label, pools in ((0, data.real), (1, data.fake + data.synthetic)):
        share = max(1, novelty.MOST_REFERENCES // 2 // len(pools))
        for pool in pools:
            parts.append((pool, label, np.random.default_rng(0).permutation(pool.train)[:share]))
    return parts


def _judge(detector: Detector, parts: Sequence[Part], what: str) -> _Judged:
    logits, features, labels, groups = [], [], [], []
    with tqdm(total=sum(len(rows) for _, _, rows in parts), unit="img", desc=what) as bar:
        for pool, label, rows in parts:
            for start in range(0, len(rows), _READ):
                some = rows[start : start + _READ]
                images, whole = read_told(pool.shards, some)
                z, f = detector.outputs(images)
                logits.append(z)
                features.append(f)
                bar.update(len(some))
                own = [f"{pool.shards.path}:{row}" for row in whole]  # without a group, each image is its own
                labels.append(np.full(len(whole), label))
                named = pool.shards.columns["group"][whole]
                groups.append(np.where(named == "", own, named).astype(str))
    return _Judged(*(np.concatenate(each) for each in (logits, features, labels, groups)))


def _compare(
    detector: Detector, held: _Judged, weights: npt.NDArray[np.float64], settings: CalibrateSettings
) -> dict[str, Any]:
    try:
        candidates = {
            "logit": 1 / (1 + np.exp(-held.logits)),
            "before": detector.probability(held.logits),
            **{
                method: calibration.cross_validated(
                    method, held.logits, held.labels, held.groups, weights, settings.seed
                )
                for method in calibration.METHODS
            },
        }
    except ValueError as error:
        raise UserError(f"too few validation images ({error})", mend="prepare more with --split") from error
    return {
        name: {
            **calibration.figures(held.labels, found, weights),
            "intervals": calibration.figures_interval(
                held.labels, found, held.groups, weights, settings.bootstrap, settings.seed
            ),
        }
        for name, found in candidates.items()
    }


def _few(abstention: dict[str, Any]) -> list[str]:
    names = [
        kind for kind, end in (("fake", "real_at_most"), ("real", "fake_at_least")) if abstention[end] is None
    ]
    least = int(np.ceil(1 / (1 - abstention["coverage"]) - 1e-9)) - 1
    return [f"nothing can be called {name} at this coverage with fewer than {least} groups" for name in names]


def _novelty(
    detector: Detector, data: TrainingData, held: _Judged, settings: CalibrateSettings
) -> novelty.Novelty:
    method = settings.novelty or ""
    features, labels = held.features[:0], held.labels[:0]
    if method != "energy":
        judged = _judge(detector, _training(data), "reference")
        features, labels = judged.features, judged.labels
    return novelty.fit(method, features, labels, (held.logits, held.features), settings.quantile)


def _replace_card(folder: Path, card: dict[str, Any]) -> None:
    try:
        write_text(folder / BEFORE, (folder / CARD).read_text())
        bundle.write_card(folder, card)
        kept = {card.get("novelty", {}).get("file"), *_novelty_files(folder / BEFORE)}
        for path in folder.glob("novelty-*.safetensors"):
            if path.name not in kept:
                path.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write {folder} ({error.strerror})", mend="free some space or copy the bundle"
        ) from error


def _novelty_files(card: Path) -> list[str]:
    return [str((json.loads(card.read_text()).get("novelty") or {}).get("file"))]


def format_table(result: dict[str, Any]) -> str:
    """The figures as a terminal table, the chosen map marked."""
    titles = {"logit": "plain sigmoid", "before": "before (saw these images)"}
    lines = [["", "NLL", "Brier", "ECE"]]
    for name, found in result["figures"].items():
        mark = "* " if name == result["chosen"] else "  "
        cells = [
            f"{found[key]:.3f} [{found['intervals'][key][0]:.3f}, {found['intervals'][key][1]:.3f}]"
            for key in FIGURES
        ]
        lines.append([mark + titles.get(name, name), *cells])
    return "\n".join(aligned(lines))
