"""Reading pickles without running them: a small machine that knows the opcodes and builds inert values only.

Python's own unpickler calls whatever a file names. This one has no way to call anything but the functions of this
folder: a name that is not on the list is an error that says which. Lengths are checked against the bytes that are
there, and values that are used many times are never copied, so a small file cannot claim memory that it does not fill.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crossfake.errors import UserError
from crossfake.inert.values import (
    DTYPES,
    Opaque,
    Storage,
    Symbol,
    UnsafeFile,
    build_mapping,
    build_module,
    build_opaque,
    build_parameter,
    build_tensor,
    shown,
)

_MAX_OPCODES, _MAX_CALLS = 2_000_000, 100_000  # real files have some ten thousand and a few thousand
_MAX_KEY = 2**31
MAGIC = (
    0x1950A86A20F9469CFC6C  # of torch.save's format before 2020, in which storages are stored within pickles
)


@dataclass
class Budget:
    """What all pickles of one file may ask for together.

    Attributes:
        nested_bytes: bytes of pickles within the pickle; each is there once.
        opcodes: instructions; one of a byte may make a value of a hundred.
        calls: of the functions on the list, which may cost more than other opcodes.
    """

    nested_bytes: int
    opcodes: int = _MAX_OPCODES
    calls: int = _MAX_CALLS

    def take(self, what: str, amount: int = 1) -> None:
        """Spend an amount of one of the attributes.

        Raises:
            UnsafeFile: there is less left.
        """
        left = getattr(self, what) - amount
        if left < 0:
            raise UnsafeFile(f"more {what.replace('_', ' ')} than any such file has")
        setattr(self, what, left)


def read_pickle(content: bytes) -> Any:
    """The value of one pickle, made of plain values, tensors, :class:`Module` and :class:`Opaque`.

    Raises:
        UnsafeFile: it names a global that is not on the list, or uses an opcode that no such file has.
        UserError: it is damaged.
    """
    budget = Budget(len(content))
    calls: dict[str, Callable[..., Any]] = {
        **_CALLS,
        "torch.storage._load_from_bytes": partial(_storage, budget),
    }
    return Machine(calls, budget).run(io.BytesIO(content))


class Machine:
    """A stack, a memo and the marks of protocol 2 to 5.

    Args:
        calls: what each name on the list stands for.
        budget: of the file.
        persistent: what gives the objects that are stored beside the pickle; None where there are none.
    """

    def __init__(
        self,
        calls: dict[str, Callable[..., Any]],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.calls, self.budget, self.persistent = calls, budget, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The value that is pickled from here on; the stream then stands behind it."""
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self.budget.take("opcodes")
                if opcode.name == "STOP":
                    return self.stack.pop()
                handle = getattr(self, f"_{opcode.name.lower()}", None)
                if handle is not None:
                    handle(argument) if opcode.arg is not None else handle()
                elif opcode.name in _CONSTANTS:
                    self.stack.append(_CONSTANTS[opcode.name])
                elif opcode.name in _LITERALS:
                    self.stack.append(argument)
                elif opcode.name not in ("PROTO", "FRAME"):
                    raise UnsafeFile(f"the opcode {opcode.name}")
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
            OverflowError,
        ) as error:
            raise UserError(f"the file is damaged ({shown(error)})", hint="download it again") from error
        raise UserError("the file ends too early", hint="download it again")

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
        self.stack.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))

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
        self._top(set).update(map(_key, items))

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[_key(key)] = value

    def _setitems(self) -> None:
        items = self._since_mark()
        self._top(dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} is expected")
        return self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[_key(int(index))] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[_key(int(index))])

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        self.stack.append(self._symbol(*argument.split(" ", 1)))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._symbol(module, name))

    def _symbol(self, module: Any, name: Any) -> Symbol:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is not text")
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if asked not in self.calls:
            raise UnsafeFile(shown(asked))
        return Symbol(asked)

    def _reduce(self) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if not isinstance(symbol, Symbol) or not isinstance(arguments, tuple):
            raise UnsafeFile(f"a call of {type(symbol).__name__}")
        self.budget.take("calls")
        self.stack.append(self.calls[symbol.name](*arguments))

    _newobj = _reduce

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Opaque):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):  # what an OrderedDict has besides its items is left out
            raise UnsafeFile(f"the setting up of {type(self.stack[-1]).__name__}")

    def _binpersid(self) -> None:
        if self.persistent is None:
            raise UnsafeFile("an object outside the file")
        self.stack.append(self.persistent(self.stack.pop()))


