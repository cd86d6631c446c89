"""The cross-generator protocol: does training on one's own fakes help against generators never seen?

Every detector is trained twice per seed, *without* and *with* the synthetic fakes, on the same reals, for the same
number of steps, with batches half real and half fake; only the pool that the fake half is drawn from differs.
Both are tested on the same pictures of generators that neither trained on.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from crossfake import __version__
from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import related
from crossfake.detect.training import TrainSettings
from crossfake.errors import UserError
from crossfake.experiments.config import Config, Detector, load, to_dict
from crossfake.experiments.results import ARMS
from crossfake.experiments.stages import Pool, Stages, Stopped
from crossfake.provenance import hash_json
from crossfake.runs import Run, write_text

Rows = list[tuple[ShardSet, npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class Holdout:
    """One test set: rows of shards, reals first. ``kind`` is ``unseen`` or, for a check, ``seen``."""

    name: str
    kind: str
    rows: Rows

    def column(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([shards.columns[name][rows] for shards, rows in self.rows])

    @property
    def hash(self) -> str:
        return hash_json([[shards.hash, rows.tolist()] for shards, rows in self.rows])


@dataclass(frozen=True)
class Task:
    """One cell of the grid: a detector to train in one arm with one seed."""

    detector: Detector
    arm: str
    seed: int
    settings: TrainSettings
    key: str
    train_hash: str


def run(config: str | Path | dict[str, Any] | Config, out: str | Path) -> Path:
    """Run the whole protocol, or what is left of it; returns the folder, ready for ``reporting.report``.

    A finished stage or cell is not run again: cells are keyed by the hash of their settings, their training data and
    their test sets. A cell that fails is listed in the results and does not stop the others.

    Args:
        config: YAML file, dict of the same shape, or a :class:`~crossfake.experiments.config.Config`.
        out: folder of the experiment; made when it is not there.

    Raises:
        UserError: the configuration is wrong; a test picture or person is among the training data; or no cell
            could be run.

    Example:
        >>> run("experiments/configs/smoke.yaml", "runs/smoke")  # doctest: +SKIP
        PosixPath('runs/smoke')
    """
    config = config if isinstance(config, Config) else load(config)
    check(config)
    folder = Run.create(out, to_dict(config), kind="experiment", resume=True)
    stages = Stages(config, folder.path)
    stages.run()
    tests = holdouts(config, stages)
    firewall(stages.of("real") + stages.of("seen") + stages.of("synthetic"), tests)
    tasks = plan(config, stages, tests, folder.path)
    audits = audit_arms(stages)
    _write(stages, tests, tasks, audits, [])
    failures: list[dict[str, Any]] = []
    todo = [task for task in tasks if not (folder.path / "cells" / task.key / "cell.json").exists()]
    if len(todo) < len(tasks):
        tqdm.write(f"\n{len(tasks) - len(todo)} of {len(tasks)} cells are there already")
    if todo:
        tqdm.write(f"\ntrain and test {len(todo)} detectors")
    with tqdm(todo, unit="cell", desc="detectors", dynamic_ncols=True, disable=not todo) as bar:
        for task in bar:
            bar.set_postfix_str(f"{task.detector.name} {task.arm}, seed {task.seed}")
            try:
                run_cell(task, tests, folder.path / "cells" / task.key)
            except Stopped:
                raise
            except Exception as error:
                text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                about = {"detector": task.detector.name, "arm": task.arm, "seed": task.seed}
                failures.append({"key": task.key, **about, "error": text.partition("\n")[0]})
                tqdm.write(f"failed: {', '.join(map(str, about.values()))}: {failures[-1]['error']}")
            _write(stages, tests, tasks, audits, failures)
    if len(failures) == len(tasks):
        raise UserError(
            f"no detector could be trained ({failures[0]['error']})", mend="mend that and run it again"
        )
    folder.finish({"cells": len(tasks), "failures": len(failures)})
    return folder.path


def check(config: Config) -> None:
    """Find wrong settings before hours are spent: every stage's settings are built once without being run."""
    from crossfake.datasets.prepare import PrepareSettings
    from crossfake.synth.evaluation import EvaluateSettings as QualitySettings
    from crossfake.synth.training import TrainSettings as SynthSettings

    nowhere = Path("nowhere")
    if config.prepare:
        _built(PrepareSettings, "prepare", out=nowhere, **config.prepare)
    _built(QualitySettings, "quality", real=nowhere, fake=nowhere, **config.quality)
    for generator in config.generators:
        if generator.family != "splice" and generator.model is None:
            _built(SynthSettings, f"train of {generator.name}", data=nowhere, out=nowhere, family=generator.family,
                   **generator.train)  # fmt: skip
    for detector in config.detectors:
        _built(TrainSettings, f"settings of {detector.name}", real=(nowhere,), fake=(nowhere,), out=nowhere,
               model=detector.model, **{**config.train, **detector.settings})  # fmt: skip


