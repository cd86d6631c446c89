"""The data that a detector was trained with, opened again for what comes after training: calibration, ensembles."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.training.data import Kind, TrainingData
from crossfake.detect.training.recipes import RECIPES, Recipe
from crossfake.detect.training.sampling import Sampler
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed
from crossfake.detect.view import View
from crossfake.errors import UserError
from crossfake.runs import Run

_FOLDERS = ("real", "fake", "synthetic")
# How often batches draw rows, and what else decides which rows there are
_PROPORTIONS = ("batch", "balance", "synthetic_ratio", "synthetic_per_generator")
_SETTINGS = (*_PROPORTIONS, "synthetic_limit", "recipe", "augment")
_UNKNOWN = (
    "how its training drew its batches is not recorded: half of every figure is of reals, and the sources and "
    "generators of a class count alike"
)


def trained_with(
    data: TrainingData,
    facts: Mapping[str, Any] | TrainSettings,
    digest: str,
    weigh_as: TrainSettings | None = None,
) -> dict[str, Any]:
    """What a card has to say so that :func:`reopen` finds data and proportions again.

    Args:
        data: of the training.
        facts: its settings, or as much as is known of them.
        digest: of its validation rows.
        weigh_as: settings by whose batches these counted, if not by its own.
    """
    known = dict(facts if isinstance(facts, Mapping) else vars(facts))
    known |= {name: getattr(weigh_as, name) for name in _PROPORTIONS} if weigh_as else {}
    folders = {str(name): [pool.shards.hash for pool in pools] for name, pools in data.pools().items()}
    return {
        **folders,
        **{name: known[name] for name in _SETTINGS if name in known},
        "validation_hash": digest,
    }


def sampler_of(data: TrainingData, facts: Mapping[str, Any] | TrainSettings) -> Sampler:
    """What draws batches in the proportions of a training, whatever its schedule: a warm-up is at its end.

    Args:
        data: that is drawn from.
        facts: :func:`trained_with`, or the settings; what they do not know is as by default.
    """
    known = facts if isinstance(facts, Mapping) else vars(facts)
    batch, balance, ratio, per_generator, recipe = (
        known.get(name, getattr(TrainSettings, name))
        for name in ("batch", "balance", "synthetic_ratio", "synthetic_per_generator", "recipe")
    )
    fakes = not RECIPES.get(recipe).reals_only
    return Sampler(data, batch, ratio, 0, balance=balance, per_generator=per_generator, fakes=fakes)


@dataclass(frozen=True)
class Reopened:
    """Data of a training.

    Attributes:
        data: the folders.
        facts: what is known of the training, as :func:`trained_with` gives it.
        notes: what a user should know.
    """

    data: TrainingData
    facts: Mapping[str, Any]
    notes: list[str]

    @property
    def recipe(self) -> Recipe | None:
        """What made the fakes that it validated on; None where they were given."""
        kind = RECIPES.get(self.facts.get("recipe", TrainSettings.recipe))
        if not kind.reals_only or self.data.fake + self.data.synthetic:
            return None
        return kind(self.facts.get("augment", TrainSettings.augment), self.data.size, self.data.crop)

    def weigh(self, kinds: Sequence[Kind]) -> Weighed:
        """Validation images of these kinds, each counting as much as in the training's batches."""
        return Weighed.as_batches(kinds, sampler_of(self.data, self.facts))


def reopen(
    detector: Detector, real: Sequence[Path] = (), fake: Sequence[Path] = (), force: bool = False
) -> Reopened:
    """The folders that a detector was trained with, where they were or where they are named.

    Args:
        detector: its card, or the run around it, knows the folders.
        real, fake: where they lie by now, in any order; those that are not named are taken from where they were.
            With ``force``, or where one of them was not trained with, these folders are taken and no others.
        force: take the folders that are named, and let them be cropped differently.

    Raises:
        UserError: a folder is gone or changed, or what the detector was trained with is not known.
    """
    facts = recalled(detector)
    named = {shards.hash: shards.path for shards in map(ShardSet, (*real, *fake))}
    if facts is None and not (real and fake):
        raise _unnamed(detector)
    if facts is None:  # the order in which they were trained with is that of their hashes
        order = list(_paths(detector))
        places = {path: order.index(digest) for digest, path in named.items() if digest in order}
        real, fake = (
            sorted(folders, key=lambda path: places.get(path, len(order))) for folders in (real, fake)
        )
        return _elsewhere({}, real, fake, force, detector.view)
    if named and (force or not set(named) <= _hashes(facts)):
        return _elsewhere(facts, real, fake, force, detector.view)
    folders = _places([detector], facts, named)
    missing = [str(path) for part in folders.values() for path in part if path not in named.values()]
    notes = [f"{path} was trained with, too, and is taken as well" for path in missing] if named else []
    return Reopened(_opened(folders, facts, force, detector.view), facts, notes + _unknown(facts))


