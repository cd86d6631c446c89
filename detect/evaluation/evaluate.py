"""How good a detector is on data that it was not trained on: figures with intervals, per source and overall."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake import __version__
from crossfake.datasets.remote import Shared
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.bundle.sent import SentDetector
from crossfake.detect.evaluation import metrics
from crossfake.detect.evaluation.benign import false_alarms
from crossfake.detect.evaluation.foreign import calls, keep
from crossfake.detect.evaluation.overlap import check_overlap, notes_on_training, seen_by
from crossfake.detect.evaluation.pooling import POOLINGS, Pooled, pool, videos
from crossfake.detect.settings import EvaluateSettings
from crossfake.detect.training.data import refuse_twice
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings, map_in_order
from crossfake.files import write_json
from crossfake.pages import plural
from crossfake.progress import tqdm
from crossfake.stats import ranking

_BATCH = 256
_FEW_GROUPS = 20
_UNEVEN = 1.25  # how much larger the units of one class may be

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """Every image judged, one entry each; the pictures themselves are not kept.

    Attributes:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, probability of fake.
        called: ``[N]``, what the detector by itself calls each: ``real``, ``fake`` or ``uncertain``.
        columns: ``source``, ``generator``, ``group`` and ``origin``, each ``[N]``.
        folder: ``[N]``, which of the sets an image is from.
        row: ``[N]``, and its row there.
        damaged: why images could not be judged, which are in none of the above.
    """

    labels: Rows
    scores: npt.NDArray[np.float64]
    columns: dict[str, npt.NDArray[Any]]
    folder: Rows
    row: Rows
    damaged: tuple[str, ...] = ()
    called: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))

    def groups(self) -> Rows:
        """Number of each image's group; what has none is one by its origin, or alone."""
        own = np.char.add(np.char.add(self.folder.astype(str), ":"), self.columns["origin"])
        alone = np.char.add(np.char.add(self.folder.astype(str), "#"), self.row.astype(str))
        names = np.where(self.columns["origin"] != "", own, alone)
        names = np.where(self.columns["group"] != "", self.columns["group"], names)
        return np.unique(names, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class _Case:
    """What figures are made of: images, or units of several."""

    labels: Rows
    scores: npt.NDArray[np.float64]
    groups: Rows

    def __getitem__(self, keep: Any) -> _Case:
        return _Case(self.labels[keep], self.scores[keep], self.groups[keep])


def evaluate(settings: EvaluateSettings, where: ExecutorSettings = LOCAL) -> dict[str, Any]:
    """Score the data and write ``evaluation.json``, ``scores.csv``, pictures, sheets and ``evaluation.html``.

    Parts of the result: ``overall``; ``by_source`` (images of one source); ``by_generator`` (fakes of one generator
    against all reals); ``by_group`` and ``by_video``, with one pooled score per group or video, under each pooling;
    ``worst``, the source and the generator that it does worst on; ``benign``, empty unless asked for
    (:func:`crossfake.detect.evaluation.benign.false_alarms`); ``fitness``, what the detector's words may say by now: a
    test on sources and generators that it did not learn from goes into its bundle. Each part has n and, where both
    classes are there, all of :func:`crossfake.detect.evaluation.metrics.summary` with intervals, at the threshold from
    validation. The detector's run notes which test data was opened.

    Args:
        settings: what to evaluate on what.
        where: what scores the images: this process, or tasks of Ray.

    Raises:
        UserError: no such rows, data of another size or crop, or groups or images that it was trained on.
    """
    from crossfake.detect.evaluation.page import show  # matplotlib

    # the head of a cluster need not have the GPU that its workers have
    device = "auto" if where.is_ray else settings.device
    detector = bundle.load(settings.bundle, device, settings.precision)
    sets = [ShardSet(folder) for folder in settings.data]
    refuse_twice(sets)
    for shards in sets:
        detector.check_data(shards, force=settings.force)
    rows = [shards.select(split=None if settings.split == "all" else settings.split) for shards in sets]
    for shards, chosen in zip(sets, rows, strict=True):
        if not len(chosen):
            raise UserError(
                f"{shards.path} has no {settings.split} rows", hint="name another --split, or --split all"
            )
    insists = settings.force or settings.split in ("all", "train")
    seen = seen_by(detector, sets)
    flaws = check_overlap(seen, sets, rows, insists)
    notes = [*flaws, *seen.notes]
    hashes = {str(shards.path): shards.hash for shards in sets}
    _note_opening(detector, hashes, settings.split)
    with where.connected():
        scored = score(detector, sets, rows, where, settings.device)
    case = _Case(scored.labels, scored.scores, scored.groups())
    result: dict[str, Any] = {
        "crossfake": __version__,
        "bundle": str(settings.bundle),
        "model": detector.card["model"],
        "model_hash": detector.hash,
        "validation_hash": detector.card.get("validation_hash"),
        "data_hashes": hashes,
        "split": settings.split,
        "threshold": detector.threshold,
        "threshold_from": detector.threshold_from,
        "firewall": "checked" if not flaws else "not kept",
        "n": len(scored.labels),
        "bootstrap": settings.bootstrap,
        "seed": settings.seed,
        "config": {k: v if isinstance(v, int) else str(v) for k, v in _recorded(settings).items()},
        "notes": [],
        "damaged": list(scored.damaged),
    }
    pooled = _pooled(scored, case.groups)
    notes += [*notes_on_training(detector.card, sets, rows, not flaws), *_notes(scored, case, pooled)]
    result["notes"] = notes
    parts = _parts(scored, case, pooled)
    with tqdm(parts, unit="part", desc="figures", disable=len(parts) < 4) as bar:
        for place, part in bar:
            found: dict[str, Any] = result
            for key in place[:-1]:
                found = found.setdefault(key, {})
            found[place[-1]] = _part(part, detector.threshold, settings)
    result = {"by_source": {}, "by_generator": {}, "by_group": {}, "by_video": {}} | result
    result["worst"] = _worst(result)
    result["notes"] += _below_chance(result)
    result["benign"] = false_alarms(detector, sets, scored, settings.seed) if settings.benign else {}
    result["fitness"] = keep(detector, sets, scored, result["benign"], result["firewall"], settings.precision)
    out = settings.out or _home(detector) / "evaluation"
    _write(out, result, scored, pooled.get("by_group"))
    show(out, result, scored, sets, settings.seed)
    return {**result, "out": str(out)}


def score(
    detector: Detector,
    sets: Sequence[ShardSet],
    rows: Sequence[Rows],
    where: ExecutorSettings = LOCAL,
    device: str = "auto",
) -> Scored:
    """Judge the chosen rows of each set, a batch at a time. Damaged rows are listed, not scored.

    Args:
        detector: the judge.
        sets: its data.
        rows: of each set.
        where: this process, or the cluster that is connected.
        device: of the cluster's workers.

    Raises:
        UserError: no row can be read, or a score is not a number.
    """
    scores: list[npt.NDArray[np.float64]] = []
    called: list[npt.NDArray[np.str_]] = []
    damaged: list[str] = []
    readable: list[list[Rows]] = [[np.empty(0, np.int64)] for _ in sets]
    batches = (
        (number, chosen[start : start + _BATCH])
        for number, chosen in enumerate(rows)
        for start in range(0, len(chosen), _BATCH)
    )
    work, demand = partial(_score_batch, detector=detector, sets=sets), None
    if where.is_ray:
        sent = SentDetector.of(detector, device)
        shared = [Shared.of(shards, where) for shards in sets]
        work, demand = partial(_score_batch, detector=sent, sets=shared), sent.demand
    with tqdm(total=sum(map(len, rows)), unit="img", desc="evaluate") as bar:
        for (number, batch), (found, words, good, unread) in map_in_order(work, batches, 1, where, demand):
            damaged += unread
            if len(good):
                scores.append(found)
                called.append(words)
                readable[number].append(good)
            bar.update(len(batch))
    kept = [np.concatenate(parts) for parts in readable]
    if not scores:
        raise UserError(
            f"no image can be read: {damaged[0]}", hint="see 'crossfake data verify', or prepare it again"
        )
    columns = {
        name: np.concatenate([shards.columns[name][good] for shards, good in zip(sets, kept, strict=True)])
        for name in ("source", "generator", "group", "origin", "label")
    }
    every = np.concatenate(scores)
    if np.isnan(every).any():
        first = str(columns["origin"][np.flatnonzero(np.isnan(every))[0]])
        raise UserError(
            f"the detector gives no number for {int(np.isnan(every).sum()):,} images, the first is {first!r}",
            hint="evaluate with --precision fp32; if that does not help, train it again",
        )
    folder = np.repeat(np.arange(len(sets)), [len(good) for good in kept])
    labels = columns.pop("label").astype(np.int64)
    return Scored(
        labels, every, columns, folder, np.concatenate(kept), tuple(damaged), np.concatenate(called)
    )


def _score_batch(
    batch: tuple[int, Rows], detector: Detector | SentDetector, sets: Sequence[ShardSet | Shared]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_], Rows, list[str]]:
    """Scores and calls of a set's rows that can be read, which they are, and what is wrong with the others."""
    number, rows = batch
    shards = sets[number]
    opened = detector if isinstance(detector, Detector) else detector.open()
    images, good, unread = opened.view.read(shards if isinstance(shards, ShardSet) else shards.open(), rows)
    found = calls(opened, images) if len(good) else (np.empty(0), np.empty(0, np.str_))
    return *found, good, unread


