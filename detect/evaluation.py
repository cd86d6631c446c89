"""How good a detector is on data that it was not trained on: figures with intervals, per source and overall."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import related
from crossfake.detect import bundle, metrics
from crossfake.detect.bundle import Detector
from crossfake.device import Precision
from crossfake.errors import UserError
from crossfake.runs import write_text

_BATCH = 512


@dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate on what.

    Attributes:
        bundle: run of ``detect train``, or a bundle folder.
        data: shard folders of reals and of fakes.
        split: rows to use; ``all`` takes every row.
        out: where results go; ``evaluation`` inside the bundle's run when None.
        bootstrap: resamples for the intervals.
        force: evaluate although the data was cropped differently.
    """

    bundle: Path
    data: tuple[Path, ...]
    split: str = "test"
    out: Path | None = None
    bootstrap: int = 1000
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("there is nothing to evaluate on", mend="name shard folders with --data DIR")
        if self.bootstrap < 0:
            raise UserError("the number of resamples cannot be negative", mend="give --bootstrap 1000")


@dataclass(frozen=True)
class Scored:
    """Every image judged, one entry each."""

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    columns: dict[str, npt.NDArray[Any]]

    def rows(self, keep: npt.NDArray[np.bool_]) -> Scored:
        columns = {name: values[keep] for name, values in self.columns.items()}
        return Scored(self.labels[keep], self.scores[keep], columns)


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score the data and write ``evaluation.json``, ``scores.csv``, ``roc.png`` and ``confusion.png``.

    Parts of the result: ``overall``, ``by_source`` (images of one source), and ``by_generator`` (fakes of one
    generator against all reals). Each has n and, where both classes are there, intervals. The detector's run notes
    which test data was opened.

    Raises:
        UserError: no such rows, or data of another size or crop.
    """
    detector = bundle.load(settings.bundle, settings.device, settings.precision)
    sets = [ShardSet(folder) for folder in settings.data]
    _check_crops(detector, sets, settings.force)
    rows = [shards.select(split=None if settings.split == "all" else settings.split) for shards in sets]
    for shards, chosen in zip(sets, rows, strict=True):
        if not len(chosen):
            raise UserError(
                f"{shards.path} has no {settings.split} rows", mend="name another --split, or --split all"
            )
    hashes = {str(shards.path): shards.hash for shards in sets}
    _note_opening(detector, hashes, settings.split)
    scored = score(detector, sets, rows)
    result: dict[str, Any] = {
        "bundle": str(settings.bundle),
        "model": detector.card["model"],
        "model_hash": detector.hash,
        "data_hashes": hashes,
        "split": settings.split,
        "threshold": detector.threshold,
        "notes": _notes(detector, scored),
        "bootstrap": settings.bootstrap,
        "seed": settings.seed,
        "overall": _part(scored, detector.threshold, settings),
        "by_source": {},
        "by_generator": {},
    }
    reals = scored.labels == 0
    for source in np.unique(scored.columns["source"]):
        of_source = scored.rows(scored.columns["source"] == source)
        result["by_source"][str(source)] = _part(of_source, detector.threshold, settings)
    for generator in np.unique(scored.columns["generator"][~reals]):
        against = scored.rows(reals | (scored.columns["generator"] == generator))
        result["by_generator"][str(generator)] = _part(against, detector.threshold, settings)
    out = settings.out or detector.path.parent / "evaluation"
    _write(out, result, scored, detector.threshold)
    return {**result, "out": str(out)}


def score(detector: Detector, sets: Sequence[ShardSet], rows: Sequence[npt.NDArray[np.int64]]) -> Scored:
    """Judge the chosen rows of each set."""
    scores = []
    with tqdm(total=sum(map(len, rows)), unit="img", desc="evaluate") as bar:
        for shards, chosen in zip(sets, rows, strict=True):
            for start in range(0, len(chosen), _BATCH):
                images = shards.read_many(chosen[start : start + _BATCH])
                scores.append(detector.score(images))
                bar.update(len(images))
    names = ("source", "generator", "group", "origin", "label")
    columns = {
        name: np.concatenate(
            [shards.columns[name][chosen] for shards, chosen in zip(sets, rows, strict=True)]
        )
        for name in names
    }
    return Scored(columns.pop("label").astype(np.int64), np.concatenate(scores), columns)


def _part(scored: Scored, threshold: float, settings: EvaluateSettings) -> dict[str, Any]:
    figures = metrics.summary(scored.labels, scored.scores, threshold)
    groups = np.where(scored.columns["group"] == "", scored.columns["origin"], scored.columns["group"])
    intervals: dict[str, Any] = {}
    if settings.bootstrap:
        intervals = metrics.bootstrap(
            scored.labels, scored.scores, groups, threshold, settings.bootstrap, settings.seed
        )
    fakes = int(scored.labels.sum())
    return {
        "n_real": len(scored.labels) - fakes,
        "n_fake": fakes,
        "n_groups": len(np.unique(groups)),
        **{name: None if np.isnan(value) else value for name, value in figures.items()},
        "intervals": {name: list(pair) for name, pair in intervals.items() if not np.isnan(pair[0])},
        "confusion": metrics.confusion(scored.labels, scored.scores, threshold),
    }


def _notes(detector: Detector, scored: Scored) -> list[str]:
    """What a reader of the figures has to know about the data behind them."""
    notes = []
    if "audit" in detector.card:  # bundles made before there was an audit
        notes.append(f"the training data: {detector.card['audit']['summary']}")
    for trained in detector.card.get("sources", []):
        for tested in np.unique(scored.columns["source"]):
            if trained != tested and (why := related(trained, str(tested))):
                notes.append(f"no cross-data-set test: {why}")
    return notes


def _check_crops(detector: Detector, sets: Sequence[ShardSet], force: bool) -> None:
    for shards in sets:
        crop = shards.attributes.get("crop")
        if crop and detector.card["crop"] and crop != detector.card["crop"] and not force:
            raise UserError(
                f"{shards.path} was cropped as {crop}, the detector was trained on {detector.card['crop']}",
                mend="prepare it the same way, or --force",
            )


def _note_opening(detector: Detector, hashes: dict[str, str], split: str) -> None:
    """Test data is opened on the record: a set looked at many times is no longer a test."""
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "split": split, "data": hashes}
    with open(detector.path.parent / "test_data_opened.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _write(out: Path, result: dict[str, Any], scored: Scored, threshold: float) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "scores.csv", "w", newline="", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(["label", *scored.columns, "score"])
            columns = [values.tolist() for values in scored.columns.values()]
            for label, *facts, value in zip(
                scored.labels.tolist(), *columns, scored.scores.tolist(), strict=True
            ):
                table.writerow([label, *facts, repr(value)])
        write_text(out / "evaluation.json", json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", mend="name another --out") from error
    if len(np.unique(scored.labels)) == 2:
        from crossfake.detect.pictures import confusion_picture, roc_picture

        roc_picture(_curves(scored), out / "roc.png")
        confusion_picture(result["overall"]["confusion"], threshold, out / "confusion.png")


def _curves(scored: Scored) -> dict[str, tuple[Any, Any, float]]:
    """Label to (false alarms, hits, AUC): overall, and each generator against all reals."""
    reals = scored.labels == 0
    generators = np.unique(scored.columns["generator"][~reals])
    parts = {"all fakes": scored} if len(generators) > 1 else {}
    parts |= {
        str(name) or "fakes": scored.rows(reals | (scored.columns["generator"] == name))
        for name in generators
    }
    return {
        name: (*metrics.roc_curve(part.labels, part.scores)[:2], metrics.auc(part.labels, part.scores))
        for name, part in parts.items()
    }


def format_table(result: dict[str, Any]) -> str:
    """The result as a terminal table: each figure with its interval."""
    names = ("ap", "auc", "eer", "accuracy", "precision", "recall", "f1")
    lines = [["", "reals", "fakes", *(name.upper() if len(name) < 4 else name for name in names)]]
    parts = {"overall": result["overall"]}
    parts |= {f"source {name}": part for name, part in result["by_source"].items()}
    parts |= {f"vs {name}": part for name, part in result["by_generator"].items()}
    for title, part in parts.items():
        lines.append(
            [title, str(part["n_real"]), str(part["n_fake"]), *(_cell(part, name) for name in names)]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(part: dict[str, Any], name: str) -> str:
    if part[name] is None:
        return "-"
    interval = part["intervals"].get(name)
    return f"{part[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
