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
import difflib
import os
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from crossfake.bounds import Bounds, CountOrNone, Resamples, Seed, Truncation, check_bounds
from crossfake.errors import UserError

Role = Literal["seen", "synthetic", "unseen"]
By = Literal["generator", "family"]
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Detector:
    """One detector.

    Attributes:
        model: a name that ``detect train`` takes.
        name: in the report.
        settings: of its training; they override the experiment's.
        processes: that train it together, by torchrun: one per GPU, say. They share each batch.
        memory: GiB that Ray keeps free for each of them.
    """

    model: str
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    processes: Annotated[int, Bounds(1, 1024)] = 1
    memory: Annotated[float, Bounds(0, 10**6, above=True)] = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.model)
        if not self.name.isprintable():
            raise UserError(f"{self.name!r} is no name for a table", mend="write it on one line")
        check_bounds(self, prefix="")


@dataclass(frozen=True)
class Generator:
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
                f"the fakes of {self.name} are neither there nor made", mend="give dir:, model: or family:"
            )
        if not self.dir and self.n < 1:
            raise UserError(f"n is {self.n}", mend="say how many fakes are made, at least 1")
        if not re.fullmatch(r"[\w .-]+" if self.dir else r"[\w.-]+", self.name):
            raise UserError(
                f"{self.name!r} names a folder", mend="use letters, digits, '-', '_' and '.' only"
            )

    @property
    def kin(self) -> str:
        """What is left out together with it: its family, or itself where none is named."""
        return self.family or self.name