def _pooled(scored: Scored, groups: Rows) -> dict[str, tuple[Pooled, Rows]]:
    """Units of ``by_group`` and ``by_video``, each with the images that they are made of, if any has several."""
    apart = (scored.labels, scored.columns["generator"])
    video = videos(scored.columns["origin"])
    every, frames = np.arange(len(scored.labels)), np.flatnonzero(video != "")
    found = {
        "by_group": (pool(scored.scores, [groups, *apart]), every),
        "by_video": (
            pool(
                scored.scores[frames],
                [key[frames] for key in (video, scored.folder, scored.columns["source"], *apart)],
            ),
            frames,
        ),
    }
    return {name: units for name, units in found.items() if (units[0].count > 1).any()}


def _parts(
    scored: Scored, case: _Case, pooled: dict[str, tuple[Pooled, Rows]]
) -> list[tuple[tuple[str, ...], _Case]]:
    """Where in the result a part goes, and what it is made of."""
    source, generator = scored.columns["source"], scored.columns["generator"]
    reals = scored.labels == 0
    parts: list[tuple[tuple[str, ...], _Case]] = [(("overall",), case)]
    parts += [(("by_source", str(name)), case[source == name]) for name in np.unique(source)]
    parts += [
        (("by_generator", str(name)), case[reals | ((generator == name) & ~reals)])
        for name in np.unique(generator[~reals])
    ]
    for name, (units, members) in pooled.items():
        first = members[units.first]
        parts += [
            ((name, how), _Case(case.labels[first], units.scores[how], case.groups[first]))
            for how in POOLINGS
        ]
    return parts


