"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have the C library keep large blocks when they are freed, in place of giving each back to the system.

    A network's activations are tens of megabytes, made and dropped in every layer: with glibc's defaults each is mapped
    anew and its pages are faulted in again, which took a third of the time of sampling (``docs/results/speed.md``).
    For whole programs, which call it first; other C libraries than glibc are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 << 20)
