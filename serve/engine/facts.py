"""What is known of a detector from its card and from its evaluation."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from crossfake.datasets.firewall import OWN
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.bundle.novelty import noticed_words
from crossfake.serve.engine.results import DetectorFacts
from crossfake.serve.engine.wording import facts_words
from crossfake.stats.intervals import clopper_pearson

_EVALUATION = "evaluation/evaluation.json"


def facts(name: str, detector: Detector, finds_faces: bool) -> DetectorFacts:
    """Facts in figures and in words; what the evaluation does not say for certain stays unknown."""
    card = detector.card
    folders = {} if detector.published else card.get("data_hashes") or {}
    trained = [Path(folder).name for folder in folders] or card.get("sources") or []
    plain = DetectorFacts(
        name=name,
        model=str(card["model"]),
        hash=detector.hash,
        size=detector.size,
        sees=sees_words(detector, finds_faces),
        threshold=detector.threshold,
        calibrated=bool(detector.calibration.get("interval")),
        trained_on=tuple(dict.fromkeys(map(str, trained))),
        grade=detector.fitness.grade,
        basis=detector.fitness.basis(),
        prior=detector.prior,
    )
    measured, unknown = _measured(detector)
    plain = dataclasses.replace(plain, **measured)
    audit = card.get("audit") or {}
    flaw = str(audit.get("summary", "")) if audit.get("verdict") == "fail" else ""
    elsewhere = tuple(
        f"{each['name']} was made elsewhere ({each['paper']}): of what it was trained on only the name is known. "
        f"Licence of its weights: {each['licence']}."
        for each in detector.published
    )
    strangers = (noticed_words(card["novelty"]),) if card.get("novelty") else ()
    return dataclasses.replace(plain, words=(*facts_words(plain, flaw, unknown), *strangers, *elsewhere))


def sees_words(detector: Detector, finds_faces: bool) -> str:
    """What a detector looks at, in words."""
    what = "the face" if finds_faces else "the whole picture"
    if detector.view.whole:
        return what
    if detector.view.native:
        return f"windows of {what} at its own pixels"
    return f"{what}, resampled to {detector.size} pixels"


def _measured(detector: Detector) -> tuple[dict[str, Any], str]:
    """False alarms and hits on the test set; or why they are not known."""
    file = next(
        (f / _EVALUATION for f in (detector.path.parent, detector.path) if (f / _EVALUATION).is_file()), None
    )
    if file is None:
        return {}, "it was not evaluated"
    try:
        found = json.loads(file.read_text())
        if found.get("model_hash") != detector.hash:
            return {}, "its evaluation is of other weights"
        before = "not kept" if OWN in detector.card.get("sources", ()) else "checked"  # without generators
        if found.get("firewall", before) != "checked":
            return (
                {},
                "the images of its evaluation may be among those that it, or its generators, learned from",
            )
        if not math.isclose(float(found["threshold"]), detector.threshold, abs_tol=1e-6):
            return {}, "it was evaluated before its last calibration"
        return _rates(found), ""
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}, "its evaluation cannot be read"


def _rates(found: dict[str, Any]) -> dict[str, Any]:
    (true, false), _ = found["overall"]["confusion"]
    reals = true + false
    rates: dict[str, Any] = {
        "tested_on": tuple(
            (str(name).partition(":")[0], int(part["n_fake"]), float(part["recall"]))
            for name, part in found["by_generator"].items()
            if part.get("recall") is not None
        )
    }
    if reals:
        # pictures of one group say no more than one: their number counts for the interval
        units = (found.get("by_group") or {}).get("mean", {}).get("n_real") or reals
        rate = false / reals
        rates |= {
            "false_alarms": rate,
            "false_alarms_interval": clopper_pearson(rate * units, units),
            "reals": reals,
        }
    return rates
