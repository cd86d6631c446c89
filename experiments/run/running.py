"""Running an experiment: stages, then a firewall over all data, then cells, those that are there already left alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from crossfake import __version__
from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.crops import crop_words
from crossfake.datasets.firewall import Seen, refuse_overlap, refuse_unknown, seen_by_makers, union
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import related
from crossfake.detect.training.data import Pool
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, DetectorConfig, load, to_dict
from crossfake.experiments.design.protocols import ELSEWHERE, Condition, Design, Test, design, seen
from crossfake.experiments.design.reading import Key, nearest
from crossfake.experiments.report import published
from crossfake.experiments.report.sheet import PICTURES
from crossfake.experiments.run.cells import CellSpec
from crossfake.experiments.run.executors import Executor, Local
from crossfake.experiments.run.stages import Stages
from crossfake.experiments.run.testsets import Side, TestSets
from crossfake.files import write_json, write_text
from crossfake.pages import plural
from crossfake.progress import tqdm
from crossfake.provenance import hash_file, hash_json
from crossfake.runs import Run
from crossfake.synth.quality.table import head_of

_OURS = frozenset(
    ("real", "fake", "synthetic", "synthetic_limit", "out", "model", "seed", "resume", "match_steps")
)


def run(
    config: str | Path | dict[str, Any] | Config, out: str | Path, executor: Executor | None = None
) -> Path:
    """Run an experiment, or what is left of it; returns the folder, ready for ``reporting.report``.

    A finished stage or cell is not run again: cells are keyed by the hash of their settings and training data, scores
    by their test's. A cell that fails is listed in the results and does not stop the others.

    Args:
        config: YAML file, dict of the same shape, or a :class:`~crossfake.experiments.design.config.Config`.
        out: folder of the experiment; made when it is not there.
        executor: where cells run; one after another in this process by default.

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
    experiment = Experiment(config, folder.path)
    specs, cells = experiment.specs, experiment.cells
    missing = [spec for spec in specs if spec.missing(cells / spec.key)]
    todo = list({spec.key: spec for spec in missing}.values())  # conditions with the same data share a cell
    audits = experiment.audit()
    experiment.write_pictures()
    failures: list[dict[str, Any]] = []
    experiment.write(audits, failures)
    if len(missing) < len(specs):
        tqdm.write(f"\n{len(specs) - len(missing)} of {plural(len(specs), 'cell')} are there already")
    if todo:
        tqdm.write(f"\ntrain and test {plural(len(todo), 'detector')}")
    executor = executor or Local()
    with tqdm(total=len(todo), unit="cell", desc="detectors", dynamic_ncols=True, disable=not todo) as bar:
        for spec, error in executor.run(todo, cells):
            bar.update()
            bar.set_postfix_str(spec.label)
            if error is not None:
                text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                failures += [
                    {**each.about(), "error": text.partition("\n")[0]}
                    for each in missing
                    if each.key == spec.key
                ]
                tqdm.write(f"failed: {spec.label}: {failures[-1]['error']}")
                experiment.write(audits, failures)
    experiment.write(audits, failures)
    if len(failures) == len(specs):
        raise UserError(
            f"no detector could be trained ({failures[0]['error']})", hint="correct that and run it again"
        )
    folder.finish({"cells": len(specs), "failures": len(failures)})
    return folder.path


