"""Files that are there as a whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path to write to; what was written takes the place of ``target`` at the end, on disk before it does.

    A crash leaves the old file or the new one, never a part; an error leaves the old one and no temporary.

    Args:
        target: its folder must be there.
        shared: several processes may write it at once. Otherwise what a killed process left is written over.

    Example:
        >>> with replacing(Path("model.safetensors")) as temporary:  # doctest: +SKIP
        ...     save_file(tensors, temporary)
    """
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp" if shared else f"{target.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:  # also when it is stopped: nothing half-written stays
        with suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8; names that are not UTF-8 keep their bytes."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: object, *, default: Callable[[Any], Any] | None = None) -> None:
    """Replace a file by a value as JSON, indented for readers.

    Args:
        default: what stands for a value that JSON does not know, as in :func:`json.dumps`.
    """
    write_text(path, json.dumps(value, indent=2, default=default) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by these bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
