"""``detect calibrate``: what a trained detector's logits mean, when it should abstain, and what it does not know."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.firewall import Seen, refuse_overlap, refuse_unknown, union
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle, calibration, conformal, novelty
from crossfake.detect.bundle.bundle import CARD, Detector, Outputs
from crossfake.detect.evaluation import metrics
from crossfake.detect.evaluation.overlap import seen_by
from crossfake.detect.settings import CalibrateSettings
from crossfake.detect.tables import aligned
from crossfake.detect.training.data import Part, TrainingData, read_told
from crossfake.detect.training.reopening import Reopened, reopen
from crossfake.detect.view import Windows, joined
from crossfake.errors import UserError
from crossfake.files import write_text
from crossfake.progress import tqdm
from crossfake.stats import ranking
from crossfake.stats.intervals import share_interval

BEFORE = "bundle.json.before"
FIGURES = ("nll", "brier", "ece")
_READ = 512


@dataclass(frozen=True)
class _Judged:
    """What the network says of the validation images, and what these weigh."""

    logits: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    weights: npt.NDArray[np.float64]


def calibrate(settings: CalibrateSettings) -> dict[str, Any]:
    """Fit everything on validation rows and replace the bundle's card; the old one stays as ``bundle.json.before``.

    Every kind of image, source and generator counts as much as in the batches of the training.

    Returns:
        ``card``, whose ``validation_shares`` say what counted how much;
        ``figures``, method to ``{"nll", "brier", "ece"}`` with ``"intervals"``: ``logit`` is the plain
        sigmoid, ``before`` the bundle's present map, which saw these images, the others by cross-validation over
        groups; ``chosen``; ``abstains``, share of validation images of each class; ``notes``.

    Raises:
        UserError: other data than the detector was trained with, or gone or changed by now; too little of it; images
            that it was trained on.
    """
    detector = bundle.load(settings.bundle, settings.device)
    reopened = reopen(detector, settings.real, settings.fake, settings.force)
    data, recipe = reopened.data, reopened.recipe
    for pool in data.real + data.fake + data.synthetic:
        detector.check_data(pool.shards, force=settings.force)
    validation = data.validation(recipe=recipe)
    notes = _check_hash(validation.digest, detector, reopened, settings.force)
    seen = None
    if notes:
        seen = _check_unseen(detector, data.validation_rows(made=recipe is not None))
        notes += [*refuse_unknown(seen, force=True, hint=""), *seen.notes]
    notes += reopened.notes
    weighed = reopened.weigh(validation.kinds)
    logits, features = _outputs(detector, validation.images, "validation")
    count = weighed.weights > 0  # what no batch drew stays out
    held = _Judged(
        logits[count],
        features[count],
        validation.labels[count],
        validation.groups[count],
        np.array([kind.source for kind in validation.kinds])[count],
        weighed.weights[count],
    )
    weights = calibration.class_weights(held.labels, settings.prior, held.weights)
    figures = _compare(detector, held, weights, settings)
    chosen: str = settings.method
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
    prior = settings.prior or float(np.average(held.labels, weights=held.weights))
    probabilities = calibration.probability(fitted, held.logits)
    threshold = metrics.best_threshold(held.labels, probabilities, held.weights)
    card = {
        **{key: value for key, value in detector.card.items() if key not in ("abstention", "novelty")},
        "calibration": {**fitted, "prior": prior, "measured": {n: figures[n] for n in ("before", chosen)}},
        "threshold": threshold,
        "threshold_rule": "best balanced accuracy on validation",
        "validation_hash": validation.digest,
        "validation_ap": ranking.average_precision(held.labels, held.logits, held.weights),
        "validation_shares": weighed.describe(validation.labels, logits),
        "calibrated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if chosen == "temperature":
        card["temperature"] = fitted["temperature"]
    if settings.coverage is not None:
        card["abstention"] = conformal.fit(
            held.logits, held.labels, held.groups, settings.coverage, held.weights
        )
        notes += _few(card["abstention"])
    if settings.novelty:
        reference, noticed = _novelty(detector, data, held, settings)
        card["novelty"] = {**novelty.save(reference, detector.path), "noticed": noticed}
    if seen is not None:
        card["seen"] = seen.save(detector.path)
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
        "abstains": [
            float(np.average(abstains[of_class], weights=held.weights[of_class]))
            for of_class in (held.labels == 0, held.labels == 1)
        ],
        "notes": notes,
    }


def _check_hash(found: str, detector: Detector, reopened: Reopened, force: bool) -> list[str]:
    if found in (detector.card.get("validation_hash"), reopened.facts.get("validation_hash")):
        return []
    if "published" in detector.card:
        return [
            "calibrated on validation images of yours; the threshold is theirs too, and no longer the authors'"
        ]
    if not force:
        own = (
            "leave --real and --fake out" if "real" in reopened.facts else "name all folders of its training"
        )
        raise UserError(
            "these are not the validation images that the detector was chosen on",
            hint=f"{own}, or --force to calibrate on these",
        )
    return ["calibrated on other validation images than training used; the threshold is theirs too"]


def _check_unseen(detector: Detector, parts: Sequence[Part]) -> Seen:
    """What the detector has seen, these images now included. Raise :class:`UserError` if it was trained on one."""
    sets, rows = [pool.shards for pool, _, _ in parts], [rows for _, _, rows in parts]
    seen = seen_by(detector, sets)
    refuse_overlap(
        seen.only("trained on"), sets, rows, hint="name folders that were split as for its training"
    )
    return union([seen, *(Seen.of(*each, "validated on") for each in zip(sets, rows, strict=True))])


def _training(data: TrainingData) -> list[Part]:
    """Training rows for the reference: as many of either class, evenly over the pools."""
    parts = []
    for label, pools in ((0, data.real), (1, data.fake + data.synthetic)):
        share = max(1, novelty.MOST_REFERENCES // 2 // max(1, len(pools)))
        for pool in pools:
            parts.append((pool, label, np.random.default_rng(0).permutation(pool.train)[:share]))
    return parts


def _outputs(detector: Detector, images: Pixels | Windows, what: str) -> Outputs:
    parts = []
    with tqdm(total=len(images), unit="img", desc=what) as bar:
        for start in range(0, len(images), _READ):
            parts.append(detector.outputs(images[start : start + _READ]))
            bar.update(len(parts[-1][0]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
        raise UserError(f"too few validation images ({error})", hint="prepare more with --split") from error
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
) -> tuple[novelty.Novelty, list[dict[str, Any]]]:
    """The reference, and of each source of reals how many of its pictures one without that source would flag."""
    parts = _training(data)
    read = [read_told(pool.shards, rows, detector.view) for pool, _, rows in parts]
    sources = np.concatenate(
        [pool.shards.columns["source"][rows] for (pool, _, _), (_, rows) in zip(parts, read, strict=True)]
    ).astype(str)
    features = _outputs(detector, joined([images for images, _ in read]), "reference")[1]

    def fitted(kept: npt.NDArray[np.bool_], held_out: npt.NDArray[np.bool_]) -> novelty.Novelty:
        validation = held.logits[held_out], held.features[held_out]
        return novelty.fit(features[kept], validation, settings.quantile, held.weights[held_out])

    noticed = []
    known = np.unique(held.sources[held.labels == 0]).tolist()
    for source in known if len(known) > 1 else ():
        asked = (held.sources == source) & (held.labels == 0)
        with contextlib.suppress(UserError):  # too few pictures of the others
            reference = fitted(sources != source, held.sources != source)
            share = reference.share(held.logits[asked], held.features[asked])
            flags = share > settings.quantile
            interval = share_interval(flags, held.groups[asked])
            noticed.append(
                {"source": source, "n": len(flags), "flagged": float(flags.mean()), "interval": interval}
            )
    return fitted(np.full(len(sources), True), np.full(len(held.labels), True)), noticed


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
            f"cannot write {folder} ({error.strerror})", hint="free some space or copy the bundle"
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
