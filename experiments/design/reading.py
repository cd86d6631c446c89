"""YAML into frozen dataclasses; a mistake ends in one line with its key and line number."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml

from crossfake.errors import UserError

Key = tuple[str | int, ...]


def plain_values(node: yaml.Node, key: Key, lines: dict[Key, int], file: str) -> Any:
    """YAML nodes to values, noting the line of each; a key given twice is an error, not silently the last."""
    lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Any] = {}
        for name, item in node.value:
            if name.value in table:
                at = {key: name.start_mark.line + 1}
                raise mistake_at(file, at, key, f"{name.value} is given twice", "keep one of them")
            table[str(name.value)] = plain_values(item, (*key, name.value), lines, file)
            lines[(*key, name.value)] = name.start_mark.line + 1
        return table
    if isinstance(node, yaml.SequenceNode):
        return [plain_values(item, (*key, index), lines, file) for index, item in enumerate(node.value)]
    scalar = yaml.SafeLoader("")
    return scalar.construct_object(node, deep=True)


def mistake_at(file: str, lines: dict[Key, int], key: Key, what: str, hint: str) -> UserError:
    """The error for a key, by file and line; of a key that is not there, the line of what it belongs into."""
    line = next((lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in lines), None)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")
    return UserError(
        f"{file}{f', line {line}' if line else ''}: {f'{path}: ' if path else ''}{what}", hint=hint
    )


def nearest(name: Any, known: Iterable[str]) -> str:
    """What to do about a key that there is not."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def build(kind: Any, value: Any, key: Key, lines: dict[Key, int], file: str) -> Any:
    """Turn plain values into ``kind``: a dataclass, a tuple of things, a Literal, or a plain type."""

    def mistake(what: str, hint: str, at: Key = key) -> UserError:
        return mistake_at(file, lines, at, what, hint)

    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else build(inner[0], value, key, lines, file)
    if origin is Literal:
        if value not in inner:
            raise mistake(f"{value!r} is none of {', '.join(inner)}", "choose one of them")
        return value
    if origin is tuple and inner[0] is Path and isinstance(value, str | Path):  # one folder is a list of one
        value = [value]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise mistake(f"expected a list, found {value!r}", "write it as [a, b]")
        return tuple(build(inner[0], item, (*key, index), lines, file) for index, item in enumerate(value))
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
            name: build(types_[name], item, (*key, name), lines, file) for name, item in value.items()
        }
        try:
            return typing.cast(Any, kind)(**arguments)
        except UserError as error:
            raise mistake(error.message, error.hint or "correct it") from error
    if origin is dict:
        if not isinstance(value, dict):
            raise mistake(f"expected keys and values, found {value!r}", "write it as {key: value}")
        return {
            name: expand(tuple(item) if isinstance(item, list) else item, (*key, name), lines, file)
            for name, item in value.items()
        }
    if kind in (str, Path) and isinstance(value, str | Path):
        return kind(expand(str(value), key, lines, file))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise mistake(f"expected {kind.__name__}, found {value!r}", f"give a value of type {kind.__name__}")
    return value


def expand(value: Any, key: Key, lines: dict[Key, int], file: str) -> Any:
    """``${NAME}`` in a string becomes the environment variable; one that is not set is an error."""
    if not isinstance(value, str):
        return value
    missing = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if missing:
        raise mistake_at(
            file, lines, key, f"the environment variable {missing[0]} is not set", f"export {missing[0]}=…"
        )
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], value)
