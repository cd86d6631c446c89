"""What a search may vary: ranges and choices for settings of a training, read from YAML and checked by line.

One key per setting of :class:`crossfake.detect.training.settings.TrainSettings`::

    lr: {low: 1e-4, high: 1e-2, log: true}    # a range; integers where the setting is one
    augment: {low: 0, high: 1, step: 0.25}    # only these steps
    model: [cnn, resnet18]                    # a choice
    patience: 8                               # the same for all trials
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError

SPACES = Path(__file__).parent / "spaces"
# Where the data is and what is done with it is no matter of taste, and a lucky seed is no setting
NOT_SEARCHED = (
    "real", "fake", "synthetic", "out", "seed", "device", "threads", "resume", "force", "match_steps",
    "stop_after", "view", "window",
)  # a table  # fmt: skip
_RANGE = ("low", "high", "log", "step", "points")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low, high: the ends.
        log: a factor counts, not a difference.
        step: only ``low + k * step``; None for all numbers.
        points: values that a grid takes from a range without step, evenly spaced.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    points: int = 3
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"low {self.low:g} is not below high {self.high:g}", hint="correct them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise UserError("a log range needs low above 0 and no step", hint="leave out log or correct it")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise UserError(f"step {self.step:g} does not fit between low and high", hint="correct it")
        if self.points < 2:
            raise UserError("a grid needs at least 2 points of a range", hint="give points: 3")

    def distribution(self) -> Any:
        """Optuna's distribution of it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def grid(self) -> list[Any]:
        """The values that a grid search takes, from low to high."""
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-8) + 1
            values = [min(self.low + k * self.step, self.high) for k in range(count)]
        else:
            spaced = np.geomspace if self.log else np.linspace
            values = [self.low, *spaced(self.low, self.high, self.points)[1:-1].tolist(), self.high]
        return sorted({round(value) for value in values}) if self.integer else values

    def label(self, value: Any) -> Any:
        """What stands for a value in Optuna's storage: the value itself."""
        return value

    def value(self, label: Any) -> Any:
        """The value that a label stands for."""
        return label

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the range: a number within its ends and on its steps."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8


@dataclass(frozen=True)
class Choices:
    """One of some values, in the types that the setting has."""

    values: tuple[Any, ...]

    def distribution(self) -> Any:
        """Optuna's distribution over the labels."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.grid())

    def grid(self) -> list[Any]:
        """Labels of all values, in the order given."""
        return [self.label(value) for value in self.values]

    def label(self, value: Any) -> Any:
        """What stands for a value in Optuna's storage, which knows plain values only."""
        plain = value is None or isinstance(value, bool | int | float | str)
        return value if plain else str(value) if isinstance(value, Path) else json.dumps(value, default=str)

    def value(self, label: Any) -> Any:
        """The value that a label stands for."""
        return self.values[self.grid().index(label)]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the choices."""
        return value in self.values


@dataclass(frozen=True)
class SearchSpace:
    """Settings that are searched, and those that are the same for all trials.

    Example:
        >>> space = parse_space("lr: {low: 1e-4, high: 1e-2, log: true}\\nmodel: [cnn, meso]\\npatience: 8")
        >>> space.grid()
        {'lr': [0.0001, 0.001, 0.01], 'model': ['cnn', 'meso']}
        >>> space.fixed
        {'patience': 8}
    """

    searched: dict[str, Range | Choices]
    fixed: dict[str, Any]

    def distributions(self) -> dict[str, Any]:
        """Optuna's distribution of each searched setting."""
        return {name: part.distribution() for name, part in self.searched.items()}

    def grid(self) -> dict[str, list[Any]]:
        """What a grid search takes of each searched setting, as Optuna stores it."""
        return {name: part.grid() for name, part in self.searched.items()}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Settings for ``TrainSettings`` from what Optuna suggested."""
        return {name: self.searched[name].value(label) for name, label in params.items()}

    def params(self, settings: TrainSettings) -> dict[str, Any] | None:
        """How Optuna would store these settings; None if one lies outside the space."""
        own = {name: getattr(settings, name) for name in self.searched}
        if not all(self.searched[name].holds(value) for name, value in own.items()):
            return None
        return {name: self.searched[name].label(value) for name, value in own.items()}

    def describe(self) -> dict[str, Any]:
        """The space as JSON-able values."""
        searched = {name: dataclasses.asdict(part) for name, part in self.searched.items()}
        return json.loads(json.dumps({"searched": searched, "fixed": self.fixed}, default=str))


def find_space(name: str | Path) -> Path:
    """A YAML file, or one that comes with crossfake, by its name.

    Raises:
        UserError: it is neither.
    """
    shipped = SPACES / f"{name}.yaml"
    for file in (Path(name), shipped):
        if file.is_file():
            return file
    known = ", ".join(path.stem for path in sorted(SPACES.glob("*.yaml")))
    raise UserError(f"there is no search space {name}", hint=f"name a YAML file, or one of {known}")


def load_space(file: Path, base: TrainSettings | None = None) -> SearchSpace:
    """Read a space; with ``base``, every end of a range and every choice must be one that it can take.

    Raises:
        UserError: naming file, line and setting of what is wrong.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}", hint="name a YAML file with --space") from error
    return parse_space(text, str(file), base)


