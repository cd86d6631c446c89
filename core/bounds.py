"""Which numbers and words a setting may be: declared beside its type, and checked in one place.

Example:
    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     lr: Annotated[float, Bounds(0, 10, above=True)] = 0.001
    ...     batch: Annotated[int, Bounds(2, 512, zero=True)] = 0
    ...     seed: Seed = 0
    ...     def __post_init__(self) -> None:
    ...         check_bounds(self)
    >>> Settings(lr=float("nan"))
    Traceback (most recent call last):
    crossfake.errors.UserError: --lr nan is out of range: give a number above 0, at most 10
    >>> str(Bounds(2, 512, zero=True).words(int))
    '0, or a whole number from 2 to 512'
"""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from crossfake.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """The numbers from ``low`` to ``high``.

    Attributes:
        low, high: the ends, which belong to it.
        above: the low end does not.
        below: the high end does not.
        zero: 0 is allowed as well: it stands for "none", "all" or "chosen", as the setting says.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    zero: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number is one of them; NaN never is, nor is an infinite one."""
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        return (over and under) or (self.zero and value == 0)

    def words(self, kind: type) -> str:
        """What an error says of it, for ``int`` or ``float``."""
        number = "a whole number" if kind is int else "a number"
        if self.above:
            text = f"{number} above {self.low:,}, {'below' if self.below else 'at most'} {self.high:,}"
        elif self.below:
            text = f"{number} from {self.low:,}, below {self.high:,}"
        else:
            text = f"{number} from {self.low:,} to {self.high:,}"
        return f"0, or {text}" if self.zero else text


MOST = 10**9  # of things that are counted
Seed = Annotated[int, Bounds(0, 2**31 - 1)]  # what every library takes
LongSeed = Annotated[int, Bounds(0, 2**63 - 1)]  # what an image is named by, in a column of int64
Count = Annotated[int, Bounds(1, MOST)]
CountOrNone = Annotated[int, Bounds(0, MOST)]
Workers = Annotated[int, Bounds(0, 1024)]  # processes; 0 is one per core
ThreadCount = Annotated[int, Bounds(0, 1024)]  # of torch; 0 measures whether one or all are quicker
Share = Annotated[float, Bounds(0, 1)]
Truncation = Annotated[float, Bounds(0, 2)]
Weight = Annotated[float, Bounds(0, 10**6)]
StepSize = Annotated[float, Bounds(0, 10, above=True)]
Minutes = Annotated[float, Bounds(0, 10**7, above=True)]
Resamples = Annotated[int, Bounds(100, 10**6)]
WindowSide = Annotated[int, Bounds(16, 1024)]  # of native pixels
WindowCount = Annotated[int, Bounds(1, 1000)]


@dataclass(frozen=True)
class Number:
    """A field that holds a number, or several.

    Attributes:
        kind: int or float.
        bounds: None where none are declared: then any finite number will do.
        optional: None is a value.
        several: it is a tuple of them.
    """

    kind: type
    bounds: Bounds | None = None
    optional: bool = False
    several: bool = False


@functools.cache
def hints_of(settings: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with what is declared beside them."""
    return typing.get_type_hints(settings, include_extras=True)


@functools.cache
def numbers_of(settings: type) -> dict[str, Number]:
    """The fields of a dataclass that are numbers, tuples of numbers, or None instead.

    Example:
        >>> numbers_of(Bounds)["low"]
        Number(kind=<class 'float'>, bounds=None, optional=False, several=False)
    """
    hints = hints_of(settings)
    found = {field.name: _number(hints[field.name]) for field in fields(settings)}
    return {name: number for name, number in found.items() if number is not None}


def _number(kind: Any) -> Number | None:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = next((extra for extra in inner[1:] if isinstance(extra, Bounds)), None)
        return Number(inner[0], bounds) if inner[0] in (int, float) else None
    if origin in (types.UnionType, typing.Union) and len(inner) == 2 and type(None) in inner:
        found = _number(next(each for each in inner if each is not type(None)))
        return found and Number(found.kind, found.bounds, True, found.several)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        found = _number(inner[0])
        return found and Number(found.kind, found.bounds, found.optional, True)
    return Number(kind) if kind in (int, float) else None


@functools.cache
def choices_of(settings: type) -> dict[str, tuple[Any, ...]]:
    """The fields of a dataclass that are one of a few values: ``Literal``, or None where that is allowed."""
    hints = typing.get_type_hints(settings)
    found = {}
    for each in fields(settings):
        kind = hints[each.name]
        members = (kind,) if typing.get_origin(kind) is Literal else typing.get_args(kind)
        if any(typing.get_origin(member) is Literal for member in members):
            found[each.name] = tuple(
                value
                for member in members
                for value in (typing.get_args(member) if typing.get_origin(member) is Literal else (None,))
            )
    return found


def check_bounds(settings: Any, prefix: str = "--") -> None:
    """Hold every number of a dataclass against its declared bounds, and every choice against its values.

    NaN and infinity are never within bounds.

    Args:
        settings: an instance.
        prefix: before a field's name in messages: ``--`` where fields are options of a command.

    Raises:
        UserError: one is out of range, no number, or no choice.
    """
    kind: Any = type(settings)
    for name, choices in choices_of(kind).items():
        if (value := getattr(settings, name)) not in choices:
            raise UserError(
                f"there is no {name} {value!r}",
                hint=f"choose one of {', '.join(map(str, filter(None, choices)))}",
            )
    for name, number in numbers_of(kind).items():
        value = getattr(settings, name)
        if value is None and number.optional:
            continue
        said = f"{prefix}{name.replace('_', '-')}" if prefix else name
        if number.several and not isinstance(value, tuple | list | str):
            raise UserError(f"{said} is {value!r}", hint="give a list of numbers")
        for each in value if number.several else (value,):
            check_number(said, each, number)


def check_number(name: str, value: Any, number: Number) -> None:
    """Raise ``UserError`` when a value is not within the bounds of a field, which messages call ``name``."""
    kind, bounds = number.kind, number.bounds or _FINITE
    hint = (
        f"give {bounds.words(kind)}" if number.bounds else f"give a finite {'whole ' * (kind is int)}number"
    )
    if not isinstance(value, Integral if kind is int else Real) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}", hint=hint)
    if value not in bounds:  # type: ignore[operator]
        raise UserError(f"{name} {value} is out of range", hint=hint)


_FINITE = Bounds(-1.7e308, 1.7e308)
