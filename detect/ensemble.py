"""Several detectors as one: weights fitted on validation rows, a bundle like any other at the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from crossfake.datasets.firewall import Seen, refuse_overlap, refuse_unknown, union
from crossfake.detect.bundle import bundle, calibration
from crossfake.detect.bundle.bundle import CARD, WEIGHTS, Detector
from crossfake.detect.evaluation.overlap import seen_by
from crossfake.detect.models import DetectorNetwork, create_model
from crossfake.detect.settings import EnsembleSettings
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.reopening import reopen_shared, trained_with
from crossfake.detect.training.train import WEIGHED
from crossfake.errors import UserError
from crossfake.runs import Run
from crossfake.stats import ranking

METHODS = ("mean", "weighted", "stacked")
# Keeps the weights finite where the members tell the classes apart without a mistake
_RIDGE = 1e-3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MemberWeights:
    """What the members' scaled logits are multiplied by, and what is added to the sum."""

    weights: Array
    bias: float = 0.0

    def __call__(self, logits: Array) -> Array:
        """Logits ``[N]`` of the ensemble for scaled logits ``[N, M]`` of its members."""
        return logits @ self.weights + self.bias


def fit_weights(
    method: str, logits: Array, labels: npt.NDArray[np.int64], sample_weight: npt.ArrayLike | None = None
) -> MemberWeights:
    """The weights of an ensemble, from held-out images.

    Args:
        method: ``mean``: all alike. ``weighted``: the ones of highest likelihood that are not negative and sum to 1,
            with a free scale, which the ensemble's own temperature takes over. ``stacked``: logistic regression on
            the logits (Wolpert 1992), of any sign, with a bias; it needs more images to be better.
        logits: ``[N, M]``, of M members, each divided by its temperature.
        labels: ``[N]``, 1 for fakes.
        sample_weight: ``[N]``, of mean 1, how much each image counts; all alike when None.

    Raises:
        UserError: there is no such method.
    """
    count = logits.shape[1]
    counts = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    match method:
        case "mean":
            return MemberWeights(np.full(count, 1 / count))
        case "weighted":
            return MemberWeights(_simplex(logits, labels, counts))
        case "stacked":
            from sklearn.linear_model import LogisticRegression

            fitted = LogisticRegression(max_iter=1000).fit(logits, labels, counts)
            return MemberWeights(np.asarray(fitted.coef_[0], np.float64), float(fitted.intercept_[0]))
    raise UserError(f"there is no method {method!r}", hint=f"choose one of {', '.join(METHODS)}")


def _simplex(logits: Array, labels: npt.NDArray[np.int64], counts: Array) -> Array:
    signed = np.where(labels == 1, 1.0, -1.0)[:, None] * logits

    def loss(weights: Array) -> tuple[float, Array]:
        margin = signed @ weights
        gradient = -((counts * expit(-margin))[:, None] * signed).mean(0) + _RIDGE * weights
        return float(-(counts * log_expit(margin)).mean() + _RIDGE / 2 * weights @ weights), gradient

    count = logits.shape[1]
    start, bounds = np.full(count, 1 / count), [(0, None)] * count
    found = np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)
    return found / found.sum() if found.sum() > 0 else start


def make_ensemble(settings: EnsembleSettings) -> Path:
    """Make one detector of several; returns the run folder, with the bundle in ``model/``.

    Weights, temperature and threshold come from the validation rows of the folders, at most 2,000 of each class, of
    which every kind, source and generator counts as in the first member's training batches. Test rows are never read.
    The bundle holds all weights; the members' own bundles are kept beside it in ``members/``.

    Args:
        settings: of what, on what, how.

    Raises:
        UserError: fewer than two members, the same one twice, members of different size or crop, data of another
            size or crop, nothing to validate on, members that were trained with different folders when none are named,
            a validation group or image that a member was trained on, or one of which that cannot be known.
    """
    method = settings.method
    members = [bundle.load(path, settings.device) for path in settings.bundles]
    _check_members(members)
    reopened = reopen_shared(members, settings.real, settings.fake, settings.force)
    data = reopened.data
    seen = _check_data(members, data, settings.force)
    held = data.validation(recipe=reopened.recipe)
    images, labels = held.images, held.labels
    weighed = reopened.weigh(held.kinds)
    run = Run.create(settings.out, _config(settings.bundles, method, data, held.digest), kind="detect")
    temperatures = [_temperature(member) for member in members]
    logits = np.stack(
        [
            member.outputs(images)[0] / temperature
            for member, temperature in zip(members, temperatures, strict=True)
        ],
        axis=1,
    )
    fitted = fit_weights(method, logits, labels, weighed.weights)
    combined = fitted(logits)
    network = _joined(members, temperatures, fitted)
    audit = data.audit()
    card = {
        "model": "ensemble",
        "options": network.options,
        "size": data.size,
        "crop": members[0].card["crop"],
        **({"view": data.view.describe()} if data.view.native else {}),
        "method": method,
        **calibration.by_temperature(combined, labels, weighed.weights),
        "validation_hash": held.digest,
        "validation_ap": ranking.average_precision(labels, combined, weighed.weights),
        WEIGHED: weighed.describe(labels, combined),
        "trained_with": trained_with(data, reopened.facts, held.digest),
        "data_hashes": {
            path: value
            for hashes in (*(member.card.get("data_hashes") or {} for member in members), data.hashes())
            for path, value in hashes.items()
        },
        "sources": _sources(members, data),
        "audit": _audit(members, audit),
        "notes": [*reopened.notes, *refuse_unknown(seen, True, ""), *seen.notes],
        "members": [
            _facts(member, float(weight), ranking.average_precision(labels, own, weighed.weights))
            for member, weight, own in zip(members, fitted.weights, logits.T, strict=True)
        ],
    }
    bundle.save(run.model, network, card, seen)
    for number, member in enumerate(members):
        _copy(member, run.model / "members" / f"{number:02d}")
    run.finish({"val_ap": card["validation_ap"]})
    return run.path