def check(config: Config) -> Design:
    """Find wrong settings before hours are spent: every stage's settings are built once without being run."""
    from crossfake.datasets.settings import PrepareSettings
    from crossfake.synth.settings import EvaluateSettings as QualitySettings
    from crossfake.synth.training.settings import TrainSettings as SynthSettings

    nowhere = Path("nowhere")

    def built(kind: Any, at: Key, given: dict[str, Key], settings: dict[str, Any], **ours: Any) -> None:
        known = [item.name for item in fields(kind) if item.name not in ours]
        for name in settings:
            if name not in known:
                raise config.mistake(given[name], "there is no such key", nearest(name, known))
        try:
            kind(**ours, **settings)
        except UserError as error:
            raise config.mistake(at, error.message, error.hint or "correct it") from error
        except TypeError as error:  # a word where a number should be
            raise config.mistake(
                at, str(error), f"see the fields of {kind.__module__}.{kind.__name__}"
            ) from error

    def keys(settings: dict[str, Any], *at: str | int) -> dict[str, Key]:
        return {name: (*at, name) for name in settings}

    if config.prepare:
        given = keys(config.prepare, "prepare")
        built(PrepareSettings, ("prepare",), given, config.prepare, out=nowhere)
    given = keys(config.quality, "quality")
    built(QualitySettings, ("quality",), given, config.quality, real=nowhere, fake=nowhere)
    for number, generator in enumerate(config.generators):
        if generator.family not in ("", "splice") and generator.model is None and not generator.dir:
            at: Key = ("generators", number)
            given = keys(generator.train, *at, "train")
            built(
                SynthSettings, at, given, generator.train, data=nowhere, out=nowhere, family=generator.family
            )
    found = design(config)
    for number, detector in enumerate(config.detectors):
        for place, condition in enumerate(found.conditions):
            at = ("detectors", number)
            given = keys(config.train, "train") | keys(detector.settings, *at, "settings")
            given |= keys(condition.train, "conditions", place, "train")
            if ours := sorted(_OURS & set(given)):
                what = f"settings of {detector.name}: {ours[0]} follows from the protocol"
                raise config.mistake(given[ours[0]], what, "leave it out")
            at = at if detector.settings or not config.train else ("train",)
            chosen = settings_of(config, detector, condition)
            if detector.bundle:
                continue
            built(
                TrainSettings,
                at,
                given,
                chosen,
                real=(nowhere,),
                fake=(nowhere,),
                out=nowhere,
                model=detector.model,
            )
    if config.published:
        published.published(config.published)
    return found


def settings_of(config: Config, detector: DetectorConfig, condition: Condition) -> dict[str, Any]:
    """Of ``detect train``, as the configuration gives them for a detector in a condition."""
    chosen = {**config.train, **detector.settings, **condition.train}
    return chosen | {"weights": Path(chosen["weights"])} if chosen.get("weights") else chosen


def _bundle_hash(bundle: Path) -> str:
    """Of its card and weights: a calibration changes its scores, too."""
    folder = bundle / "model" if (bundle / "model").is_dir() else bundle
    return hash_json([hash_file(folder / name) for name in ("bundle.json", "model.safetensors")])


