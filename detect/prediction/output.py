"""Predictions as a table, as CSV and as one JSON document, each written as they come.

The JSON document (``"schema": 1``; keys are added, never renamed)::

    {"schema": 1, "crossfake": "0.1.0",
     "detector": {"path", "hash", "model", "size", "crop", "threshold",
                  "view": {"pixels": "native", "window", "windows"} | null,
                  "grade": "none" | "weak" | "fair" | "good", "basis"},
     "note": "",
     "files": [{"path", "kind": "picture" | "video", "width", "height",
                "verdict": "real" | "no reliable answer" | "uncertain" | "fake" | "not judged",
                "probability", "problem", "annotated",
                "faces": [{"box": [x, y, width, height] | null, "person", "score", "probability", "low", "high",
                           "verdict", "novelty", "reasons": [], "quantile", "grade", "prior",
                           "frames": [{"frame", "seconds", "score", "probability", "verdict", "box"}]}],
                "skipped": [{"reason", "box", "frames"}], "claim", "metadata": null}],
     "summary": {"files", "judged", "not_judged", "real", "no_reliable_answer", "uncertain", "fake"}}

Without a reliable answer ``probability``, ``low`` and ``high`` are null: only the network's own ``score`` is told.

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
from crossfake.detect.verdict import NO_ANSWER, NOT_JUDGED, REASONS, UNCERTAIN, VERDICTS, Verdict
from crossfake.detect.wording import state
from crossfake.errors import UserError

SCHEMA = 1
_COLOURS = {"fake": "red", "real": "green", UNCERTAIN: "yellow", NO_ANSWER: "yellow"}
_WIDE = len(NO_ANSWER)
COLUMNS = (
    "path", "kind", "verdict", "probability", "low", "high", "score", "novelty", "reasons", "person",
    "left", "top", "width", "height", "frames", "quantile", "problem", "claim",
)  # a table  # fmt: skip


class Summary:
    """Counts what passes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def counting(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Pass predictions on, and count them."""
        for prediction in predictions:
            self.counts[prediction.verdict] += 1
            yield prediction

    @property
    def judged(self) -> int:
        """Files with a verdict."""
        return self.counts.total() - self.counts[NOT_JUDGED]

    def line(self, where: str) -> str:
        """``9,999 judged, 1 could not be (listed above)``."""
        missing = self.counts[NOT_JUDGED]
        verdicts = ", ".join(f"{self.counts[v]:,} {v}" for v in reversed(VERDICTS) if self.counts[v])
        return f"{self.judged:,} judged" + (
            f", {missing:,} could not be ({where})" if missing else f": {verdicts}" if verdicts else ""
        )

    def as_dict(self) -> dict[str, int]:
        """The counts as ``--json`` has them."""
        return {
            "files": self.counts.total(),
            "judged": self.judged,
            "not_judged": self.counts[NOT_JUDGED],
            **{verdict.replace(" ", "_"): self.counts[verdict] for verdict in VERDICTS},
        }


def write_table(predictions: Iterator[Prediction], echo: Callable[[str], Any], basis: str = "") -> None:
    """A line per face, those that could not be judged at the end, then what the words mean and what to do next.

    Args:
        predictions: one by one.
        echo: takes a line.
        basis: what the detector learned from and was tested on.
    """
    seen: set[str] = set()
    advice: dict[str, int] = {}
    priors: set[float] = set()
    problems: list[str] = []
    summary = Summary()
    echo(f"{'verdict':<{_WIDE}}  fake?  95% interval  file")
    for prediction in summary.counting(predictions):
        name = printable(prediction.path)
        if prediction.claim:
            claim = click.style(f"{'generated?':<{_WIDE}}", fg="red")
            echo(f"{claim}      -  -             {name}  {printable(prediction.claim)}")
        if not prediction.judged:
            problems.append(f"{name}: {printable(prediction.problem)}")
            echo_metadata(prediction, name, echo)
            continue
        for number, face in enumerate(prediction.faces):
            seen.update(face.reasons)
            if face.verdict in (UNCERTAIN, NO_ANSWER):
                says = state(face)
                advice[f"{says.headline}: {says.next}"] = advice.get(f"{says.headline}: {says.next}", 0) + 1
            priors |= {face.prior} if face.prior is not None and face.probability is not None else set()
            echo(_line(face, name, number, prediction))
        for each in prediction.skipped:
            what = f"{each.frames} frames" if each.frames else "one face"
            echo(f"{NOT_JUDGED:<{_WIDE}}      -  -             {name}  {what}: {each.reason}")
        echo_metadata(prediction, name, echo)
    if problems:
        echo(f"\n{len(problems):,} could not be judged:")
        for problem in problems:
            echo(f"  {problem}")
    echo(f"\n{summary.line('listed above')}")
    for code in REASONS:
        if code in seen:
            echo(f"{code}: {REASONS[code]}")
    for words, count in advice.items():
        echo(f"{words} ({count:,})")
    for prior in sorted(priors):
        echo(
            f"fake?: what share of such pictures is fake where {prior:.0%} of all are (--prior); fake above 0.5 only"
        )
    if basis:
        echo(basis)
    if "untested" in seen:
        echo(
            "Test it with 'detect evaluate' on reals and fakes that it did not learn from: the bundle keeps that."
        )
    echo("A generator that the detector never saw may pass as real. It is not proof.")


def echo_metadata(prediction: Prediction, name: str, echo: Callable[[str], Any]) -> None:
    """What a file says of itself, indented, where it was asked for."""
    if prediction.metadata is not None:
        echo(f"    metadata of {name}")
        for line in metadata_lines(prediction.metadata):
            echo(f"    {printable(line)}")


def _line(face: Verdict, name: str, number: int, prediction: Prediction) -> str:
    interval = "-" if face.low is None or face.high is None else f"{face.low:.2f} to {face.high:.2f}"
    count = len(prediction.faces)
    who = "" if count == 1 else f"  {'person' if face.frames else 'face'} {number + 1} of {count}"
    if face.frames:
        who += f"  {len(face.frames)} frames"
        who += f", highest tenth from {face.quantile:.3f}" if face.quantile is not None else ""
    verdict = click.style(f"{face.verdict:<{_WIDE}}", fg=_COLOURS[face.verdict])
    probability = "    -" if face.probability is None else f"{face.probability:.3f}"
    reasons = f"  [{', '.join(face.reasons)}]" if face.reasons else ""
    return f"{verdict}  {probability}  {interval:<12}  {name}{who}{reasons}"


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
            "grade": detector.fitness.grade,
            "basis": detector.fitness.basis(),
        },
        "note": note,
    }
    comma = ""
    for prediction in summary.counting(predictions):
        out.write(
            f"{comma}{json.dumps(prediction.as_dict())}"
            if comma
            else f'{json.dumps(head)[:-1]}, "files": [\n{json.dumps(prediction.as_dict())}'
        )
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
    """A row for each face; one for a file that was not judged."""
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
