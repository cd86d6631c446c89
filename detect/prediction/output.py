"""Predictions as a table, as CSV and as one JSON document, each written as they come.

The JSON document (``"schema": 1``; keys are added, never renamed)::

    {"schema": 1, "crossfake": "0.1.0",
     "detector": {"path", "hash", "model", "size", "crop", "threshold",
                  "view": {"pixels": "native", "window", "windows"} | null},
     "note": "",
     "files": [{"path", "kind": "picture" | "video", "width", "height",
                "verdict": "real" | "uncertain" | "fake" | "not judged", "probability", "problem", "annotated",
                "faces": [{"box": [x, y, width, height] | null, "person", "score", "probability", "low", "high",
                           "verdict", "novelty", "reasons": [], "quantile",
                           "frames": [{"frame", "seconds", "score", "probability", "verdict", "box"}]}],
                "skipped": [{"reason", "box", "frames"}], "claim", "metadata": null}],
     "summary": {"files", "judged", "not_judged", "real", "uncertain", "fake"}}

``claim`` is what a file itself says of the generator that made it; with ``--metadata``, ``metadata`` holds the fields
of :class:`~crossfake.detect.metadata.results.Metadata`. What the values mean is said at
:class:`~crossfake.detect.prediction.verdicts.Prediction` and :class:`~crossfake.detect.verdict.Verdict`; what is
unknown is null.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from crossfake import __version__
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.metadata.display import lines as metadata_lines
from crossfake.detect.prediction.verdicts import Prediction
from crossfake.detect.verdict import NOT_JUDGED, REASONS, VERDICTS, Verdict
from crossfake.errors import UserError

SCHEMA = 1
_COLOURS = {"fake": "red", "real": "green", "uncertain": "yellow"}
COLUMNS = (
    "path", "kind", "verdict", "probability", "low", "high", "score", "novelty", "reasons", "person",
    "left", "top", "width", "height", "frames", "quantile", "problem", "claim",
)  # fmt: skip


class Summary:
    """Counts what passes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def counting(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        for prediction in predictions:
            self.counts[prediction.verdict] += 1
            yield prediction

    @property
    def judged(self) -> int:
        return self.counts.total() - self.counts[NOT_JUDGED]

    def line(self, where: str) -> str:
        """``9,999 judged, 1 could not be (listed above)``."""
        missing = self.counts[NOT_JUDGED]
        verdicts = ", ".join(f"{self.counts[v]:,} {v}" for v in reversed(VERDICTS) if self.counts[v])
        return f"{self.judged:,} judged" + (
            f", {missing:,} could not be ({where})" if missing else f": {verdicts}" if verdicts else ""
        )

    def as_dict(self) -> dict[str, int]:
        return {
            "files": self.counts.total(),
            "judged": self.judged,
            "not_judged": self.counts[NOT_JUDGED],
            **{verdict: self.counts[verdict] for verdict in VERDICTS},
        }


def write_table(predictions: Iterator[Prediction], echo: Callable[[str], Any], threshold: float) -> None:
    """A line per face, those that could not be judged at the end, then what the words mean."""
    seen: set[str] = set()
    problems: list[str] = []
    summary = Summary()
    echo("verdict     fake?  95% interval  file")
    for prediction in summary.counting(predictions):
        name = printable(prediction.path)
        if prediction.claim:
            echo(
                f"{click.style('generated?', fg='red')}      -  -             {name}  {printable(prediction.claim)}"
            )
        if not prediction.judged:
            problems.append(f"{name}: {printable(prediction.problem)}")
            echo_metadata(prediction, name, echo)
            continue
        for number, face in enumerate(prediction.faces):
            seen.update(face.reasons)
            echo(_line(face, name, number, prediction))
        for each in prediction.skipped:
            what = f"{each.frames} frames" if each.frames else "one face"
            echo(f"{NOT_JUDGED:<10}      -  -             {name}  {what}: {each.reason}")
        echo_metadata(prediction, name, echo)
    if problems:
        echo(f"\n{len(problems):,} could not be judged:")
        for problem in problems:
            echo(f"  {problem}")
    echo(f"\n{summary.line('listed above')}")
    for code in REASONS:
        if code in seen:
            echo(f"{code}: {REASONS[code]}")
    echo(
        f"fake?: probability of fake among images like those of validation; fake from {threshold:.3f} on. "
        "A generator that the detector never saw may pass as real. It is not proof."
    )


def echo_metadata(prediction: Prediction, name: str, echo: Callable[[str], Any]) -> None:
    if prediction.metadata is not None:
        echo(f"    metadata of {name}")
        for line in metadata_lines(prediction.metadata):
            echo(f"    {printable(line)}")


def _line(face: Verdict, name: str, number: int, prediction: Prediction) -> str:
    interval = "-" if face.low is None or face.high is None else f"{face.low:.2f} to {face.high:.2f}"
    count = len(prediction.faces)
    who = "" if count == 1 else f"  {'person' if face.frames else 'face'} {number + 1} of {count}"
    if face.frames:
        who += f"  {len(face.frames)} frames, highest tenth from {face.quantile:.3f}"
    verdict = click.style(f"{face.verdict:<10}", fg=_COLOURS[face.verdict])
    reasons = f"  [{', '.join(face.reasons)}]" if face.reasons else ""
    return f"{verdict}  {face.probability:.3f}  {interval:<12}  {name}{who}{reasons}"


def printable(text: str) -> str:
    """A name as a terminal may show it: control characters and broken bytes as escapes.

    Example:
        >>> printable("a\\x1b[31m.png")
        'a\\\\x1b[31m.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_json(predictions: Iterator[Prediction], out: TextIO, detector: Detector, note: str) -> None:
    """One document; a file is written as soon as it is judged."""
    summary = Summary()
    card = detector.card
    head = {
        "schema": SCHEMA,
        "crossfake": __version__,
        "detector": {
            "path": str(detector.path),
            "hash": detector.hash,
            **{key: card.get(key) for key in ("model", "size", "crop", "threshold")},
            "view": detector.view.describe() if detector.view.native else None,
        },
        "note": note,
    }
    comma = ""
    for prediction in summary.counting(predictions):
        out.write(f"{comma}{json.dumps(prediction.as_dict())}" if comma else
                  f'{json.dumps(head)[:-1]}, "files": [\n{json.dumps(prediction.as_dict())}')  # fmt: skip
        comma = ",\n"
    out.write(f'\n], "summary": {json.dumps(summary.as_dict())}}}\n')


def writing_csv(predictions: Iterator[Prediction], path: Path) -> Iterator[Prediction]:
    """Pass predictions on, a row per face of each written to a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            for prediction in predictions:
                table.writerows(csv_rows(prediction))
                yield prediction
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --csv") from error


def csv_rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    plain = prediction.as_dict()
    common = {"path": prediction.path, "kind": prediction.kind, "claim": prediction.claim}
    if not prediction.judged:
        yield {**common, "verdict": NOT_JUDGED, "problem": prediction.problem}
    for face in plain["faces"]:
        left, top, width, height = face["box"] or [None] * 4
        row = {key: face[key] for key in COLUMNS if key in face}
        row |= {"reasons": " ".join(face["reasons"]), "frames": len(face["frames"]) or None}
        yield {**common, **row, "left": left, "top": top, "width": width, "height": height}
    for each in plain["skipped"] if prediction.judged else ():
        left, top, width, height = each["box"] or [None] * 4
        box = {"left": left, "top": top, "width": width, "height": height}
        yield {
            **common,
            "verdict": NOT_JUDGED,
            "problem": each["reason"],
            "frames": each["frames"] or None,
        } | box
