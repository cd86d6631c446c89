"""What a pickle's names stand for here: values that do nothing, and the functions that make them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError

_MAX_NAME = 200
_MAX_DEPTH, _MAX_MODULES = 20, 20_000  # modules within modules: real networks have a few hundred, five deep


DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class UnsafeFile(UserError):
    """The pickle asks for something that an import has no need of."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the file asks for {what}, which is refused", hint="import files from a source that you trust"
        )


@dataclass
class Symbol:
    """A global that a pickle names; nothing is looked up."""

    name: str


@dataclass
class Opaque:
    """Something that is carried along but not built: numpy's types and arrays."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass
class Storage:
    """The numbers that tensors are views of."""

    values: Tensor  # [N]


@dataclass
class Module:
    """A network or a part of one, as the official repositories store it: a class's name and its attributes."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers by their dotted names: frozen weights are stored among the buffers."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules().items():
            for kind in ("_parameters", "_buffers"):
                for key, value in module.held(kind).items():
                    if isinstance(value, Tensor):
                        found[_joined(name, key)] = value
                if len(found) > _MAX_MODULES:
                    raise UnsafeFile("more arrays than any network has")
        return found

    def held(self, kind: str) -> dict[Any, Any]:
        """What it has of ``_parameters``, ``_buffers`` or ``_modules``."""
        held = self.state.get(kind)
        return held if isinstance(held, dict) else {}

    def modules(self) -> dict[str, Module]:
        """Itself under the empty name, and all parts by their dotted names."""
        found: dict[str, Module] = {}
        waiting: list[tuple[str, Module, int]] = [("", self, 0)]
        while waiting:
            name, module, depth = waiting.pop()
            found[name] = module
            if depth > _MAX_DEPTH or len(found) + len(waiting) > _MAX_MODULES:
                raise UnsafeFile("more parts than any network has")
            for key, part in module.held("_modules").items():
                if isinstance(part, Module):
                    waiting.append((_joined(name, key), part, depth + 1))
        return found


def _joined(name: str, key: Any) -> str:
    if not isinstance(key, str) or len(key) > _MAX_NAME:  # parts may be shared: names would add up
        raise UnsafeFile("a part without a proper name")
    return f"{name}.{key}" if name else key


def shown(text: Any) -> str:
    """What a file brought along, fit for one line: printable, and not too long."""
    return ascii(str(text)[:_MAX_NAME])[1:-1]


def build_module(meta: Any) -> Module:
    """``torch_utils.persistence``: the source code that is stored along is not even kept."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise ValueError("a network without a state")
    name = meta.get("class_name")
    return Module(name if isinstance(name, str) else "", meta["state"])


def build_mapping(*arguments: Any) -> dict[Any, Any]:
    """Filled later, as Python 3 does it: a call that copies would make much of little."""
    if arguments:
        raise ValueError("a dictionary that is made of another")
    return {}


def build_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``, within the storage: strides of zero could stand for any amount of memory."""
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 8:
        raise ValueError("a tensor without a storage")
    numbers = [offset, *size, *stride]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor of impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage.values) or (0 not in size and last >= len(storage.values)):
        raise UnsafeFile(
            f"a tensor of {'×'.join(map(str, size))} numbers in a storage of {len(storage.values)}"
        )
    return storage.values.as_strided(size, stride, offset)  # a view: a copy of each would add up


def build_parameter(data: Any, *_: Any) -> Tensor:
    """The tensor of ``torch._utils._rebuild_parameter``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def build_opaque(name: str) -> Callable[..., Opaque]:
    """A function that keeps what it is called with, and calls nothing."""
    return lambda *arguments: Opaque(name, arguments)


def number(value: Any) -> float | None:
    """A plain or numpy number; None for anything else."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Opaque) and value.name == "numpy.scalar" and len(value.arguments) == 2:
        dtype, raw = value.arguments
        code = dtype.arguments[0] if isinstance(dtype, Opaque) and dtype.arguments else ""
        layouts = {"f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}
        layout = layouts.get(code) if isinstance(code, str) else None
        if layout and isinstance(raw, bytes) and len(raw) == struct.calcsize(layout):
            return float(struct.unpack(layout, raw)[0])
    return None


def floats(weights: dict[Any, Any], limit: int) -> dict[str, Tensor]:
    """Copies in float32 of a file's arrays, which may be views of the same few of its ``limit`` bytes."""
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{shown(name) if isinstance(name, str) else 'a key'} is no array",
                hint="import a published file",
            )
    if sum(value.numel() * value.element_size() for value in weights.values()) > limit:
        raise UnsafeFile("more numbers than are there")
    found = {name: value.to(torch.float32, copy=True).contiguous() for name, value in weights.items()}
    for name, value in found.items():
        if not value.isfinite().all():
            raise UserError(f"{shown(name)} is not finite", hint="import an earlier snapshot")
    return found