def _built(kind: Any, what: str, **settings: Any) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        detail = str(error).split(") ", 1)[-1].removeprefix(f"{kind.__name__}.__init__() ")
        raise UserError(
            f"{what}: {detail}", mend=f"see the fields of {kind.__module__}.{kind.__name__}"
        ) from error


def holdouts(config: Config, stages: Stages) -> list[Holdout]:
    """The unseen generators first, then held-out pictures of those trained on, as a check.

    Reals of the experiment count with their test split; those that an unseen set brings along count whole, and so
    do unseen fakes: nobody trained on them.
    """
    own = _rows(stages.reals, label=0, split="test")
    brought = {item.name: item.real for item in config.unseen if item.real}
    tests = []
    for pool in stages.of("unseen"):
        real = _rows((brought[pool.name],), label=0) if pool.name in brought else own
        tests.append(Holdout(pool.name, "unseen", real + _rows(pool.test, label=1)))
    for pool in stages.of("seen") + stages.of("synthetic"):
        fake = _rows(pool.test, label=1, split="test")
        if fake:
            tests.append(Holdout(pool.name, "seen", own + fake))
    for test in tests:
        _check_alike([ShardSet(stages.reals[0]), *(shards for shards, _ in test.rows)])
        if len(set(test.column("label").tolist())) < 2:
            mend = "prepare reals with a test split, say 0.8/0.1/0.1"
            raise UserError(f"the test set {test.name} lacks reals or fakes", mend=mend)
    return tests


def _check_alike(sets: Sequence[ShardSet]) -> None:
    """Detectors would learn or fail by the crop, not the forgery, if the pictures were not cut alike."""
    ours = sets[0]
    for shards in sets[1:]:
        crops = [crop for crop in (ours.attributes.get("crop"), shards.attributes.get("crop")) if crop]
        if shards.size != ours.size or (len(crops) == 2 and crops[0] != crops[1]):
            raise UserError(
                f"{shards.path} and {ours.path} were not cut alike ({shards.size} and {ours.size} pixels, "
                f"crops {' and '.join(map(str, crops))})",
                mend="prepare both with the same --size and --crop",
            )


def _rows(folders: Sequence[Path], label: int, split: str | None = None) -> Rows:
    found = [(shards := ShardSet(folder), shards.select(label=label, split=split)) for folder in folders]
    return [(shards, rows) for shards, rows in found if len(rows)]


def firewall(trained_on: Sequence[Pool], tests: Sequence[Holdout]) -> None:
    """Make sure that no test picture, no person in it and no unseen generator is among the training rows.

    Raises:
        UserError: one is; the message names it.
    """
    folders = dict.fromkeys(folder for pool in trained_on for folder in pool.train)
    train = [
        (shards := ShardSet(folder), np.flatnonzero(shards.columns["split"] != "test")) for folder in folders
    ]
    people = {group for shards, rows in train for group in shards.columns["group"][rows]} - {""}
    generators = {name for shards, rows in train for name in np.unique(shards.columns["generator"][rows])} - {
        ""
    }
    by_crc: dict[int, tuple[ShardSet, int]] = {}
    for shards, rows in train:
        by_crc.update({int(shards.columns["crc32"][row]): (shards, int(row)) for row in rows})
    mend = "split by group with 'crossfake data prepare', or take the pictures out of one side"
    for test in tests:
        what = f"test set {test.name}"
        for shards, rows in test.rows:
            shared = sorted(people & set(shards.columns["group"][rows]))
            if shared:
                raise UserError(f"{what}: group {shared[0]} of {shards.path} is trained on too", mend=mend)
            for row in rows:
                twin = by_crc.get(int(shards.columns["crc32"][row]))
                if twin and np.array_equal(twin[0].read(twin[1]), shards.read(int(row))):
                    same = f"picture {row} of {shards.path} is picture {twin[1]} of {twin[0].path}"
                    raise UserError(f"{what}: {same}, which is trained on", mend=mend)
        known = sorted(generators & set(test.column("generator").tolist()))
        if known and test.kind == "unseen":
            raise UserError(f"{what} is of {known[0]}, which is trained on", mend="it is not unseen")


def plan(config: Config, stages: Stages, tests: Sequence[Holdout], out: Path) -> list[Task]:
    """All cells, seed by seed, so that an interrupted experiment has whole pairs to compare."""
    seen, own = (tuple(f for pool in stages.of(role) for f in pool.train) for role in ("seen", "synthetic"))
    tasks = []
    for seed in config.seeds:
        for detector in config.detectors:
            for arm in ARMS:
                synthetic = own if arm == "with" else ()
                inputs = {
                    "detector": asdict(detector), "train": config.train, "arm": arm, "seed": seed,
                    "version": __version__,
                    "data": [[ShardSet(f).hash for f in part] for part in (stages.reals, seen, synthetic)],
                    "tests": {test.name: test.hash for test in tests},
                }  # fmt: skip
                key = hash_json(inputs)[:12]
                settings = TrainSettings(
                    real=stages.reals, fake=seen, synthetic=synthetic, model=detector.model, seed=seed,
                    out=out / "cells" / key / "run", **{"device": config.device, **config.train, **detector.settings},
                )  # fmt: skip
                tasks.append(Task(detector, arm, seed, settings, key, hash_json(inputs["data"])))
    return tasks