@dataclass(frozen=True)
class Config:
    """An experiment, as written in its YAML.

    Attributes:
        name: in the report's title.
        protocol: which conditions are compared; see :mod:`crossfake.experiments.protocols`.
        detectors: what is trained, once per condition and seed.
        seeds: of the detectors' training; three or more make an interval that knows training's chance.
        prepare: settings of ``crossfake data prepare``, to make the reals as a first stage.
        real: shard folders of reals: train split to train on, test split to test against.
        generators: the fakes.
        train: settings of ``detect train`` that all detectors share (steps, batch, …).
        by: what is left out at a time, of ``leave-one-out``.
        doses: numbers of synthetic fakes, of ``dose-response``.
        train_on: names of generators that are trained on together, of ``cross-generator``; each alone by default.
        perturbations: how test pictures are changed as well, and how strongly: ``{jpeg: [90, 50]}``; ``{jpeg: []}``
            takes the usual strengths.
        published: whose figures stand beside one's own; a name in :mod:`crossfake.experiments.published`.
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
    detectors: tuple[Detector, ...]
    generators: tuple[Generator, ...]
    seeds: tuple[Seed, ...] = (0, 1, 2)
    prepare: dict[str, Any] = field(default_factory=dict)
    real: tuple[Path, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)
    by: By | None = None
    doses: tuple[CountOrNone, ...] = ()
    train_on: tuple[tuple[str, ...], ...] = ()
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
            raise UserError("there are no reals", mend="give real: [shard folder], or prepare:")
        if not self.detectors or not self.seeds:
            raise UserError("there is nothing to train", mend="give at least one detector and one seed")
        for kind, names in (
            ("detectors", [d.name for d in self.detectors]),
            ("generators", ["real", *(g.name for g in self.generators)]),
            ("seeds", self.seeds),
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
                    raise UserError(alike, mend="give each its own name")
                files[file] = name

    @property
    def origin(self) -> tuple[str, dict[Key, int]]:
        """What it was read from, and the line of each key; no field, since it is no part of the experiment."""
        return getattr(self, "_origin", ("the configuration", {}))

    def mistake(self, key: Key, what: str, hint: str) -> UserError:
        """What is wrong with a key, with its line where there is one."""
        file, lines = self.origin
        return _mistake(file, lines, key, what, hint)

    def check_paths(self) -> None:
        """Look for every folder and file that is named, before anything is imported that takes seconds.

        Raises:
            UserError: naming the line of one that is not there.
        """
        from crossfake.datasets.sources import Asked, is_shards, is_there

        def look(key: Key, good: bool, wrong: str, hint: str = "check the path") -> None:
            if not good:
                raise self.mistake(key, wrong, hint)

        def files(key: Key, settings: dict[str, Any], *names: str) -> None:
            for name in names:
                value = settings.get(name)
                for path in value if isinstance(value, tuple | list) else [value] if value else []:
                    look((*key, name), is_there(Path(path)), f"{path} is not there")

        shards: list[tuple[Key, Path]] = [(("real", index), path) for index, path in enumerate(self.real)]
        for number, generator in enumerate(self.generators):
            at: Key = ("generators", number)
            for name in ("dir", "real"):
                shards += [((*at, name, index), path) for index, path in enumerate(getattr(generator, name))]
        for key, path in shards:
            hint = "make one with 'crossfake data prepare'"
            look(key, is_shards(path), f"{path} is not a shard folder", hint)
        for number, generator in enumerate(self.generators):
            at = ("generators", number)
            if model := generator.model:
                cards = (model / "model.json", model / "model" / "model.json")
                found = any(map(is_there, cards))
                hint = "name a run of 'synth train' or a model folder"
                look((*at, "model"), found, f"{model} holds no generator", hint)
            files((*at, "train"), generator.train, "init")
        for number, detector in enumerate(self.detectors):
            files(("detectors", number, "settings"), detector.settings, "weights")
        files(("train",), self.train, "weights")
        files(("quality",), self.quality, "inception", "lpips_weights", "weights")
        files(("prepare",), self.prepare, "face_model")
        if word := self.prepare.get("source"):
            try:
                asked = Asked(str(word))
                needs_path = asked.layout != str(word)
            except UserError as error:
                raise self.mistake(("prepare", "source"), error.message, error.mend or "") from error
            look(("prepare", "source"), not needs_path or is_there(asked.path), f"{asked.path} is not there")

    def of(self, role: Role) -> tuple[Generator, ...]:
        return tuple(generator for generator in self.generators if generator.role == role)


def load(source: str | Path | dict[str, Any]) -> Config:
    """Read an experiment from a YAML file, or from a dict of the same shape.

    Raises:
        UserError: naming file, line and key of what is wrong.

    Example:
        >>> load({"name": "x", "protocol": "cross-generator", "detectors": ["cnn"], "real": ["faces"],
        ...       "generators": [{"name": "a", "dir": "fakes"}]}).detectors[0].model
        'cnn'
    """
    if isinstance(source, dict):
        return typing.cast(Config, _build(Config, source, (), {}, "the configuration"))
    try:
        node = yaml.compose(Path(source).read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {source}", mend="name a YAML file, or see 'crossfake experiment list'"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", error)
        raise UserError(f"{source}{place} is not YAML ({reason})", mend="correct the line") from error
    lines: dict[Key, int] = {}
    value = _plain(node, (), lines, str(source)) if node is not None else None
    config = typing.cast(Config, _build(Config, value, (), lines, str(source)))
    object.__setattr__(config, "_origin", (str(source), lines))
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved configuration as YAML-able values; :func:`load` takes it back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))


def _plain(node: yaml.Node, key: Key, lines: dict[Key, int], file: str) -> Any:
    """YAML nodes to values, noting the line of each; a key given twice is an error, not silently the last."""
    lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Any] = {}
        for name, item in node.value:
            if name.value in table:
                at = {key: name.start_mark.line + 1}
                raise _mistake(file, at, key, f"{name.value} is given twice", "keep one of them")
            table[str(name.value)] = _plain(item, (*key, name.value), lines, file)
            lines[(*key, name.value)] = name.start_mark.line + 1
        return table
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*key, index), lines, file) for index, item in enumerate(node.value)]
    scalar = yaml.SafeLoader("")
    return scalar.construct_object(node, deep=True)


def _mistake(file: str, lines: dict[Key, int], key: Key, what: str, mend: str) -> UserError:
    line = next((lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in lines), None)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")
    return UserError(
        f"{file}{f', line {line}' if line else ''}: {f'{path}: ' if path else ''}{what}", mend=mend
    )


def nearest(name: Any, known: Iterable[str]) -> str:
    """What to do about a key that there is not."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _build(kind: Any, value: Any, key: Key, lines: dict[Key, int], file: str) -> Any:
    """Turn plain values into ``kind``: a dataclass, a tuple of things, a Literal, or a plain type."""

    def mistake(what: str, mend: str, at: Key = key) -> UserError:
        return _mistake(file, lines, at, what, mend)

    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _build(inner[0], value, key, lines, file)
    if origin is Literal:
        if value not in inner:
            raise mistake(f"{value!r} is none of {', '.join(inner)}", "choose one of them")
        return value
    if origin is tuple and inner[0] is Path and isinstance(value, str | Path):  # one folder is a list of one
        value = [value]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise mistake(f"expected a list, found {value!r}", "write it as [a, b]")
        return tuple(_build(inner[0], item, (*key, index), lines, file) for index, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        fields = {item.name: item for item in dataclasses.fields(kind)}
        if isinstance(value, str | Path):  # "cnn" is short for {model: cnn}
            value = {next(iter(fields)): value}
        if not isinstance(value, dict):
            raise mistake(f"expected keys and values, found {value!r}", f"give {', '.join(fields)}")
        for name in value:
            if name not in fields:
                raise mistake("there is no such key", nearest(name, fields), (*key, name))
        for name, item in fields.items():
            if name not in value and item.default is item.default_factory is dataclasses.MISSING:
                raise mistake(f"{name} is missing", "add it")
        types_ = typing.get_type_hints(kind)
        arguments = {
            name: _build(types_[name], item, (*key, name), lines, file) for name, item in value.items()
        }
        try:
            return typing.cast(Any, kind)(**arguments)
        except UserError as error:
            raise mistake(error.message, error.mend or "correct it") from error
    if origin is dict:
        if not isinstance(value, dict):
            raise mistake(f"expected keys and values, found {value!r}", "write it as {key: value}")
        return {name: _expand(tuple(item) if isinstance(item, list) else item, (*key, name), lines, file)
                for name, item in value.items()}  # fmt: skip
    if kind in (str, Path) and isinstance(value, str | Path):
        return kind(_expand(str(value), key, lines, file))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise mistake(f"expected {kind.__name__}, found {value!r}", f"give a value of type {kind.__name__}")
    return value


def _expand(value: Any, key: Key, lines: dict[Key, int], file: str) -> Any:
    """``${NAME}`` in a string becomes the environment variable; one that is not set is an error."""
    if not isinstance(value, str):
        return value
    missing = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if missing:
        raise _mistake(
            file, lines, key, f"the environment variable {missing[0]} is not set", f"export {missing[0]}=…"
        )
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], value)