def _part(case: _Case, threshold: float, settings: EvaluateSettings) -> dict[str, Any]:
    figures = metrics.summary(case.labels, case.scores, threshold)
    intervals: dict[str, Any] = {}
    if settings.bootstrap:
        intervals = metrics.intervals(
            case.labels, case.scores, case.groups, threshold, settings.bootstrap, settings.seed
        )
    fakes = int(case.labels.sum())
    both = 0 < fakes < len(case.labels)
    return {
        "n_real": len(case.labels) - fakes,
        "n_fake": fakes,
        "n_groups": len(np.unique(case.groups)),
        **{name: None if math.isnan(value) else value for name, value in figures.items()},
        "ap_chance": fakes / len(case.labels) if both else None,
        "oracle_threshold": metrics.oracle_threshold(case.labels, case.scores) if both else None,
        "intervals": {name: list(pair) for name, pair in intervals.items() if not math.isnan(pair[0])},
        "confusion": metrics.confusion(case.labels, case.scores, threshold),
    }


def _worst(result: dict[str, Any]) -> dict[str, Any]:
    """The source with the least share of images called right, classes counting alike; the generator of least AUC."""
    found: dict[str, Any] = {}
    for kind, part, choices in (
        ("source", "by_source", ("balanced_accuracy", "accuracy")),
        ("generator", "by_generator", ("auc", "recall")),
    ):
        rated = []
        for name, figures in result[part].items():
            figure = next((choice for choice in choices if figures[choice] is not None), None)
            if figure is not None:
                rated.append((figures[figure], name, figure))
        if len(rated) > 1:
            value, name, figure = min(rated)
            of = result[part][name]
            interval = of["intervals"].get(figure)
            found[kind] = {"name": name, "figure": figure, "value": value, "interval": interval}
            found[kind] |= {count: of[count] for count in ("n_real", "n_fake")}
    return found


