"""Which shards an explanation compares with, and which of their rows it may see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.training.data import Pool
from crossfake.detect.training.reopening import changed
from crossfake.detect.view import View, Windows
from crossfake.errors import UserError
from crossfake.progress import tqdm

Rows = list[tuple[ShardSet, npt.NDArray[np.int64]]]


def open_sets(folders: Sequence[Path], detector: Any) -> list[ShardSet]:
    """The folders named, else those that the bundle was trained on and that are still what they were; of the others
    is told that they are left out.

    Raises:
        UserError: none is there, or one has images of another size or crop.
    """
    sets = [ShardSet(folder) for folder in folders]
    if not folders:
        trained = detector.card.get("data_hashes") or {}
        wrong = {name: why for name, digest in trained.items() if (why := changed(Path(name), digest))}
        sets = [ShardSet(Path(name)) for name in trained if name not in wrong]
        reasons = ", ".join(f"{name} ({why})" for name, why in wrong.items())
        if not sets:
            raise UserError(
                f"the data that {detector.path} was trained on is not here"
                + (f": {reasons}" if reasons else ""),
                hint="name shards with --data DIR",
            )
        if wrong:
            tqdm.write(f"left out, though trained on: {reasons}; name shards with --data DIR")
    for shards in sets:
        detector.check_data(shards)
    return sets


def training_rows(sets: Sequence[ShardSet], most: int, label: int) -> Rows:
    """At most ``most`` rows of a class that detectors train on, the same share of every set."""
    return _drawn([(shards, _parts(shards, label)[0]) for shards in sets], most)


def validation_rows(sets: Sequence[ShardSet], most: int, label: int) -> Rows:
    """The same of the rows that detectors validate on: those of ``test`` stay closed."""
    return _drawn([(shards, _parts(shards, label)[1]) for shards in sets], most)


def seen_of(view: View, parts: Rows) -> Iterator[tuple[ShardSet, int, Pixels]]:
    """Set, row and image of the rows that a view of whole images can see: as :func:`images_of`."""
    for shards, rows in parts:
        for row in map(int, rows):
            images, kept, _ = view.read(shards, np.array([row]))
            if len(kept):  # else no face is found again
                yield shards, row, images.images[0] if isinstance(images, Windows) else images[0]


def images_of(view: View, parts: Rows) -> Iterator[Pixels]:
    """The rows' images uint8 ``[S, S, 3]``; of a native view their middle windows, and of one of whole images what its
    network sees, which may have a size each."""
    if view.whole:
        yield from (image for _, _, image in seen_of(view, parts))
        return
    for shards, rows in parts:
        for row in map(int, rows):
            if view.native:
                top, left = view.places(shards.shapes[row].tolist(), 1)[0]
                yield shards.window(row, int(top), int(left), view.window)
            else:
                yield shards.read(row)


def _parts(shards: ShardSet, label: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if not len(shards.select(split=["train", ""], label=label)):
        return np.empty(0, np.int64), shards.select(split="val", label=label)
    pool = Pool.open(shards.path, label)
    return pool.train, pool.val


def _drawn(parts: Rows, most: int) -> Rows:
    parts = [(shards, rows) for shards, rows in parts if len(rows)]
    share = -(-most // max(1, len(parts)))
    return [(shards, np.random.default_rng(0).permutation(rows)[:share]) for shards, rows in parts]