def parse_space(text: str, file: str = "the space", base: TrainSettings | None = None) -> SearchSpace:
    """:func:`load_space` of YAML text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", error)
        raise UserError(f"{file}{place} is not YAML ({reason})", hint="correct the line") from error
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{file} names no settings", hint="write lines like 'lr: {low: 1e-4, high: 1e-2}'")
    hints = typing.get_type_hints(TrainSettings)
    known = [field.name for field in dataclasses.fields(TrainSettings) if field.name not in NOT_SEARCHED]
    searched: dict[str, Range | Choices] = {}
    fixed: dict[str, Any] = {}
    for key, part in node.value:
        name = str(key.value)
        try:
            if name in searched or name in fixed:
                raise UserError("it is given twice", hint="keep one of them")
            if name in NOT_SEARCHED and name in hints:
                raise UserError("it is not for searching", hint="give it on the command line")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise UserError("there is no such setting", hint=hint)
            read = _entry(part, hints[name])
            if isinstance(read, Range | Choices):
                searched[name] = read
            else:
                fixed[name] = read[0]
        except UserError as error:
            raise _placed(error, file, key) from error
    if not searched:
        raise UserError(
            f"{file} leaves nothing to search", hint="give a setting a range or a list of choices"
        )
    space = SearchSpace(searched, fixed)
    if base is not None:
        for key, _ in node.value:
            try:
                _try(space, base, str(key.value))
            except UserError as error:
                raise _placed(error, file, key) from error
    return space


def _placed(error: UserError, file: str, key: yaml.Node) -> UserError:
    line = key.start_mark.line + 1
    return UserError(f"{file}, line {line}: {key.value}: {error.message}", hint=error.hint)


def _try(space: SearchSpace, base: TrainSettings, name: str) -> None:
    """Let the settings check one entry's values themselves, among the fixed ones, before hours are spent."""
    part = space.searched.get(name)
    if part is None:
        dataclasses.replace(base, **space.fixed)
        return
    for value in (part.grid()[0], part.grid()[-1]) if isinstance(part, Range) else part.values:
        dataclasses.replace(base, **{**space.fixed, name: value})


def _entry(node: yaml.Node, annotation: Any) -> Range | Choices | tuple[Any]:
    """A range, choices, or a fixed value in a tuple of one."""
    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    except yaml.YAMLError as error:
        raise UserError(str(getattr(error, "problem", error)), hint="write plain values") from error
    if isinstance(value, list):
        value = {"choices": value}
    if not isinstance(value, dict):
        return (typed_value(value, annotation),)
    if set(value) == {"choices"}:
        choices = value["choices"]
        if not isinstance(choices, list) or not choices:
            raise UserError(f"expected a list of choices, found {choices!r}", hint="write it as [a, b]")
        values = tuple(typed_value(choice, annotation) for choice in choices)
        if any(first in values[:number] for number, first in enumerate(values)):
            raise UserError("a choice is given twice", hint="keep one of them")
        return Choices(values)
    if not {"low", "high"} & set(value) and _is_mapping(annotation):
        return (typed_value(value, annotation),)
    for key in value:
        if key not in _RANGE:
            near = difflib.get_close_matches(str(key), [*_RANGE, "choices"], n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_RANGE)}, or choices alone"
            raise UserError(f"a range has no {key!r}", hint=hint)
    for key in ("low", "high"):
        if key not in value:
            raise UserError(f"{key} is missing", hint="add it")
    number = next((kind for kind in _alternatives(annotation) if kind in (int, float)), None)
    if number is None:
        raise UserError("only numbers have a range", hint="give a list of choices")
    ends = {key: typed_value(value[key], number) for key in ("low", "high")}
    step = None if value.get("step") is None else typed_value(value["step"], number)
    points = typed_value(value.get("points", 3), int)
    return Range(
        **ends,
        log=typed_value(value.get("log", False), bool),
        step=step,
        points=points,
        integer=number is int,
    )


def typed_value(value: Any, annotation: Any) -> Any:
    """A value read from YAML as the type that a setting has.

    ``1e-4`` is a number here, although YAML 1.1 wants ``1.0e-4``; lists become tuples, and paths ``Path``.

    Raises:
        UserError: it cannot be one.

    Example:
        >>> typed_value("1e-4", float), typed_value("a.pt", Path | None), typed_value([1, 2], tuple[int, ...])
        (0.0001, PosixPath('a.pt'), (1, 2))
    """
    kinds = _alternatives(annotation)
    if value is None and type(None) in kinds or Any in kinds:
        return value
    for kind in kinds:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is Literal and value in inner:
            return value
        if origin is tuple and isinstance(value, list | tuple):
            if inner and inner[-1] is not Ellipsis and len(inner) != len(value):
                continue
            each = [inner[0]] * len(value) if inner and inner[-1] is Ellipsis else inner
            return tuple(typed_value(item, part) for item, part in zip(value, each, strict=True))
        if _is_mapping(kind) and isinstance(value, dict):
            return value
        if kind is Path and isinstance(value, str | Path):
            return Path(value)
        if kind in (str, bool) and isinstance(value, kind):
            return value
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                continue
    names = [
        getattr(kind, "__name__", str(kind))
        if typing.get_origin(kind) is not Literal
        else " or ".join(map(str, typing.get_args(kind)))
        for kind in kinds
        if kind is not type(None)
    ]
    raise UserError(f"expected {' or '.join(names)}, found {value!r}", hint="correct it")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (types.UnionType, typing.Union)
        else (annotation,)
    )


def _is_mapping(annotation: Any) -> bool:
    return any(
        (typing.get_origin(kind) or kind) in (dict, collections.abc.Mapping)
        for kind in _alternatives(annotation)
    )