def _below_chance(result: dict[str, Any]) -> list[str]:
    """A question about the labels, where fakes score lower than reals beyond chance."""
    parts = {"overall": result["overall"], **result["by_generator"]}
    below = [
        f"{name or 'unnamed'} {part['auc']:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
        for name, part in parts.items()
        if (interval := part["intervals"].get("auc")) and interval[1] < 0.5
    ]
    if not below:
        return []
    return [
        f"AUC is below 0.5 beyond chance ({'; '.join(below)}): these fakes score lower than reals. Are real and fake "
        "swapped, here or in the training data? predictions.png shows pictures of each label, 'crossfake data inspect "
        "DIR' counts labels by source. If they are right, the detector looks for a trace that these fakes have less of "
        "than reals, and its scores are worth nothing on them"
    ]


def _notes(scored: Scored, case: _Case, pooled: dict[str, tuple[Pooled, Rows]]) -> Iterator[str]:
    """What a reader of the figures has to know about the images behind them."""
    reals, fakes = int((scored.labels == 0).sum()), int((scored.labels == 1).sum())
    if scored.damaged:
        yield f"{plural(len(scored.damaged), 'image')} left out, the first: {scored.damaged[0]}"
    if not reals or not fakes:
        yield f"there are no {'fakes' if reals else 'reals'}: figures that need both classes are left empty"
        return
    for rate in ranking.RATES.values():
        if reals * rate < 1:
            yield (
                f"the TPR at {rate:.1%} FPR is the share of fakes that score above every real: a rate of {rate:.1%} "
                f"can be told from {round(1 / rate):,} reals on, and these are {reals:,}"
            )
    for label, name in ((0, "reals"), (1, "fakes")):
        count = len(np.unique(case.groups[case.labels == label]))
        if count < _FEW_GROUPS:
            yield f"the {name} are of {plural(count, 'group')} only: intervals are rough"
    for name, (units, members) in pooled.items():
        labels = scored.labels[members[units.first]]
        if 0 < labels.sum() < len(labels):
            real, fake = (float(units.count[labels == label].mean()) for label in (0, 1))
            if max(real, fake) > _UNEVEN * min(real, fake):
                yield (
                    f"{name[3:]}s hold {real:.1f} images of reals and {fake:.1f} of fakes on average: the highest of "
                    "many is higher than the highest of few, so compare them by mean, not by max or quantile"
                )


def _recorded(settings: EvaluateSettings) -> dict[str, Any]:
    facts = dataclasses.asdict(settings)
    return {**facts, "data": " ".join(map(str, settings.data))}


def _note_opening(detector: Detector, hashes: dict[str, str], split: str) -> None:
    """Test data is opened on the record: a set looked at many times is no longer a test."""
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "split": split, "data": hashes}
    record = _home(detector) / "test_data_opened.jsonl"
    try:
        with open(record, "a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write {record} ({error.strerror})", hint="copy the bundle to where you may write"
        ) from error


def _home(detector: Detector) -> Path:
    """The detector's run, or its bundle where that is all there is."""
    run = detector.path.parent
    return run if (run / "config.yaml").is_file() else detector.path


def _write(out: Path, result: dict[str, Any], scored: Scored, units: tuple[Pooled, Rows] | None) -> None:
    """``scores.csv``, a line per image; ``groups.csv``, a line per unit of several; ``evaluation.json``."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "scores.csv", "w", newline="", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(["label", *scored.columns, "score"])
            lines = zip(scored.labels, *scored.columns.values(), scored.scores, strict=True)
            table.writerows([*facts, repr(float(value))] for *facts, value in lines)
        if units is not None:
            pooled = units[0]
            names = ("source", "generator", "group")
            with open(out / "groups.csv", "w", newline="", errors="surrogateescape") as file:
                table = csv.writer(file)
                table.writerow(["label", *names, "images", *pooled.scores])
                for unit, first in enumerate(pooled.first):
                    facts = [scored.labels[first], *(scored.columns[name][first] for name in names)]
                    values = [repr(float(found[unit])) for found in pooled.scores.values()]
                    table.writerow([*facts, pooled.count[unit], *values])
        write_json(out / "evaluation.json", result)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", hint="name another --out") from error
