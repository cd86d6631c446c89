"""Statistics of reals kept between evaluations, so that only the fakes cost time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.provenance import hash_json
from crossfake.synth.quality.moments import Moments

_FORMAT = 1


def folder() -> Path:
    """``$XDG_CACHE_HOME/crossfake/statistics``, which can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfake" / "statistics"


def cached(key: Any, measure: Callable[[], list[Moments]]) -> list[Moments]:
    """What ``measure`` returned for this JSON-able key before, or now, in which case it is kept."""
    file = folder() / f"{hash_json([_FORMAT, key])}.npz"
    blocks = _read(file)
    if blocks is None:
        blocks = measure()
        _write(file, blocks)
    return blocks


def _read(file: Path) -> list[Moments] | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            return [
                Moments(int(n), mean, _unpacked(packed, len(mean)))
                for n, mean, packed in zip(kept["n"], kept["mean"], kept["scatter"], strict=True)
            ]
    except Exception:  # not there, cut short or something else: measuring again mends it
        return None


def _write(file: Path, blocks: list[Moments]) -> None:
    """Scatter matrices are symmetric, so half of each is kept."""
    upper = np.triu_indices(len(blocks[0].mean))
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as out:
            np.savez(
                out,
                n=np.array([block.n for block in blocks]),
                mean=np.stack([block.mean for block in blocks]),
                scatter=np.stack([block.scatter[upper] for block in blocks]),
            )
        temporary.replace(file)
    except OSError:  # no room or no right to write: the next evaluation takes longer, that is all
        with suppress(OSError):
            temporary.unlink()


def _unpacked(packed: np.ndarray[Any, np.dtype[np.float64]], d: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    scatter = np.zeros((d, d))
    scatter[np.triu_indices(d)] = packed
    return scatter + np.triu(scatter, 1).T
