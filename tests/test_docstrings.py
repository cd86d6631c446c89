"""What a user can import says what it takes and gives."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "python"
PACKAGES = ("core", "datasets", "synth", "detect", "serve", "experiments")


def _named() -> list[str]:
    pages = (page.read_text() for page in sorted(REFERENCE.glob("*.md")))
    return [name for page in pages for name in re.findall(r"^::: (\S+)", page, re.MULTILINE)]


def _own(module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        kind = inspect.isfunction(value) or inspect.isclass(value)
        if kind and not name.startswith("_") and value.__module__ == module.__name__:
            yield name, value


def _silent(name: str, value: Any) -> Iterator[str]:
    """It, and of a class its methods and properties, where neither they nor what they override say anything."""
    if not inspect.getdoc(value):
        yield name
    for method, defined in vars(value).items() if inspect.isclass(value) else ():
        called = defined.fget if isinstance(defined, property) else getattr(defined, "__func__", defined)
        function = inspect.isfunction(called) and called.__name__ != "<lambda>"  # a field's default
        if method.startswith("_") or not function or inspect.getdoc(called):
            continue
        shapes = method == "forward" and "[" in (inspect.getdoc(value) or "")  # the class gives them
        if not shapes and not any(
            inspect.getdoc(getattr(base, method, None)) for base in value.__mro__[1:-1]
        ):
            yield f"{name}.{method}"


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_has_a_docstring(package: str) -> None:
    root = REFERENCE.parents[2] / package
    name = "crossfake" if package == "core" else f"crossfake.{package}"
    found = [
        each
        for file in sorted(root.rglob("*.py"))
        if file.name != "__main__.py"
        for module in [
            ".".join((name, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        ]
        for own, value in _own(importlib.import_module(module))
        for each in _silent(f"{module}.{own}", value)
    ]
    assert found == []


def test_what_the_reference_names_has_a_docstring() -> None:
    silent = []
    for name in _named():
        module, _, last = name.rpartition(".")
        silent += _silent(name, getattr(importlib.import_module(module), last))
    assert _named() and silent == []