class Experiment:
    """Everything that exists before the first detector is trained: pools, tests and cells.

    Making one runs the stages that are not finished.

    Attributes:
        design: conditions, tests and contrasts; tests without pictures are gone.
        sides: the kinds of data that detectors see; ``stages`` and ``rows`` (the pictures of every test) are of the
            first.
        given: tests as a cell is given them, by kind of data.
        specs: the cells, seed by seed, so that an interrupted experiment has whole pairs to compare.
        cells: their folder.
        seen: names of conditions and of tests whose generator they train on.

    Raises:
        UserError: a stage failed, the pictures were not cut alike, a test lacks a class, or the firewall was broken.
    """

    def __init__(self, config: Config, out: Path) -> None:
        self.config, self.out = config, out
        self._hash = functools.cache(lambda folder: ShardSet(folder).hash)
        self.cells = config.cache or out / "cells"
        self.sides: dict[str, Side] = {}
        for data in config.data:  # the report shows the pictures of the first
            mine = config.seen_as(data)
            self.sides[data] = Side(mine, Stages(mine, out / data if self.sides else out))
            self.sides[data].stages.run()
        first = next(iter(self.sides.values()))
        self.stages, self.rows = first.stages, first.rows
        planned = design(config)
        self.sets = TestSets(self.sides, planned)
        kept = set(self.rows)
        self.design = Design(
            planned.conditions,
            tuple(self.sets.tests),
            tuple(c for c in planned.contrasts if set(c.tests) <= kept),
            planned.axis,
        )
        if not self.rows:
            raise UserError("there is nothing to test on", hint="prepare with a test split, say 0.8/0.1/0.1")
        self.given = {data: self.sets.of(data) for data in self.sides}
        self.hashes = {test.name: test.hash for test in self.given[config.data[0]]}
        uneven = [note for side in self.sides.values() for note in self._check_alike(side)]
        firewall = [note for side in self.sides.values() for note in self._firewall(side)]
        elsewhere = [
            f"what {d.name} learned from is known by name only" for d in config.detectors if d.bundle
        ]
        self.unchecked = list(dict.fromkeys([*uneven, *firewall, *elsewhere]))
        self.seen = self._seen()
        self.pairs: dict[str, Any] = {}
        by_seed = dict.fromkeys(seed for detector in config.detectors for seed in config.seeds_of(detector))
        self.specs = [
            self._spec(detector, condition, seed)
            for seed in by_seed
            for detector in config.detectors
            if seed in config.seeds_of(detector)
            for condition in self._trained_in(detector)
        ]

    def _trained_in(self, detector: DetectorConfig) -> list[Condition]:
        """Those that it is trained in; one that was there already is the same in all, and takes any."""
        if detector.bundle:
            return list(self.design.conditions[:1])
        return [c for c in self.design.conditions if not detector.only or c.name in detector.only]

    @staticmethod
    def _fakes(condition: Condition, side: Side) -> list[Path]:
        return [folder for part in side.fakes(condition) for folder in part]

    def _spec(self, detector: DetectorConfig, condition: Condition, seed: int) -> CellSpec:
        side = self.sides[detector.data]
        reals, (fakes, own) = side.reals(condition), side.fakes(condition)
        inputs = {folder: self._hash(folder) for folder in (*reals, *fakes, *own)}
        data = [[inputs[folder] for folder in part] for part in (reals, fakes, own)]
        chosen = settings_of(self.config, detector, condition)
        if detector.bundle:  # nothing of it follows from the conditions
            chosen = {}
        if "patience" not in chosen:  # all train equally long, whatever their validations say
            chosen["stop_after"] = chosen.get("steps", TrainSettings.steps)
        settings = TrainSettings(
            real=reals,
            fake=fakes,
            synthetic=own,
            model=detector.model or "published",
            seed=seed,
            out=Path(),
            **{"device": self.config.device, "synthetic_limit": condition.limit or 0, **chosen},
        )
        where = ("real", "fake", "synthetic", "out", "device", "threads")
        asked = {name: value for name, value in asdict(settings).items() if name not in where}
        if settings.weights is not None:
            asked["weights"] = hash_file(settings.weights)
        if detector.bundle:
            asked["bundle"] = _bundle_hash(detector.bundle)
        members = tuple(
            self._spec(detector, self.design.condition(name), seed)
            for name in condition.ensemble
            if not detector.bundle
        )
        if members:
            asked["members"] = [member.key for member in members]
        if detector.processes > 1:  # which changes the last digits
            asked["processes"] = detector.processes
        return CellSpec(
            hash_json([__version__, asked, data])[:16],
            detector.name,
            ELSEWHERE if detector.bundle else condition.name,
            settings,
            hash_json([data, condition.limit]),
            self.given[detector.data],
            inputs,
            detector.processes,
            detector.memory,
            detector.bundle,
            members,
        )

    def _check_alike(self, side: Side) -> list[str]:
        """Detectors would learn or fail by the crop, not the forgery, if the pictures were not cut alike.

        Returns:
            where they were not, and the experiment's or a condition's ``train: {force: true}`` insists.

        Raises:
            UserError: they have other sizes, or were cut in another way.
        """
        ours = ShardSet(side.stages.reals[0])
        trainings = (self.config.train, *(condition.train for condition in self.design.conditions))
        insists = any(each.get("force") for each in trainings)
        notes: dict[str, None] = {}
        for shards in {id(shards): shards for rows in side.rows.values() for shards, _ in rows}.values():
            crops = [crop for crop in (ours.attributes.get("crop"), shards.attributes.get("crop")) if crop]
            other = len(crops) == 2 and crops[0] != crops[1]
            if shards.size == ours.size and not other:
                continue
            what = (
                f"{shards.path} and {ours.path} were not cut alike ({shards.size} and {ours.size} pixels, "
                f"{' and '.join(map(crop_words, crops))})"
            )
            if shards.size != ours.size or not insists:
                raise UserError(what, hint="prepare both with the same --size and --crop")
            notes[what] = None
        return list(notes)

    def _firewall(self, side: Side) -> list[str]:
        """No test picture, and no person in it, is in any training or validation, of detectors or of own generators.

        Returns:
            what cannot be checked, where ``train: {force: true}`` insists.

        Raises:
            UserError: one is, or that cannot be known; the message names the file.
        """
        conditions = self.design.conditions
        fakes = (folder for condition in conditions for folder in self._fakes(condition, side))
        folders = dict.fromkeys((*side.stages.reals, *fakes))
        sets = [ShardSet(folder) for folder in folders]
        trained = union(Seen.of(s, np.flatnonzero(s.columns["split"] != "test")) for s in sets)
        trained |= union(seen_by_makers(s) for s in sets)
        notes = refuse_unknown(
            trained,
            bool(self.config.train.get("force")),
            "repeat its 'synth generate' with a model that says so, or write force: true below train:",
        )
        hint = "split by group with 'crossfake data prepare', or take the pictures out of one side"
        looked: set[tuple[Path, bytes]] = set()
        for test in self.design.tests:
            new = [(s, rows) for s, rows in side.rows[test.name] if (s.path, rows.tobytes()) not in looked]
            looked |= {(shards.path, rows.tobytes()) for shards, rows in new}
            try:
                refuse_overlap(trained, [shards for shards, _ in new], [rows for _, rows in new], hint)
            except UserError as error:
                raise UserError(f"test {test.name}: {error.message}", hint=hint) from error
        return notes

    def _seen(self) -> list[tuple[str, str]]:
        """By the configuration, and by what the pictures say: fakes of one generator may go by several names.

        Raises:
            UserError: a test that is asked about is of a generator that counts as unseen and is trained on.
        """
        first = self.sides[self.config.data[0]]
        fakes = {c.name: self._fakes(c, first) for c in self.design.conditions}
        made = {
            folder: set(np.unique(s.columns["generator"][s.columns["split"] != "test"]).tolist()) - {""}
            for folder in {folder for folders in fakes.values() for folder in folders}
            for s in (ShardSet(folder),)
        }
        asked = {generator.name for generator in self.config.of("unseen")}
        asked |= {test for contrast in self.design.contrasts for test in contrast.tests}
        found = []
        for test in self.design.tests:
            names = {
                n for shards, rows in self.rows[test.name] for n in shards.columns["generator"][rows].tolist()
            }
            for condition in self.design.conditions:
                trained = {n for folder in fakes[condition.name] for n in made[folder]}
                known, declared = sorted(trained & names), seen(self.config, condition, test)
                if known and not declared and asked & {test.base, test.fake}:
                    raise UserError(
                        f"test {test.name} is of {known[0]}, which '{condition.name}' trains on",
                        hint="it is not unseen",
                    )
                if known or declared:
                    found.append((condition.name, test.name))
        return found

    def audit(self) -> dict[str, Any]:
        """What gives the classes away besides forgery, in the training data of each condition."""
        audits = {}
        for data, side in self.sides.items():
            for condition in self.design.conditions:
                fakes = [folder for folder in self._fakes(condition, side) if _trains(folder)]
                name = f"{condition.name}, {data}" if len(self.sides) > 1 else condition.name
                if fakes:
                    audits[name] = audit_training(side.reals(condition), fakes)
                    tqdm.write(f"training data of '{name}': {audits[name]['summary']}")
        self.pairs = self.sets.audits()
        return audits

    @functools.cached_property
    def notes(self) -> list[str]:
        """Tests whose data set is made from one that is trained on: they are no cross-data-set tests."""
        always = [*self.stages.reals, *(f for g in self.config.of("seen") for f in self.stages[g.name].train)]
        trained = {str(name) for folder in always for name in np.unique(ShardSet(folder).columns["source"])}
        unseen = {g.name for g in self.config.of("unseen")}
        found = {
            f"{test.name} is no cross-data-set test: {why}"
            for test in self.design.tests
            if test.fake in unseen and test.base == test.name
            for shards, rows in self.rows[test.name]
            for name in np.unique(shards.columns["source"][rows])
            for other in trained
            if other != name and (why := related(other, str(name)))
        }
        few = {
            f"Condition {c.name} has no more than {self.used[c.name]:,} of one's own fakes to train on."
            for c in self.design.conditions
            if c.limit and self.used[c.name] < c.limit
        }
        coded = [
            f"All test pictures were coded as {name.upper()} of quality {quality:g} before they were judged."
            for name, quality in self.config.reencode.items()
        ]
        return [*coded, *sorted(found | few), *self.unchecked, *self.sets.notes]

    @functools.cached_property
    def used(self) -> dict[str, int]:
        """How many of one's own fakes each condition with a limit trains on."""
        first = self.sides[self.config.data[0]]
        return {
            c.name: min(c.limit, sum(len(Pool.open(folder, 1).train) for folder in first.fakes(c)[1]))
            for c in self.design.conditions
            if c.limit
        }

    def facts(self, audits: dict[str, Any], failures: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What a report needs besides the cells."""
        config, found = self.config, self.design
        conditions, axis = self._conditions()
        return {
            "name": config.name,
            "protocol": config.protocol,
            "date": f"{date.today():%-d %B %Y}",
            "note": config.note,
            "config": to_dict(config),
            "pools": [pool.facts() for pool in self.stages.pools],
            "conditions": conditions,
            "axis": dict(zip(("name", "unit"), axis, strict=True)) if axis else None,
            "tests": [self._test_facts(test) for test in found.tests],
            "seen": [list(pair) for pair in self.seen],
            "contrasts": [asdict(contrast) for contrast in found.contrasts],
            "published": published.published(config.published) if config.published else [],
            "audits": audits,
            "pair_audits": self.pairs,
            "firewall": {"unchecked": self.unchecked},
            "notes": self.notes,
            "cells": [spec.about() for spec in self.specs],
            "failures": list(failures),
            "seconds": self.stages.seconds,
        }

    def _conditions(self) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
        """Entries of ``experiment.json`` and their axis: where the protocol has none, the quality of the own fakes."""
        names = ("name", "about", "fakes", "synthetic", "x", "without")
        entries = [
            {name: getattr(c, name) for name in names} | {"n_synthetic": self.used.get(c.name)}
            for c in self.design.conditions
        ]
        for entry in entries:
            if entry["n_synthetic"] is not None:  # the axis shows what was used, not what was wished for
                entry["x"] = float(entry["n_synthetic"])
        if self.design.axis or self.config.protocol != "mixture":
            return entries, self.design.axis
        for figure in ("fid", "swd"):
            details = {p.name: (p.quality or {}).get("details", {}).get(figure) for p in self.stages.pools}
            single = [entry for entry in entries if len(entry["synthetic"]) == 1]
            found = [details[entry["synthetic"][0]] for entry in single]
            if found and all(found) and len(heads := {head_of(figure, detail) for detail in found}) == 1:
                for entry, detail in zip(single, found, strict=True):
                    entry["x"] = float(detail["value"])
                return entries, (f"{heads.pop()} of the training fakes", "")
        return entries, None

    def _test_facts(self, test: Test) -> dict[str, Any]:
        labels = np.concatenate([shards.columns["label"][rows] for shards, rows in self.rows[test.name]])
        changed = test.perturbation
        return {
            "name": test.name,
            "fake": test.fake,
            "real": test.real,
            "base": test.base,
            "perturbation": dict(zip(("name", "strength"), changed, strict=True)) if changed else None,
            "hash": self.hashes[test.name],
            "n_real": int((labels == 0).sum()),
            "n_fake": int((labels == 1).sum()),
            "parts": [[str(shards.path), rows.tolist()] for shards, rows in self.rows[test.name]]
            if not changed
            else None,
        }

    def write_pictures(self) -> None:
        """``pictures.csv``: a line for each picture that is tested on, in the order of the scores."""
        header = ("set", "id", "label", "source")
        lines = (",".join(map(str, line)) for line in [header, *self.sets.pictures()])
        write_text(self.out / PICTURES, "\n".join(lines) + "\n")

    def write(self, audits: dict[str, Any], failures: Sequence[dict[str, Any]]) -> None:
        """``experiment.json``: what the report is made from, besides the cells."""
        write_json(self.out / "experiment.json", self.facts(audits, failures))


def _trains(folder: Path) -> bool:
    """Whether a shard folder has more than pictures to validate or test on."""
    return bool(len(ShardSet(folder).select(split=["train", ""])))
