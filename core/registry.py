"""One way to plug things in: a name, a factory, and a helpful answer to a wrong name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from crossfake.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects; a second registration of a name is a bug and raises ``ValueError``.

    Args:
        kind: what the entries are, for messages.
        modules: names to the modules that register them, imported when such a name is asked for.

    Example:
        >>> FAMILIES: Registry[type] = Registry("family")
        >>> @FAMILIES.register("dcgan")
        ... class DCGAN: ...
        >>> FAMILIES.get("dgcan")
        Traceback (most recent call last):
        crossfake.errors.UserError: there is no family 'dgcan': did you mean 'dcgan'?
    """

    def __init__(self, kind: str, modules: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._modules = dict(modules or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorate a class or function to add it, under its own name unless one is given."""

        def add(entry: T) -> T:
            key = name or str(getattr(entry, "__name__", ""))
            self._load(key)
            if key in self._entries:
                raise ValueError(f"{self.kind} {key!r} is registered twice")
            self._entries[key] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The entry of that name; an unknown one is a ``UserError`` that suggests the nearest."""
        self._load(name)
        if name in self._entries:
            return self._entries[name]
        raise unknown(self.kind, name, self.names())

    def names(self) -> list[str]:
        """All names in order; nothing is imported for it."""
        return sorted({*self._modules, *self._entries})

    def __contains__(self, name: Any) -> bool:
        return name in self._modules or name in self._entries

    def _load(self, name: str) -> None:
        """Import the module that registers a name, unless it is imported, or being so."""
        if self._modules.get(name, "") not in {"", *sys.modules}:
            importlib.import_module(self._modules[name])


def unregistered(what: str, kind: str, name: Any) -> UserError:
    """The error for something on disk that needs a plug-in: a name that nothing registered in this process."""
    return UserError(
        f"{what} is of the {kind} {name!r}, which is not known here",
        hint=f"start the file that registers it in place of the command (python {name}.py …), or update crossfake",
    )


class Unknown(UserError):
    """A name that nothing goes by."""


def unknown(kind: str, name: str, known: list[str]) -> Unknown:
    """The error for a name that is not among ``known``, with the nearest one if any is near."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
    return Unknown(f"there is no {kind} {name!r}", hint=hint)
