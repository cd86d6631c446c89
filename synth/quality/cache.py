"""Features and statistics of reals kept between evaluations, so that only the fakes cost time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from crossfake.files import replacing
from crossfake.provenance import hash_json
from crossfake.synth.quality.moments import Moments

T = TypeVar("T")
Features = npt.NDArray[np.float32]
_FORMAT = 2


def folder() -> Path:
    """``$XDG_CACHE_HOME/crossfake/statistics``, which can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfake" / "statistics"


def cached_moments(key: Any, measure: Callable[[], list[Moments]]) -> list[Moments]:
    """What ``measure`` returned for this JSON-able key before, or now, in which case it is kept."""
    return _cached(key, ".npz", measure, _read_moments, _write_moments)


def cached_features(key: Any, measure: Callable[[], Features]) -> Features:
    """The same for an array, float32 ``[n, d]``."""
    return _cached(key, ".npy", measure, _read_features, np.save)


def _cached(
    key: Any,
    suffix: str,
    measure: Callable[[], T],
    read: Callable[[Path], T],
    write: Callable[[BinaryIO, T], None],
) -> T:
    file = folder() / (hash_json([_FORMAT, key]) + suffix)
    with suppress(Exception):  # not there, cut short or something else: measuring again replaces it
        return read(file)
    found = measure()
    with suppress(OSError):  # no room or no right to write: the next evaluation takes longer, that is all
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, shared=True) as temporary, open(temporary, "wb") as out:
            write(out, found)
    return found


def _read_features(file: Path) -> Features:
    found: Features = np.load(file, allow_pickle=False)
    return found


def _read_moments(file: Path) -> list[Moments]:
    with np.load(file, allow_pickle=False) as kept:
        return [
            Moments(int(n), mean, _unpacked(packed, len(mean)))
            for n, mean, packed in zip(kept["n"], kept["mean"], kept["scatter"], strict=True)
        ]


def _write_moments(out: BinaryIO, blocks: list[Moments]) -> None:
    """Scatter matrices are symmetric, so half of each is kept."""
    upper = np.triu_indices(len(blocks[0].mean))
    np.savez(
        out,
        n=np.array([block.n for block in blocks]),
        mean=np.stack([block.mean for block in blocks]),
        scatter=np.stack([block.scatter[upper] for block in blocks]),
    )


def _unpacked(packed: np.ndarray[Any, np.dtype[np.float64]], d: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    scatter = np.zeros((d, d))
    scatter[np.triu_indices(d)] = packed
    return scatter + np.triu(scatter, 1).T
