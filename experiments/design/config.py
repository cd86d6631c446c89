"""What an experiment's YAML may say, as frozen dataclasses; a mistake ends in one line with its key and line number.

Every generator has a *role* where the protocol needs one:

- ``seen``: fakes that every detector trains on. Without them a condition "without" would have no fakes at all.
- ``synthetic``: fakes of one's own generators. Which of them a detector trains on is what conditions differ in.
- ``unseen``: fakes that no detector trains on: the test.

All conditions share the reals, the steps, the batch and its half-and-half balance; only the pool that the fake
half is drawn from differs. Relative paths are taken from the current directory, as on the command line, and
``${NAME}`` is replaced by the environment variable.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from crossfake.bounds import Bounds, CountOrNone, Resamples, Seed, Truncation, check_bounds
from crossfake.errors import UserError
from crossfake.experiments.design.reading import Key, build, mistake_at, plain_values

Role = Literal["seen", "synthetic", "unseen"]
By = Literal["generator", "family"]


@dataclass(frozen=True)
class DetectorConfig:
    """One detector.

    Attributes:
        model: a name that ``detect train`` takes.
        bundle: a detector that is there already, in place of ``model``: it is tested and not trained, once for the
            first seed. What it learned from is its own affair: contrasts between conditions say nothing of it.
        name: in the report.
        settings: of its training; they override the experiment's.
        data: what it sees of the photos: the word that ``{data}`` stands for in the paths of reals and fakes.
        only: names of the conditions that it is trained in; all of them by default. A bundle is in none.
        seeds: of its training; the experiment's by default.
        processes: that train it together, by torchrun: one per GPU, say. They share each batch.
        memory: GiB that Ray keeps free for each of them.
    """

    model: str = ""
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    only: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
    processes: Annotated[int, Bounds(1, 1024)] = 1
    memory: Annotated[float, Bounds(0, 10**6, above=True)] = 2.0
    bundle: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.model) == (self.bundle is not None):
            raise UserError("a detector is trained or there already", hint="give it a model: or a bundle:")
        if self.bundle is not None:
            if self.settings or self.seeds:
                raise UserError(
                    "a detector that is not trained has nothing to set", hint="leave settings and seeds out"
                )
            object.__setattr__(self, "name", self.name or self.bundle.name)
        object.__setattr__(self, "name", self.name or self.model)
        if not self.name.isprintable():
            raise UserError(f"{self.name!r} is no name for a table", hint="write it on one line")
        check_bounds(self, prefix="")


@dataclass(frozen=True)
class GeneratorConfig:
    """Fakes of one generator: shards that are there already (``dir``), or fakes that the experiment makes.

    Attributes:
        name: of its folder and in the report.
        dir: its fakes, in one shard folder or several. With them all below but ``real``, ``family``, ``year`` and
            ``note`` is without meaning.
        role: see the module's docstring.
        real: reals of their own that its fakes are tested against; the experiment's own unless given.
        family: one of ``synth train``, or ``splice`` for face splices, which need no training. Of fakes that are
            there already any name: those of one family are left out together.
        year: when the generator was published, for the chronological protocol.
        n: fakes to train on, or to test on when the role is ``unseen``. Of those to train on a tenth validates, and
            a tenth more is made to test on.
        model: run or model folder of a generator that is trained already.
        train: settings of ``synth train`` (kimg, minutes, batch, …).
        trunc: psi of the truncation trick when generating.
        note: a sentence for the report.
    """

    name: str
    dir: tuple[Path, ...] = ()
    role: Role | None = None
    real: tuple[Path, ...] = ()
    family: str = ""
    year: Annotated[int, Bounds(1900, 2100)] | None = None
    n: CountOrNone = 0
    model: Path | None = None
    train: dict[str, Any] = field(default_factory=dict)
    trunc: Truncation = 1.0
    note: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, prefix="")
        if not self.dir and not self.family and self.model is None:
            raise UserError(
                f"the fakes of {self.name} are neither there nor made", hint="give dir:, model: or family:"
            )
        if not self.dir and self.n < 1:
            raise UserError(f"n is {self.n}", hint="say how many fakes are made, at least 1")
        if not re.fullmatch(r"[\w .-]+" if self.dir else r"[\w.-]+", self.name):
            raise UserError(
                f"{self.name!r} names a folder", hint="use letters, digits, '-', '_' and '.' only"
            )

    @property
    def kin(self) -> str:
        """What is left out together with it: its family, or itself where none is named."""
        return self.family or self.name


@dataclass(frozen=True)
class Mix:
    """What one condition of ``conditions`` trains on.

    Attributes:
        name: of the condition.
        fakes: names of the generators. Where some have ``role: synthetic`` and others not, half of the fakes in a
            batch are of these and half of those.
        ensemble: names of conditions above it, in place of ``fakes``: nothing is trained, their detectors judge
            together, by the mean of their calibrated logits.
        about: in words, for the report.
        without: names of sources of photos that it does not train on, nor on fakes that were made of these.
        train: settings of its trainings; they override those of experiment and detector.
    """

    name: str
    fakes: tuple[str, ...] = ()
    about: str = ""
    ensemble: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or "," in self.name:
            raise UserError(f"{self.name!r} is no name for a table", hint="write it on one line, without ','")
        if bool(self.fakes) == bool(self.ensemble):
            raise UserError(
                f"condition {self.name} has neither fakes nor an ensemble, or both",
                hint="name generators in fakes:, or conditions in ensemble:",
            )
        if self.ensemble and (self.without or self.train):
            raise UserError(f"condition {self.name} trains nothing", hint="leave without: and train: out")


@dataclass(frozen=True)
class PhotosConfig:
    """One source of reals that fakes are tested against apart, of ``conditions``.

    Attributes:
        name: in the report.
        dir: its shard folders; the experiment's reals by default. Of folders that are trained on, the test split.
        source: only rows whose column ``source`` says so; all of them by default.
    """

    name: str
    dir: tuple[Path, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Config:
    """An experiment, as written in its YAML.

    Attributes:
        name: in the report's title.
        protocol: which conditions are compared; see :mod:`crossfake.experiments.design.protocols`.
        detectors: what is trained, once per condition and seed.
        seeds: of the detectors' training; three or more make an interval that knows training's chance.
        prepare: settings of ``crossfake data prepare``, to make the reals as a first stage.
        real: shard folders of reals: train split to train on, test split to test against.
        generators: the fakes.
        train: settings of ``detect train`` that all detectors share (steps, batch, …).
        by: what is left out at a time, of ``leave-one-out``.
        doses: numbers of synthetic fakes, of ``dose-response``.
        train_on: names of generators that are trained on together, of ``cross-generator``; each alone by default.
        conditions: which fakes are trained on, of ``conditions``.
        contrasts: pairs of their names, ``[a, b]``: does b do better than a against strangers to both?
        detector_contrasts: pairs of detectors, ``[a, b]``: does b do better than a in the conditions that both are
            trained in, of ``conditions``?
        photos: sources of reals that are told apart, of ``conditions``; the experiment's reals alone by default.
        reencode: how all test pictures are coded alike before they are judged, ``{jpeg: 85}`` or ``{webp: 85}``.
        benign: judge the test reals once more as retouched by :mod:`crossfake.detect.training.benign`.
        perturbations: how test pictures are changed as well, and how strongly: ``{jpeg: [90, 50]}``; ``{jpeg: []}``
            takes the usual strengths.
        published: whose figures stand beside one's own; a name in :mod:`crossfake.experiments.report.published`.
        quality: settings of ``synth evaluate`` for the fakes made here (metrics, dims, …).
        resamples: of the test sets, for the intervals.
        cache: folder of cells that several experiments share; the experiment's own by default.
        device: ``auto``, ``cpu``, ``cuda``.
        note: a paragraph for the report, for example what the pictures are.

    Raises:
        UserError: something that every protocol needs is missing, or a name occurs twice.
    """

    name: str
    protocol: str
    detectors: tuple[DetectorConfig, ...]
    generators: tuple[GeneratorConfig, ...]
    seeds: tuple[Seed, ...] = (0, 1, 2)
    prepare: dict[str, Any] = field(default_factory=dict)
    real: tuple[Path, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)
    by: By | None = None
    doses: tuple[CountOrNone, ...] = ()
    train_on: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[Mix, ...] = ()
    contrasts: tuple[tuple[str, ...], ...] = ()
    detector_contrasts: tuple[tuple[str, ...], ...] = ()
    photos: tuple[PhotosConfig, ...] = ()
    reencode: dict[str, Any] = field(default_factory=dict)
    benign: bool = False
    perturbations: dict[str, Any] = field(default_factory=dict)
    published: str = ""
    quality: dict[str, Any] = field(default_factory=dict)
    resamples: Resamples = 1000
    cache: Path | None = None
    device: str = "auto"
    note: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, prefix="")
        if not self.real and not self.prepare:
            raise UserError("there are no reals", hint="give real: [shard folder], or prepare:")
        if not self.detectors or not self.seeds:
            raise UserError("there is nothing to train", hint="give at least one detector and one seed")
        for kind, names in (
            ("detectors", [d.name for d in self.detectors]),
            ("generators", ["real", *(g.name for g in self.generators)]),
            ("seeds", self.seeds),
            ("conditions", [c.name for c in self.conditions]),
            (
                "sets of pictures",
                ["real", *(g.name for g in self.generators), *(p.name for p in self.photos)],
            ),
        ):
            files: dict[str, Any] = {}
            for name in names:
                file = re.sub(r"[\W_]+", "-", str(name).lower())
                if file in files:
                    alike = (
                        f"two {kind} are called {name!r}"
                        if files[file] == name
                        else (f"the {kind} {files[file]!r} and {name!r} would write the same files")
                    )
                    raise UserError(alike, hint="give each its own name")
                files[file] = name

    @property
    def data(self) -> tuple[str, ...]:
        """What detectors see of the photos, each kind once."""
        return tuple(dict.fromkeys(detector.data for detector in self.detectors))

    def seen_as(self, data: str) -> Config:
        """With ``{data}`` in the paths of reals and fakes replaced by what one kind of detectors sees."""

        def filled(paths: tuple[Path, ...]) -> tuple[Path, ...]:
            return tuple(Path(str(path).replace("{data}", data)) for path in paths)

        made = dataclasses.replace(
            self,
            real=filled(self.real),
            generators=tuple(
                dataclasses.replace(g, dir=filled(g.dir), real=filled(g.real)) for g in self.generators
            ),
            photos=tuple(dataclasses.replace(p, dir=filled(p.dir)) for p in self.photos),
        )
        object.__setattr__(made, "_origin", self.origin)
        return made

    def seeds_of(self, detector: DetectorConfig) -> tuple[int, ...]:
        """Of a detector's training; a given one has the first alone."""
        return self.seeds[:1] if detector.bundle else detector.seeds or self.seeds

    @property
    def origin(self) -> tuple[str, dict[Key, int]]:
        """What it was read from, and the line of each key; no field, since it is no part of the experiment."""
        return getattr(self, "_origin", ("the configuration", {}))

    def mistake(self, key: Key, what: str, hint: str) -> UserError:
        """What is wrong with a key, with its line where there is one."""
        file, lines = self.origin
        return mistake_at(file, lines, key, what, hint)

    def check_paths(self) -> None:
        """Look for every folder and file that is named, before anything is imported that takes seconds.

        Raises:
            UserError: naming the line of one that is not there.
        """
        from crossfake.datasets.sources.base import SourceSpec, is_shards, is_there

        def look(key: Key, good: bool, wrong: str, hint: str = "check the path") -> None:
            if not good:
                raise self.mistake(key, wrong, hint)

        def files(key: Key, settings: dict[str, Any], *names: str) -> None:
            for name in names:
                value = settings.get(name)
                for path in value if isinstance(value, tuple | list) else [value] if value else []:
                    look((*key, name), is_there(Path(path)), f"{path} is not there")

        shards: dict[tuple[Key, Path], None] = {}
        for config in map(self.seen_as, self.data):
            shards |= {(("real", index), path): None for index, path in enumerate(config.real)}
            for kind, parts in (("generators", config.generators), ("photos", config.photos)):
                for number, part in enumerate(parts):
                    for name in ("dir", "real"):
                        folders = getattr(part, name, ())
                        shards |= {((kind, number, name, k), path): None for k, path in enumerate(folders)}
        for key, path in shards:
            hint = "make one with 'crossfake data prepare'"
            look(key, is_shards(path), f"{path} is not a shard folder", hint)
        for number, generator in enumerate(self.generators):
            at: Key = ("generators", number)
            if model := generator.model:
                cards = (model / "model.json", model / "model" / "model.json")
                found = any(map(is_there, cards))
                hint = "name a run of 'synth train' or a model folder"
                look((*at, "model"), found, f"{model} holds no generator", hint)
            files((*at, "train"), generator.train, "init")
        for number, detector in enumerate(self.detectors):
            files(("detectors", number, "settings"), detector.settings, "weights")
            if detector.bundle:
                cards = (detector.bundle / "bundle.json", detector.bundle / "model" / "bundle.json")
                hint = "name a run of 'detect train' or a bundle folder"
                found = any(map(is_there, cards))
                look(("detectors", number, "bundle"), found, f"{detector.bundle} holds no detector", hint)
        files(("train",), self.train, "weights")
        files(("quality",), self.quality, "inception", "lpips_weights", "weights")
        files(("prepare",), self.prepare, "face_model")
        if word := self.prepare.get("source"):
            try:
                spec = SourceSpec(str(word))
                needs_path = spec.layout != str(word)
            except UserError as error:
                raise self.mistake(("prepare", "source"), error.message, error.hint or "") from error
            look(("prepare", "source"), not needs_path or is_there(spec.path), f"{spec.path} is not there")

    def of(self, role: Role) -> tuple[GeneratorConfig, ...]:
        """The generators of a role."""
        return tuple(generator for generator in self.generators if generator.role == role)


