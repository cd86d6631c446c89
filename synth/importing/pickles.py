"""Reading pickles without running them: a small machine that knows the opcodes and builds inert values only.

Python's own unpickler calls whatever a file names. This one has no way to call anything but the functions of this
module: a name that is not on the list is an error that says which. Lengths are checked against the bytes that are
there, so a small file cannot claim memory that it does not fill.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError

_MAX_DEPTH, _MAX_MODULES = 20, 20_000  # modules within modules: real networks have a few hundred, five deep
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAGIC = (
    0x1950A86A20F9469CFC6C  # of torch.save's format before 2020, in which storages are stored within pickles
)


class Refused(UserError):
    """The pickle asks for something that an import has no need of."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the file asks for {what}, which is refused", mend="import files from a source that you trust"
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
                held = module.state.get(kind)
                for key, value in held.items() if isinstance(held, dict) else ():
                    if isinstance(value, Tensor):
                        found[f"{name}.{key}" if name else str(key)] = value
        return found

    def modules(self) -> dict[str, Module]:
        """Itself under the empty name, and all parts by their dotted names."""
        found: dict[str, Module] = {}
        waiting: list[tuple[str, Module, int]] = [("", self, 0)]
        while waiting:
            name, module, depth = waiting.pop()
            found[name] = module
            if depth > _MAX_DEPTH or len(found) + len(waiting) > _MAX_MODULES:
                raise Refused("more parts than any network has")
            parts = module.state.get("_modules")
            for key, part in parts.items() if isinstance(parts, dict) else ():
                if isinstance(part, Module):
                    waiting.append((f"{name}.{key}" if name else str(key), part, depth + 1))
        return found


def read_pickle(content: bytes) -> Any:
    """The value of one pickle, made of plain values, tensors, :class:`Module` and :class:`Opaque`.

    Raises:
        Refused: it names a global that is not on the list, or uses an opcode that no such file has.
        UserError: it is damaged.
    """
    return _Machine(_CALLS).run(content)[0]


class _Machine:
    """A stack, a memo and the marks of protocol 2 to 5."""

    def __init__(self, calls: dict[str, Callable[..., Any]], persistent: bool = False) -> None:
        self.calls, self.persistent = calls, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes, start: int = 0) -> tuple[Any, int]:
        """The value that is pickled at ``start``, and where what follows it begins."""
        view = content[start:] if start else content
        try:
            for opcode, argument, position in pickletools.genops(view):
                if opcode.name == "STOP":
                    return self.stack.pop(), start + int(position or 0) + 1
                handle = getattr(self, f"_{opcode.name.lower()}", None)
                if handle is not None:
                    handle(argument) if opcode.arg is not None else handle()
                elif opcode.name in _CONSTANTS:
                    self.stack.append(_CONSTANTS[opcode.name])
                elif opcode.name in _LITERALS:
                    self.stack.append(argument)
                elif opcode.name not in ("PROTO", "FRAME"):
                    raise Refused(f"the opcode {opcode.name}")
        except UserError:
            raise
        except (
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            AttributeError,
            struct.error,
            RuntimeError,
        ) as error:
            raise UserError(f"the file is damaged ({error})", mend="download it again") from error
        raise UserError("the file ends too early", mend="download it again")

    # The rest is one method for each opcode that moves things about; pickletools documents them.

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _empty_list(self) -> None:
        self.stack.append([])

    def _empty_tuple(self) -> None:
        self.stack.append(())

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _empty_set(self) -> None:
        self.stack.append(set())

    def _tuple(self) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _list(self) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def _dict(self) -> None:
        items = self._since_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _additems(self) -> None:
        items = self._since_mark()
        self._top(set).update(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[key] = value

    def _setitems(self) -> None:
        items = self._since_mark()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} is expected")
        return self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[int(index)] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[int(index)])

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        self.stack.append(self._symbol(*argument.split(" ", 1)))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._symbol(module, name))

    def _symbol(self, module: Any, name: Any) -> Symbol:
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if asked not in self.calls:
            raise Refused(asked[:200])
        return Symbol(asked)

    def _reduce(self) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if not isinstance(symbol, Symbol) or not isinstance(arguments, tuple):
            raise Refused(f"a call of {type(symbol).__name__}")
        self.stack.append(self.calls[symbol.name](*arguments))

    _newobj = _reduce

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Opaque):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict) or state:
            raise Refused(f"the setting up of {type(self.stack[-1]).__name__}")

    def _binpersid(self) -> None:
        if not self.persistent:
            raise Refused("an object outside the file")
        self.stack.append(Opaque("persistent", self.stack.pop()))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *(
            "UNICODE",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
        ),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)


def _module(meta: Any) -> Module:
    """``torch_utils.persistence``: the source code that is stored along is not even kept."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise ValueError("a network without a state")
    return Module(str(meta.get("class_name", "")), meta["state"])


def _storage(content: Any) -> Storage:
    """``torch.storage._load_from_bytes``: what ``torch.save`` wrote of a storage, in its old format."""
    if not isinstance(content, bytes):
        raise ValueError("a storage that is not bytes")
    values: list[Any] = []
    place = 0
    for _ in range(5):  # magic number, version, system, the storage's description, its keys
        value, place = _Machine(_STORAGES, persistent=True).run(content, place)
        values.append(value)
    described = values[3].arguments if isinstance(values[3], Opaque) else ()
    if values[0] != _MAGIC or len(described) < 5 or described[0] != "storage" or len(values[4]) != 1:
        raise ValueError("a storage in an unknown format")
    kind, count = described[1], described[4]
    dtype = _DTYPES[kind.name.rpartition(".")[2]]
    raw = content[place + 8 :]
    (stored,) = struct.unpack("<q", content[place : place + 8])
    if stored != count or len(raw) != count * dtype.itemsize:
        raise ValueError("a storage of another length than it says")
    return Storage(torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty(0, dtype=dtype))


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``, within the storage: strides of zero could stand for any amount of memory."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 8:
        raise ValueError("a tensor without a storage")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor of impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage.values) or (0 not in size and last >= len(storage.values)):
        raise Refused(f"a tensor of {'×'.join(map(str, size))} numbers in a storage of {len(storage.values)}")
    return storage.values.as_strided(size, stride, offset).clone()


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _opaque(name: str) -> Callable[..., Opaque]:
    return lambda *arguments: Opaque(name, arguments)


_CALLS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _module,
    "dnnlib.util.EasyDict": dict,
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "numpy.dtype": _opaque("numpy.dtype"),
    "numpy.ndarray": _opaque("numpy.ndarray"),
    "numpy.core.multiarray.scalar": _opaque("numpy.scalar"),
    "numpy.core.multiarray._reconstruct": _opaque("numpy.ndarray"),
}
_STORAGES: dict[str, Callable[..., Any]] = {f"torch.{name}": _opaque(name) for name in _DTYPES}


def number(value: Any) -> float | None:
    """A plain or numpy number; None for anything else."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Opaque) and value.name == "numpy.scalar" and len(value.arguments) == 2:
        dtype, raw = value.arguments
        code = dtype.arguments[0] if isinstance(dtype, Opaque) and dtype.arguments else ""
        layout = {"f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}.get(code)
        if layout and isinstance(raw, bytes) and len(raw) == struct.calcsize(layout):
            return float(struct.unpack(layout, raw)[0])
    return None