def _key(key: Any) -> Any:
    """A key as such files have them. Hashing others may take for ever (shared tuples), or end the process (deep ones);
    chosen large numbers all collide."""
    if type(key) is str or (type(key) is int and -_MAX_KEY <= key < 2 * _MAX_KEY):
        return key
    raise ValueError(f"a key of kind {type(key).__name__}")


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


def storage_key(described: Any) -> str:
    """The name of the storage that ``("storage", kind, key, location, count)`` describes."""
    if not isinstance(described, tuple) or len(described) < 5 or described[0] != "storage":
        raise ValueError("an object that is no storage")
    if not isinstance(described[2], str):
        raise ValueError("a storage in an unknown format")
    return described[2]


def empty_storage(described: Any, limit: int) -> Storage:
    """That storage, to be filled; at most ``limit`` bytes."""
    storage_key(described)
    kind, count = described[1], described[4]
    if not isinstance(kind, Symbol) or type(count) is not int:
        raise ValueError("a storage in an unknown format")
    dtype = DTYPES[kind.name.rpartition(".")[2]]
    if not 0 <= count * dtype.itemsize <= limit:
        raise ValueError(f"a storage of {count} numbers in {limit} bytes")
    return Storage(torch.empty(count, dtype=dtype))


def read_old_format(content: bytes, calls: dict[str, Callable[..., Any]], budget: Budget) -> Any:
    """What ``torch.save`` wrote before 2020: five pickles, then the numbers of the storages that the fourth names.

    ``ValueError`` or ``UserError`` when it is something else.
    """
    stream, limit = io.BytesIO(content), len(content)
    storages: dict[str, Storage] = {}

    def storage(described: Any) -> Storage:
        nonlocal limit
        key = storage_key(described)
        if key not in storages:
            storages[key] = empty_storage(described, limit)
            limit -= storages[key].values.nbytes
        return storages[key]

    if Machine({}, budget).run(stream) != MAGIC:
        raise ValueError("a storage in an unknown format")
    for _ in range(2):  # version and system: neither matters to plain numbers
        Machine({}, budget).run(stream)
    value = Machine(calls, budget, storage).run(stream)
    keys = Machine({}, budget).run(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != {*storages}:
        raise ValueError("storages that are not those named")
    for key in keys:
        values = storages[key].values
        if struct.unpack("<q", stream.read(8)) != (len(values),):
            raise ValueError("a storage of another length than it says")
        fill(values, stream.read(values.nbytes))
    if stream.read(1):
        raise ValueError("more bytes than numbers")
    return value


def fill(values: Tensor, raw: bytes) -> None:
    """Write a storage's bytes into it."""
    if len(raw) != values.nbytes:
        raise ValueError("a storage of another length than it says")
    if raw:
        values.copy_(torch.frombuffer(bytearray(raw), dtype=values.dtype))


def _storage(budget: Budget, content: Any) -> Storage:
    """``torch.storage._load_from_bytes``: what ``torch.save`` wrote of a storage, in its old format."""
    if not isinstance(content, bytes):
        raise ValueError("a storage that is not bytes")
    budget.take("nested_bytes", len(content))
    held = read_old_format(content, STORAGES, budget)
    if not isinstance(held, Storage):
        raise ValueError("a storage that is none")
    return held


_CALLS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": build_module,
    "dnnlib.util.EasyDict": build_mapping,
    "collections.OrderedDict": build_mapping,
    "torch._utils._rebuild_parameter": build_parameter,
    "torch._utils._rebuild_tensor_v2": build_tensor,
    "numpy.dtype": build_opaque("numpy.dtype"),
    "numpy.ndarray": build_opaque("numpy.ndarray"),
    "numpy.core.multiarray.scalar": build_opaque("numpy.scalar"),
    "numpy.core.multiarray._reconstruct": build_opaque("numpy.ndarray"),
}
STORAGES: dict[str, Callable[..., Any]] = {f"torch.{name}": build_opaque(name) for name in DTYPES}
TORCH_FILE: dict[str, Callable[..., Any]] = STORAGES | {
    "collections.OrderedDict": build_mapping,
    "torch._utils._rebuild_parameter": build_parameter,
    "torch._utils._rebuild_tensor_v2": build_tensor,
    "argparse.Namespace": build_opaque("argparse.Namespace"),  # the command line of a training
    # what optimisers and early stopping leave in a checkpoint beside its weights
    "collections.defaultdict": lambda *_: {},
    "__builtin__.dict": build_opaque("dict"),
    "builtins.dict": build_opaque("dict"),
    "torch.Size": build_opaque("torch.Size"),
    "torch.device": build_opaque("torch.device"),
    "_codecs.encode": build_opaque("bytes"),
    "numpy.dtype": build_opaque("numpy.dtype"),
    "numpy.core.multiarray.scalar": build_opaque("numpy.scalar"),
}