def reopen_shared(
    detectors: Sequence[Detector], real: Sequence[Path], fake: Sequence[Path], force: bool = False
) -> Reopened:
    """The folders that are named; without, those that all of several detectors were trained with.

    Args:
        detectors: whose cards, or runs, know the folders.
        real, fake: folders to take instead.
        force: of :meth:`~crossfake.detect.training.data.TrainingData.open`.

    Raises:
        UserError: nothing is named and they were trained with different folders, or one is gone or changed.
    """
    known = {detector.path: recalled(detector) for detector in detectors}
    records = {path: facts for path, facts in known.items() if facts is not None}
    lead, view = detectors[0].path, detectors[0].view
    if real or fake:
        own = [digest for facts in records.values() for digest in facts["synthetic"]]
        return _elsewhere({**records.get(lead, {}), "synthetic": own}, real, fake, force, view)
    if unknown := [path for path in known if path not in records]:
        raise _unnamed(next(detector for detector in detectors if detector.path == unknown[0]))
    first = records[lead]
    for path, facts in records.items():
        if any(facts[name] != first[name] for name in _FOLDERS):
            raise UserError(
                f"{path} was trained with other folders than {lead}",
                hint="with --real DIR and --fake DIR, name folders whose val rows neither was trained on, such as "
                "those that both know",
            )
    notes = [
        f"{path} was trained on batches of other proportions than {lead}, by which validation images count"
        for path, facts in records.items()
        if any(facts.get(name) != first.get(name) for name in _PROPORTIONS)
    ]
    opened = _opened(_places(detectors, first, {}), first, force, view)
    return Reopened(opened, first, notes + _unknown(first))


def recalled(detector: Detector) -> dict[str, Any] | None:
    """:func:`trained_with` of a detector: from its card, or, of an older one, from the run that it lies in."""
    found = detector.card.get("trained_with")
    if isinstance(found, dict) and all(isinstance(found.get(name), list) for name in _FOLDERS):
        return found
    run = Run(detector.path.parent)
    config = run.config if run.config_file.is_file() else {}
    hashes = config.get("data_hashes") or {}
    if config.get("kind") != "detect" or not set(hashes.values()) <= set(_paths(detector)):
        return None
    lists = {name: [os.path.normpath(folder) for folder in config.get(name) or ()] for name in _FOLDERS}
    every = dict.fromkeys(folder for folders in lists.values() for folder in folders)
    if len(every) != len(hashes):
        return None
    digests = dict(zip(every, hashes.values(), strict=True))
    folders = {name: [digests[folder] for folder in folders] for name, folders in lists.items()}
    kept = {name: config[name] for name in (*_SETTINGS, "validation_hash") if name in config}
    return {**kept, **folders}


def _unnamed(detector: Detector) -> UserError:
    if "published" in detector.card:
        what = f"{detector.path} was trained elsewhere, and its pictures are not here"
        return UserError(what, hint="name folders of yours with --real DIR and --fake DIR")
    known = ", ".join(detector.card.get("data_hashes") or {})
    return UserError(
        f"{detector.path} does not say which of its data are reals and which fakes",
        hint="name the folders of its training with --real DIR and --fake DIR"
        + (f": {known}" if known else ""),
    )


def _paths(detector: Detector) -> dict[str, str]:
    """Where the folders of a training were, by hash."""
    return {digest: path for path, digest in (detector.card.get("data_hashes") or {}).items()}


def _unknown(facts: Mapping[str, Any]) -> list[str]:
    return [] if "batch" in facts else [_UNKNOWN]


def _hashes(facts: Mapping[str, Any]) -> set[str]:
    return {digest for name in _FOLDERS for digest in facts[name]}


def _elsewhere(
    facts: Mapping[str, Any], real: Sequence[Path], fake: Sequence[Path], force: bool, view: View
) -> Reopened:
    if not (real and fake):
        raise UserError(
            "reals and fakes are needed",
            hint="name both, --real DIR and --fake DIR, or neither for what was trained with",
        )
    own = [folder for folder in fake if ShardSet(folder).hash in facts.get("synthetic", ())]
    folders = {"real": list(real), "fake": [folder for folder in fake if folder not in own], "synthetic": own}
    return Reopened(_opened(folders, {}, force, view), facts, _unknown(facts))


def _opened(
    folders: Mapping[str, Sequence[Path]], facts: Mapping[str, Any], force: bool, view: View
) -> TrainingData:
    alone = RECIPES.get(facts.get("recipe", TrainSettings.recipe)).reals_only
    real, fake, synthetic = (folders[name] for name in _FOLDERS)
    return TrainingData.open(real, fake, synthetic, force, alone, facts.get("synthetic_limit", 0), view)


def _places(
    detectors: Sequence[Detector], facts: Mapping[str, Any], named: Mapping[str, Path]
) -> dict[str, list[Path]]:
    """Where the folders of a training lie, by what they were given as."""
    before = {digest: path for detector in detectors for digest, path in _paths(detector).items()}
    places: dict[str, list[Path]] = {name: [] for name in _FOLDERS}
    lost: dict[str, list[str]] = {}
    for name in _FOLDERS:
        for digest in facts[name]:
            path = named.get(digest) or Path(before.get(digest, "a folder of its training"))
            if why := "" if digest in named else changed(path, digest):
                lost.setdefault("--real" if name == "real" else "--fake", []).append(f"{path} ({why})")
            places[name].append(path)
    if lost:
        missing = [part for parts in lost.values() for part in parts]
        where = "where it lies as it was" if len(missing) == 1 else "where they lie as they were"
        raise UserError(
            f"{detectors[0].path} was trained with {', '.join(missing)}",
            hint=f"name {where} with {' and '.join(f'{option} DIR' for option in lost)}, or train anew",
        )
    return places


def changed(folder: Path, digest: str) -> str:
    """Why a folder is no longer the one with this hash; empty when it is."""
    try:
        shards = ShardSet(folder)
    except UserError:
        return "not there any more"
    if shards.hash == digest:
        return ""
    return "split anew since" if shards.content_hash == digest else "changed since"
