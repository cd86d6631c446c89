"""A test on strangers' pictures, kept in the bundle: what the detector's words may rest on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfake import __version__
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle, fitness
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.evaluation.benign import ALL
from crossfake.detect.verdict import LABELS, UNCERTAIN
from crossfake.errors import UserError
from crossfake.stats.intervals import share_interval

if TYPE_CHECKING:
    from crossfake.detect.evaluation.evaluate import Scored


def record(
    detector: Detector, sets: Sequence[ShardSet], scored: Scored, benign: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What a bundle keeps of a test.

    Args:
        detector: that was tested.
        sets: what on; the caller has seen to it that nothing was learned from any of it.
        scored: with its calls.
        benign: of reals that were retouched and sent on; empty when not asked for.

    Returns:
        ``tested``, one entry per source of reals and per generator of fakes, with n, groups, shares called fake and
        real with Wilson's intervals, the hash of its data, and why it tells nothing about strangers where that is so;
        hashes of the weights, the calibration, the rows and the scores, so that whoever has the data can repeat it.
    """
    rows = [
        [
            shards.hash,
            hashlib.sha256(np.sort(scored.row[scored.folder == n]).astype("<i8").tobytes()).hexdigest(),
        ]
        for n, shards in enumerate(sets)
    ]
    groups = scored.groups()
    parts = []
    for label, column in enumerate(("source", "generator")):
        names = scored.columns[column]
        for name in np.unique(names[scored.labels == label]):
            chosen = (names == name) & (scored.labels == label)
            parts.append(_entry(detector, LABELS[label], str(name), scored, chosen, groups, sets))
    order = np.lexsort((scored.row, scored.folder))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "crossfake": __version__,
        "model_hash": detector.hash,
        "calibration": fitness.calibration_digest(detector.card),
        "rows": hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest(),
        "scores": hashlib.sha256(np.round(scored.scores[order], 4).astype("<f8").tobytes()).hexdigest(),
        "tested": parts,
        "benign": benign[ALL]["interval"][1] if benign else None,
    }


def _entry(
    detector: Detector,
    label: str,
    name: str,
    scored: Scored,
    chosen: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    sets: Sequence[ShardSet],
) -> dict[str, Any]:
    data = "".join(sorted(sets[n].hash for n in np.unique(scored.folder[chosen])))
    found: dict[str, Any] = {
        "name": name,
        "label": label,
        "n": int(chosen.sum()),
        "groups": len(np.unique(groups[chosen])),
        "data": hashlib.sha256(data.encode()).hexdigest(),
        "known": fitness.why_known(detector.card, label, name),
    }
    for word in LABELS:
        called = (scored.called[chosen] == word).astype(np.int64)
        found |= {
            word: float(called.mean()),
            f"{word}_interval": list(share_interval(called, groups[chosen])),
        }
    return found


def keep(
    detector: Detector,
    sets: Sequence[ShardSet],
    scored: Scored,
    benign: dict[str, dict[str, Any]],
    firewall: str,
    precision: str,
) -> dict[str, Any]:
    """Write a test into the bundle, where it tells anything about strangers and nothing flatters it.

    Returns:
        the ``test`` as :func:`record` has it, the ``grade`` that holds now, and ``lines`` for a terminal.

    Raises:
        UserError: the bundle cannot be written.
    """
    test = record(detector, sets, scored, benign)
    if firewall != "checked" or precision != "fp32":
        why = "thresholds are of fp32" if firewall == "checked" else "the firewall was not kept"
        lines = [f"this test is not kept in the bundle: {why}"]
        return {"test": test, "grade": detector.fitness.grade, "lines": lines}
    now = detector.fitness
    if not all(part["known"] for part in test["tested"]):
        card = fitness.added(detector.card, test)
        try:
            bundle.write_card(detector.path, card)
        except OSError as error:
            raise UserError(
                f"cannot write {detector.path} ({error.strerror})",
                hint="copy the bundle to where you may write",
            ) from error
        now = fitness.of_card(card, detector.hash)
    return {"test": test, "grade": now.grade, "lines": describe(now, test)}


def describe(found: fitness.Fitness, test: dict[str, Any]) -> list[str]:
    """Lines for a terminal: what the test adds, and what may be said from now on."""
    lines = []
    for part in test["tested"]:
        if part["known"]:
            lines.append(f"{part['name'] or 'unnamed'} tells nothing about strangers: {part['known']}")
        elif part["groups"] < fitness.LEAST:
            lines.append(
                f"{part['name']} counts for nothing: {part['groups']} groups, and it takes {fitness.LEAST}"
            )
    lines += [f"left out: {flaw}" for flaw in found.flaws]
    can = [f"{label} {found.grade_of(label)}" for label in LABELS]
    return [*lines, f"fitness: {found.grade} ({', '.join(can)}). {found.basis()}"]


def calls(detector: Detector, images: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Probability ``[N]``, and what the detector by itself calls each: ``real``, ``fake`` or ``uncertain``."""
    logits, features, error = detector.outputs_and_error(images)
    found = detector.judge_outputs(logits, features, error)
    words = np.array([each.verdict for each in found], dtype=f"<U{len(UNCERTAIN)}")
    return detector.probability(logits), words
