"""Settings as a command line: the fields of a dataclass become options of a click command.

A field's name, type, choices, default and range (:mod:`crossfake.bounds`) are the option's. The help is the first
sentence of its entry under ``Attributes:``; what ``[default: …]`` says there stands for None. What is left to say about
the command line is an annotation: the kind of path, or an :class:`Option`.

Example:
    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     '''How to bake.
    ...
    ...     Attributes:
    ...         flour: bags of flour. Any kind will do.
    ...         heat: degrees [default: the oven's].
    ...     '''
    ...     flour: tuple[There, ...] = ()
    ...     heat: Annotated[int, Bounds(50, 250)] | None = None
    >>> @click.command()
    ... @options(Settings)
    ... def bake(**chosen: Any) -> None: ...
    >>> [(option.name, option.help) for option in bake.params]
    [('flour', 'Bags of flour.'), ('heat', 'Degrees.  [default: the oven's]')]
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import click

from crossfake.bounds import Number, check_number, hints_of, numbers_of
from crossfake.cli import SHARDS, THERE, error_line
from crossfake.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")

Folder = Annotated[Path, click.Path(path_type=Path)]
Shards = Annotated[Path, SHARDS]
There = Annotated[Path, THERE]
Precision = Literal["auto", "bf16", "fp32"]
PixelKind = Literal["aligned", "native"]


@dataclass(frozen=True)
class Option:
    """How a field is typed where its name and type do not say it.

    Attributes:
        names: such as ``--with-synthetic``, or ``--per-image/--per-generator``; by default ``--`` and the field's.
        metavar: what the help calls its value.
        envvar: the environment variable that it is taken from when it is not typed.
        hidden: the help does not list it.
        is_eager: it is read before the others.
    """

    names: str = ""
    metavar: str | None = None
    envvar: str | None = None
    hidden: bool = False
    is_eager: bool = False


class _OutOfRange(click.ClickException):
    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(error_line(self.message), file, err=True)


class _InRange:
    """A number of a declared range: what is beyond it ends in one line, before a command does anything."""

    number: Number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)  # type: ignore[misc]
        try:
            check_number(param.opts[0] if param else "it", found, self.number)
        except UserError as error:
            raise _OutOfRange(str(error)) from error
        return found


class _Whole(_InRange, click.types.IntParamType):
    pass


class _Real(_InRange, click.types.FloatParamType):
    pass


def options(
    settings: type, *names: str, without: Collection[str] = (), **changed: dict[str, Any]
) -> Callable[[F], F]:
    """Add the documented fields of a dataclass to a command, each as an option that is passed by the field's name.

    Args:
        settings: the dataclass.
        names: these fields alone, in this order; without any, all that ``Attributes:`` lists, in its order.
        without: fields that are no options.
        changed: by field, what is not as the dataclass has it: arguments of :func:`click.option`.
    """
    documented, hints, numbers = attributes(settings), hints_of(settings), numbers_of(settings)
    defaults = {each.name: each.default for each in fields(settings)}

    def add(command: F) -> F:
        for name in reversed(names or [name for name in documented if name not in without]):
            kind, several, own = _read(hints[name])
            if kind in (int, float):
                kind = _Whole() if kind is int else _Real()
                kind.number = numbers[name]
            made = _option(name, kind, several, own, defaults[name], documented[name], changed.get(name, {}))
            command = made(command)
        return command

    return add


def taken(settings: type[S], options: dict[str, Any]) -> S:
    """One dataclass's settings, taken out of the options of a command that has several."""
    return settings(**{field.name: options.pop(field.name) for field in fields(typing.cast(Any, settings))})


def attributes(settings: type) -> dict[str, str]:
    """What a class says of its attributes, by name, each on one line."""
    section = re.search(r"^Attributes:\n((?:    .*\n?|\n)*)", inspect.getdoc(settings) or "", re.MULTILINE)
    entries = re.split(r"^    (\w+(?:, \w+)*): ", section[1] if section else "", flags=re.MULTILINE)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {name: " ".join(text.split()) for listed, text in pairs for name in listed.split(", ")}


def help_of(text: str) -> str:
    """The first sentence, as the command line shows it.

    Example:
        >>> help_of("step size of ``adam`` [default: the family's]. Small is slow.")
        "Step size of adam.  [default: the family's]"
    """
    first = re.split(r"(?<=[.?])\s", text)[0].rstrip(".")
    default = re.search(r"\s*(\[default: .*?\])", first)
    first = first.replace(default[0], "") if default else first
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", first).replace("``", "")
    start = plain[:1].upper() if plain[:1] == first[:1] else plain[:1]  # a value is written as it is typed
    end = "" if plain.endswith("?") else "."
    return f"{start}{plain[1:]}{end}" + (f"  {default[1]}" if default else "")


def _option(
    name: str, kind: Any, several: bool, own: Option, default: Any, text: str, changed: dict[str, Any]
) -> Callable[[F], F]:
    help_text, needed = help_of(text), default is MISSING
    chosen = {"help": help_text, "default": None if needed else default}
    if default == "" or "[default:" in help_text:  # what is shown is said in words, or is nothing
        chosen["show_default"] = False
    elif needed and not several and "default" not in changed:
        chosen["required"] = True
    flag = f"--{name.replace('_', '-')}"
    if default == "" and isinstance(kind, click.Choice):  # none of them
        kind = click.Choice([each for each in kind.choices if each != ""])
        chosen |= {"default": None, "callback": lambda context, option, value: value or ""}
    if kind is not bool:
        chosen |= {"type": kind, "multiple": several}
    elif default is False:
        chosen["is_flag"] = True
    else:
        flag = f"{flag}/--no-{flag[2:]}"
    more = {**asdict(own), "show_envvar": own.envvar is not None}
    return click.option(more.pop("names") or flag, name, **{**more, **chosen, **changed})


def _read(hint: Any) -> tuple[Any, bool, Option]:
    """The click type of a hint, whether there may be several, and what an annotation says."""
    origin: Any = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is Annotated:
        kind, several, own = _read(inner[0])
        for extra in inner[1:]:
            if isinstance(extra, Option):
                own = extra
            elif isinstance(extra, click.ParamType):
                kind, several = extra, False
        return kind, several, own
    if origin in (types.UnionType, typing.Union):
        # one folder or several: the command line has several
        kinds = [each for each in inner if each is not type(None)]
        tuples = [each for each in kinds if typing.get_origin(each) is tuple]
        return _read((tuples or kinds)[0])
    if origin is tuple:
        kind, _, own = _read(inner[0])
        return kind, True, own
    if origin is Literal:
        return click.Choice(inner), False, Option()
    return click.Path(path_type=Path) if hint is Path else hint, False, Option()