def load(source: str | Path | dict[str, Any], quick: bool = False) -> Config:
    """Read an experiment from a YAML file, or from a dict of the same shape.

    Args:
        quick: with what the key ``quick`` says in place of the same keys outside it: its tables of settings override
            one by one, everything else as a whole.

    Raises:
        UserError: naming file, line and key of what is wrong.

    Example:
        >>> load({"name": "x", "protocol": "cross-generator", "detectors": ["cnn"], "real": ["faces"],
        ...       "generators": [{"name": "a", "dir": "fakes"}]}).detectors[0].model
        'cnn'
    """
    if isinstance(source, dict):
        return _read(source, {}, "the configuration", quick)
    try:
        node = yaml.compose(Path(source).read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {source}", hint="name a YAML file, or see 'crossfake experiment list'"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", error)
        raise UserError(f"{source}{place} is not YAML ({reason})", hint="correct the line") from error
    lines: dict[Key, int] = {}
    value = plain_values(node, (), lines, str(source)) if node is not None else None
    return _read(value, lines, str(source), quick)


def _read(value: Any, lines: dict[Key, int], file: str, quick: bool) -> Config:
    """A configuration from plain values; what ``quick`` says is looked at in any case."""
    shorter = None
    if isinstance(value, dict) and isinstance(value.get("quick"), dict):
        value = dict(value)
        shorter = _shorter(value, value.pop("quick"))
        there = {key[1:]: line for key, line in lines.items() if key[:1] == ("quick",) and len(key) > 1}
    config = typing.cast(Config, build(Config, value, (), lines, file))
    if quick and shorter is None:
        raise UserError(f"{file} has no quick version", hint="leave --quick out, or write quick: {…} into it")
    if shorter is not None:
        small = typing.cast(Config, build(Config, shorter, (), lines | there, file))
        config, lines = (small, lines | there) if quick else (config, lines)
    object.__setattr__(config, "_origin", (file, lines))
    return config


def _shorter(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    tables = {k: {**value[k], **v} for k, v in changes.items() if isinstance(v, dict) and k in value}
    return {**value, **changes, **tables}


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved configuration as YAML-able values; :func:`load` takes it back."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config), default=str)))
