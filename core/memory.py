"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have the C library keep large blocks when they are freed, in place of giving each back to the system.

    A network's activations are tens of megabytes, made and dropped in every layer: with glibc's defaults each is mapped
    anew and its pages are faulted in again, which took a third of the time of sampling (``docs/results/speed.md``).
    For whole programs, which call it first; other C libraries than glibc are left as they are.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 << 20)


def give_back() -> None:
    """Have the C library return to the system what was freed: it keeps it otherwise, gigabytes of large pictures."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