def _joined(
    members: Sequence[Detector], temperatures: Sequence[float], fitted: MemberWeights
) -> DetectorNetwork:
    """The network that holds the members' networks, with their weights."""
    parts = [
        {"model": member.card["model"], "options": member.network.options, "temperature": temperature}
        for member, temperature in zip(members, temperatures, strict=True)
    ]
    options = {"members": parts, "weights": fitted.weights.tolist(), "bias": fitted.bias}
    network = create_model("ensemble", options=options)
    for own, member in zip(network.get_submodule("members").children(), members, strict=True):
        own.load_state_dict(member.network.state_dict())
    return network


def _config(bundles: Sequence[Path], method: str, data: TrainingData, val_hash: str) -> dict[str, Any]:
    return {
        "bundles": list(bundles),
        **{name: [pool.shards.path for pool in pools] for name, pools in data.pools().items()},
        "method": method,
        "size": data.size,
        "data_hashes": data.hashes(),
        "validation_hash": val_hash,
    }


def _check_members(members: Sequence[Detector]) -> None:
    if len(members) < 2:
        raise UserError("an ensemble needs at least two detectors", hint="name more bundles")
    first = members[0]
    seen: dict[str, Path] = {}
    for member in members:
        for fact in ("size", "crop", "view"):
            if member.card.get(fact) != first.card.get(fact):
                raise UserError(
                    f"{member.path} was trained on another {fact} than {first.path} "
                    f"({member.card.get(fact)} and {first.card.get(fact)})",
                    hint="train them on images prepared alike",
                )
        if member.hash in seen:
            raise UserError(
                f"{member.path} and {seen[member.hash]} are the same detector", hint="leave one out"
            )
        seen[member.hash] = member.path


def _check_data(members: Sequence[Detector], data: TrainingData, force: bool) -> Seen:
    """Images as the members know them, and validation rows that none was trained on; what all of them have seen."""
    pools = data.real + data.fake + data.synthetic
    sets = [pool.shards for pool in pools]
    for shards in sets:
        members[0].check_data(shards)
    every = []
    for member in members:
        seen = seen_by(member, sets)
        refuse_unknown(seen, force, f"put it back where {member.path} knows it, or --force")
        refuse_overlap(
            seen.only("trained on"),
            sets,
            [pool.val for pool in pools],
            hint="give the folders that the members were trained on",
            by=f" by {member.path}",
        )
        every.append(seen)
    validated = (Seen.of(pool.shards, pool.val, "validated on") for pool in pools)
    return union([*every, *validated])


def _temperature(member: Detector) -> float:
    """What the member's logits are divided by; another kind of calibration is left to the ensemble's own."""
    own = member.calibration
    return float(own["temperature"] if own["method"] == "temperature" else member.card.get("temperature", 1))


def _sources(members: Sequence[Detector], data: TrainingData) -> list[str]:
    """What the members were trained on; of one that does not say it, the folders of the ensemble stand for it."""
    own = [member.card.get("sources") or () for member in members]
    return sorted({*(data.sources() if not all(own) else ()), *(source for each in own for source in each)})


def _audit(members: Sequence[Detector], audit: dict[str, Any]) -> dict[str, Any]:
    """Of the folders; of what a published member was trained on nobody here can tell."""
    facts = {"verdict": audit["verdict"], "summary": audit["summary"]}
    elsewhere = [member.card["audit"]["summary"] for member in members if "published" in member.card]
    if not elsewhere:
        return facts
    summaries = [*dict.fromkeys(elsewhere), f"of the folders that the weights are from, {audit['summary']}"]
    return {"verdict": "unknown", "summary": "; ".join(summaries)}


def _facts(member: Detector, weight: float, ap: float) -> dict[str, Any]:
    kept = ("model", "validation_hash", "data_hashes", "sources", "published")
    card = {name: member.card[name] for name in kept if name in member.card}
    return {**card, "path": str(member.path), "hash": member.hash, "weight": weight, "validation_ap": ap}


def _copy(member: Detector, folder: Path) -> None:
    """The member's bundle, without what evaluations and exports have left in it."""
    folder.mkdir(parents=True)
    novelty = [file.name for file in member.path.glob("*.safetensors")]
    for name in {CARD, WEIGHTS, *novelty}:
        shutil.copyfile(member.path / name, folder / name)
