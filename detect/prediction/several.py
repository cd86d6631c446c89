"""Several detectors judge the same files: one table that says which of them looked at what.

With ``--json`` the document is::

    {"schema": 1, "crossfake": "0.1.0",
     "detectors": {name: {"path", "hash", "model", "threshold", "calibrated", "looks_at", "note", "grade", "basis"}},
     "files": [{"detector": name, "looked_at": "face" | "picture" | null, ...}],
     "summary": {name: {"files", "judged", "not_judged", "real", "no_reliable_answer", "uncertain", "fake"},
                 "differently": 3}}

with an entry of ``files`` for each detector and file, otherwise as in :mod:`crossfake.detect.prediction.output`.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from crossfake import __version__
from crossfake.datasets.crops import crop_words
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.prediction.annotate import clean_name
from crossfake.detect.prediction.media import find_inputs
from crossfake.detect.prediction.output import COLUMNS, SCHEMA, Summary, csv_rows, echo_metadata, printable
from crossfake.detect.prediction.predict import plan, predict_inputs
from crossfake.detect.prediction.verdicts import Prediction
from crossfake.detect.settings import PredictSettings
from crossfake.detect.tables import aligned
from crossfake.detect.verdict import NO_ANSWER, NOT_JUDGED
from crossfake.errors import UserError


@dataclass(frozen=True)
class NamedDetector:
    """One of several detectors.

    Attributes:
        name: short, and its own.
        looks_at: in words.
        note: where pictures are cut otherwise than in its training.
    """

    name: str
    detector: Detector
    looks_at: str
    note: str = ""

    def facts(self) -> dict[str, Any]:
        """What ``--json`` says of it."""
        own = self.detector
        return {
            "path": str(own.path),
            "hash": own.hash,
            "model": own.card["model"],
            "threshold": own.threshold,
            "calibrated": bool(own.calibration.get("interval")),
            "looks_at": self.looks_at,
            "note": self.note,
            "grade": own.fitness.grade,
            "basis": own.fitness.basis(),
        }


Judged = tuple[NamedDetector, Prediction]


def name_detectors(
    bundles: Sequence[Path], detectors: Sequence[Detector], faces: str | None = None
) -> list[NamedDetector]:
    """Each detector under the last part of its path, or all of it where two end alike."""
    ends = [path.parent.name if path.name == "model" else path.name for path in map(Path, bundles)]
    names = [end if ends.count(end) == 1 else str(path) for end, path in zip(ends, bundles, strict=True)]
    if len(set(names)) < len(names):
        raise UserError("the same bundle is named twice", hint="leave one --bundle out")
    return [
        NamedDetector(name, each, looks_at(each), plan(each, faces).note)
        for name, each in zip(names, detectors, strict=True)
    ]


def looks_at(detector: Detector) -> str:
    """What a detector looks at, in words."""
    if "published" in detector.card:
        return str(detector.card["published"]["looks at"])
    crop, view = detector.card["crop"] or {}, detector.view
    what = f"each face ({crop_words(crop)})" if crop.get("policy") in ("face", "square") else crop_words(crop)
    if view.native:
        return f"{what}, {view.windows} windows of {view.window} of the picture's own pixels"
    return f"{what}, {detector.size}×{detector.size}"


def judge(
    paths: Sequence[str], detectors: Sequence[NamedDetector], settings: PredictSettings
) -> Iterator[Judged]:
    """Each file's predictions one after the other, in the order of the detectors; annotated copies in a folder of each.

    Raises:
        UserError: as of :func:`~crossfake.detect.prediction.predict.predict`.
    """
    workers = max(1, (settings.workers or os.cpu_count() or 1) // len(detectors))
    each_own = dataclasses.replace(settings, workers=workers)
    # a file says the same to all
    first = [named is detectors[0] and settings.metadata for named in detectors]
    marked = [settings.annotate and settings.annotate / clean_name(named.name) for named in detectors]
    inputs = itertools.tee(find_inputs(paths, settings.allow_urls, settings.annotate), len(detectors))
    every = [
        predict_inputs(
            mine, named.detector, dataclasses.replace(each_own, metadata=metadata, annotate=folder)
        )
        for mine, named, metadata, folder in zip(inputs, detectors, first, marked, strict=True)
    ]
    return (judged for each in zip(*every, strict=True) for judged in zip(detectors, each, strict=True))


def looked_at(prediction: Prediction) -> str | None:
    """``face`` or ``picture``; None where nothing was judged."""
    if not prediction.judged:
        return None
    return "picture" if prediction.faces[0].box is None else "face"


class Counts:
    """Counts what passes, and of how many files the detectors say different things."""

    def __init__(self, detectors: Sequence[NamedDetector]) -> None:
        self.summaries = {named.name: Summary() for named in detectors}
        self.differently, self._verdicts = 0, set[str]()

    def counting(self, judged: Iterable[Judged]) -> Iterator[Judged]:
        """Pass predictions on, and count them."""
        last = list(self.summaries)[-1]
        for named, prediction in judged:
            self.summaries[named.name].counts[prediction.verdict] += 1
            if prediction.judged:
                self._verdicts.add(prediction.verdict)
            if named.name == last:
                self.differently += len(self._verdicts) > 1
                self._verdicts = set()
            yield named, prediction

    @property
    def judged(self) -> int:
        """Verdicts of all detectors."""
        return sum(summary.judged for summary in self.summaries.values())

    def as_dict(self) -> dict[str, Any]:
        """The counts as ``--json`` has them."""
        own = {name: summary.as_dict() for name, summary in self.summaries.items()}
        return {**own, "differently": self.differently}


def write_table(
    judged: Iterable[Judged], detectors: Sequence[NamedDetector], counts: Counts, echo: Callable[[str], Any]
) -> None:
    """What each detector looks at, a line per detector and face, then what could not be judged."""
    rows = [["detector", "tests", "calibrated", "looks at"]]
    for named in detectors:
        facts = named.facts()
        rows.append([named.name, facts["grade"], "yes" if facts["calibrated"] else "no", named.looks_at])
    for line in [
        *aligned(rows),
        *(f"note: {named.name}: {named.note}" for named in detectors if named.note),
        "",
        f"{'verdict':<{len(NO_ANSWER)}}  fake?  95% interval  {'detector':<{_wide(detectors)}}  saw      file",
    ]:
        echo(line)
    problems: list[str] = []
    for named, prediction in judged:
        name = printable(prediction.path)
        if prediction.claim and named is detectors[0]:
            echo(
                f"{'generated?':<{len(NO_ANSWER)}}      -  -             {name}  {printable(prediction.claim)}"
            )
        if not prediction.judged:
            problems.append(f"{name}: {named.name}: {printable(prediction.problem)}")
        for number, face in enumerate(prediction.as_dict()["faces"]):
            interval = "-" if face["low"] is None else f"{face['low']:.2f} to {face['high']:.2f}"
            of = f"  {number + 1} of {len(prediction.faces)}" if len(prediction.faces) > 1 else ""
            reasons = f"  [{', '.join(face['reasons'])}]" if face["reasons"] else ""
            saw = "picture" if face["box"] is None else "face"
            chance = "    -" if face["probability"] is None else f"{face['probability']:.3f}"
            echo(
                f"{face['verdict']:<{len(NO_ANSWER)}}  {chance}  {interval:<12}  "
                f"{named.name:<{_wide(detectors)}}  {saw:<7}  {name}{of}{reasons}"
            )
        echo_metadata(prediction, name, echo)
    if problems:
        echo(f"\n{NOT_JUDGED}:")
        for problem in problems:
            echo(f"  {problem}")
    echo("")
    for seat_name, summary in counts.summaries.items():
        echo(f"{seat_name}: {summary.line('listed above')}")
    echo(f"judged differently by different detectors: {counts.differently:,} files")
    for named in detectors:
        echo(f"{named.name}: {named.detector.fitness.basis()}")
    echo(
        "Probabilities compare only where the detectors were calibrated on the same pictures. "
        "A generator that none of them ever saw may pass as real. It is not proof."
    )


def _wide(detectors: Sequence[NamedDetector]) -> int:
    return max(len("detector"), *(len(named.name) for named in detectors))


def write_json(
    judged: Iterable[Judged], detectors: Sequence[NamedDetector], counts: Counts, out: TextIO
) -> None:
    """One document; an entry is written as soon as it is there."""
    head = {"schema": SCHEMA, "crossfake": __version__, "detectors": {s.name: s.facts() for s in detectors}}
    out.write(f'{json.dumps(head)[:-1]}, "files": [')
    comma = "\n"
    for named, prediction in judged:
        entry = {"detector": named.name, "looked_at": looked_at(prediction), **prediction.as_dict()}
        out.write(f"{comma}{json.dumps(entry)}")
        comma = ",\n"
    out.write(f'\n], "summary": {json.dumps(counts.as_dict())}}}\n')


def writing_csv(judged: Iterable[Judged], path: Path) -> Iterator[Judged]:
    """Pass on, a row per detector and face written to a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictWriter(file, ("detector", "looked_at", *COLUMNS))
            table.writeheader()
            for named, prediction in judged:
                own = {"detector": named.name, "looked_at": looked_at(prediction)}
                table.writerows({**own, **row} for row in csv_rows(prediction))
                yield named, prediction
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --csv") from error