def audit_arms(stages: Stages) -> dict[str, Any]:
    """What gives the classes away besides forgery, in the training data of each arm: printed, and put in the report."""
    seen, own = ([f for pool in stages.of(role) for f in pool.train] for role in ("seen", "synthetic"))
    audits = {}
    for arm in ARMS:
        fakes = seen + (own if arm == "with" else [])
        if fakes:
            audits[arm] = audit_training(stages.reals, fakes)
            tqdm.write(f"training data {arm} synthetic: {audits[arm]['summary']}")
    return audits


def relations(stages: Stages, tests: Sequence[Holdout]) -> list[str]:
    """Test sets whose data set is made from one that is trained on: they are no cross-data-set tests."""
    folders = [*stages.reals, *(f for pool in stages.of("seen") for f in pool.train)]
    trained = {str(name) for folder in folders for name in np.unique(ShardSet(folder).columns["source"])}
    return sorted(
        {
            f"{test.name} is no cross-data-set test: {why}"
            for test in tests
            if test.kind == "unseen"
            for name in np.unique(test.column("source"))
            for other in trained
            if other != name and (why := related(other, str(name)))
        }
    )


def run_cell(task: Task, tests: Sequence[Holdout], folder: Path) -> None:
    """Train one detector, score every test picture, and write ``scores.csv`` and then ``cell.json``."""
    from crossfake.detect.bundle import load as load_detector
    from crossfake.detect.training import train

    shutil.rmtree(folder, ignore_errors=True)  # what a failed or killed attempt left
    started = time.monotonic()
    bundle = train(task.settings)
    if not Run(bundle).finished:
        raise Stopped("the experiment")
    detector = load_detector(bundle, device=task.settings.device)
    folder.mkdir(parents=True, exist_ok=True)
    scored: dict[tuple[Path, bytes], npt.NDArray[np.float64]] = {}  # several test sets share their reals
    with open(folder / "scores.csv", "w", newline="", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(["test", "row", "label", "group", "score"])
        for test in tests:
            for shards, rows in test.rows:
                if (shards.path, rows.tobytes()) not in scored:
                    scored[shards.path, rows.tobytes()] = score_rows(detector, shards, rows)
            scores = np.concatenate([scored[shards.path, rows.tobytes()] for shards, rows in test.rows])
            columns = (test.column("label").tolist(), test.column("group").tolist(), scores.tolist())
            for row, (label, group, score) in enumerate(zip(*columns, strict=True)):
                table.writerow([test.name, row, label, group or f"row {row}", repr(score)])
    card = {
        "key": task.key, "detector": task.detector.name, "model": task.detector.model, "arm": task.arm,
        "seed": task.seed, "threshold": detector.threshold, "audit": detector.card["audit"],
        "seconds": round(time.monotonic() - started, 2),
        "train_hash": task.train_hash, "model_hash": detector.hash, "settings": asdict(task.settings),
        "tests": {test.name: sum(len(rows) for _, rows in test.rows) for test in tests},
    }  # fmt: skip
    write_text(folder / "cell.json", json.dumps(card, indent=2, default=str) + "\n")


def score_rows(detector: Any, shards: ShardSet, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The detector's scores of rows, ``[N]``; a few hundred pictures are in memory at a time."""
    parts = [
        detector.score(shards.read_many(rows[first : first + 256])) for first in range(0, len(rows), 256)
    ]
    return np.concatenate(parts).astype(np.float64)


def _write(
    stages: Stages,
    tests: Sequence[Holdout],
    tasks: Sequence[Task],
    audits: dict[str, Any],
    failures: Sequence[dict[str, Any]],
) -> None:
    """``experiment.json``: what the report is made from, besides the cells."""
    config = stages.config
    facts = {
        "name": config.name,
        "date": f"{date.today():%-d %B %Y}",
        "note": config.note,
        "config": to_dict(config),
        "pools": [pool.facts() for pool in stages.pools],
        "tests": [
            {"name": test.name, "kind": test.kind, "hash": test.hash, "n_real": int((labels == 0).sum()),
             "n_fake": int((labels == 1).sum())}
            for test in tests for labels in [test.column("label")]
        ],
        "audits": audits,
        "notes": relations(stages, tests),
        "cells": [task.key for task in tasks],
        "failures": failures,
        "seconds": stages.seconds,
    }  # fmt: skip
    write_text(stages.out / "experiment.json", json.dumps(facts, indent=2) + "\n")
