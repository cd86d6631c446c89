"""Whether what a detector is measured on is apart from what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import related
from crossfake.detect.training.data import Pool
from crossfake.errors import UserError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """What a detector was trained on, as far as its folders are still what they were.

    Attributes:
        sets: the folders.
        rows: of each, those that trained.
        gone: paths that hold something else by now, or nothing.
    """

    sets: tuple[ShardSet, ...]
    rows: tuple[Rows, ...]
    gone: tuple[str, ...]

    @cached_property
    def groups(self) -> set[str]:
        """Groups of the training rows."""
        parts = (s.columns["group"][r].tolist() for s, r in zip(self.sets, self.rows, strict=True))
        return {str(group) for part in parts for group in part} - {""}

    def twins(self, shards: ShardSet, rows: Rows) -> Iterator[tuple[int, str]]:
        """Rows whose very pixels were trained on, and where. Equal checksums alone may be chance."""
        sums = shards.columns["crc32"]
        theirs = [s.columns["crc32"][r] for s, r in zip(self.sets, self.rows, strict=True)]
        suspects = rows[np.isin(sums[rows], np.concatenate(theirs))] if theirs else rows[:0]
        for row in suspects.tolist():
            for others, trained, found in zip(self.sets, self.rows, theirs, strict=True):
                twins = trained[found == sums[row]].tolist()
                twin = next((twin for twin in twins if _same(shards, row, others, twin)), None)
                if twin is not None:
                    yield row, f"image {twin} of {others.path}"
                    break

    def validated(self) -> Trained:
        """The validation rows of the same folders, which chose the checkpoint and the threshold."""
        return replace(self, rows=tuple(shards.select(split="val") for shards in self.sets))

    def notes(self) -> list[str]:
        """What could not be looked at."""
        return [
            f"{path} was trained on and is not there as it was: overlap with it is unchecked"
            for path in self.gone
        ]


def trained_on(card: dict[str, Any], known: Sequence[ShardSet] = (), carved: bool = True) -> Trained:
    """The training rows of a bundle.

    Args:
        card: of the bundle, whose paths may be relative to another working directory.
        known: sets at hand, any of which may be a training folder under another path; the hash tells.
        carved: count rows too that training held out of a folder without validation rows.
    """
    at_hand = {shards.hash: shards for shards in known}
    sets, rows, gone = [], [], []
    for path, digest in (card.get("data_hashes") or {}).items():
        try:
            shards: ShardSet | None = ShardSet(Path(path))
        except UserError:
            shards = None
        if shards is None or shards.hash != digest:
            shards = at_hand.get(digest)
        if shards is None:
            gone.append(path)
            continue
        sets.append(shards)
        rows.append(shards.select(split=["train", ""]) if carved else _without_carved(shards))
    return Trained(tuple(sets), tuple(rows), tuple(gone))


def refuse_overlap(
    trained: Trained,
    sets: Sequence[ShardSet],
    rows: Sequence[Rows],
    mend: str,
    by: str = "",
    was: str = "trained on",
) -> None:
    """Raise :class:`UserError` if a row's group, or its very pixels, were trained on."""
    for shards, chosen in zip(sets, rows, strict=True):
        shared = [group for group in shards.columns["group"][chosen].tolist() if group in trained.groups]
        if shared:
            others = f", and so were {more:,} others" if (more := len(set(shared)) - 1) else ""
            raise UserError(f"group {shared[0]!r} of {shards.path} was {was}{by}{others}", mend=mend)
        if twin := next(trained.twins(shards, chosen), None):
            raise UserError(f"image {twin[0]} of {shards.path} was {was}{by}: it is {twin[1]}", mend=mend)


def check_overlap(
    card: dict[str, Any], sets: Sequence[ShardSet], rows: Sequence[Rows], strict: bool = True
) -> list[str]:
    """Notes on groups and images that were trained or validated on and are now measured.

    Rows of split ``val`` may have been validated on.

    Args:
        card: of the bundle; its training folders are looked at where they still are what they were.
        sets: what is measured.
        rows: of each set.
        strict: overlap is an error, not a note.

    Raises:
        UserError: an image, or its group, was trained or validated on.
    """
    trained = trained_on(card, sets)
    mend = "prepare all folders with the same --split and --seed, or --force to see flattered figures"
    apart = [chosen[s.columns["split"][chosen] != "val"] for s, chosen in zip(sets, rows, strict=True)]
    notes = trained.notes()
    for known, looked_at, was in (
        (trained, rows, "trained on"),
        (trained.validated(), apart, "validated on"),
    ):
        if strict:
            refuse_overlap(known, sets, looked_at, mend, was=was)
            continue
        for shards, chosen in zip(sets, looked_at, strict=True):
            shared = np.isin(shards.columns["group"][chosen], sorted(known.groups))
            twins = sum(1 for _ in known.twins(shards, chosen[~shared]))
            for count, what in (
                (int(shared.sum()), f"belong to groups that were {was}"),
                (twins, f"are of no group that was {was}, but are images that were"),
            ):
                if count:
                    notes.append(
                        f"{count:,} of {len(chosen):,} images of {shards.path} {what}: figures are flattered"
                    )
    return notes


def notes_on_training(card: dict[str, Any], sets: Sequence[ShardSet], rows: Sequence[Rows]) -> Iterator[str]:
    """What the training data has to do with the data that is measured."""
    if "audit" in card:  # bundles made before there was an audit
        yield f"the training data: {card['audit']['summary']}"
    known = card.get("data_hashes", {}).values()
    for shards, chosen in zip(sets, rows, strict=True):
        if shards.hash in known and (shards.columns["split"][chosen] == "val").any():
            yield f"the threshold was chosen on val rows of {shards.path}: figures at it are flattered"
    tested = sorted(
        {str(name) for s, r in zip(sets, rows, strict=True) for name in np.unique(s.columns["source"][r])}
    )
    for one in card.get("sources", []):
        for other in tested:
            if one == other and one != "synth":
                yield f"{one} was trained on too: on it this is a test on new images, not on a new data set"
            elif one != other and (why := related(one, other)):
                yield f"no cross-data-set test: {why}"


def _without_carved(shards: ShardSet) -> Rows:
    """Training rows, less those that training validates on for want of others."""
    parts = [np.empty(0, np.int64)]
    for label in (0, 1):
        with suppress(UserError):  # nothing of that label
            parts.append(Pool.open(shards.path, label).train)
    return np.concatenate(parts)


def _same(shards: ShardSet, row: int, others: ShardSet, twin: int) -> bool:
    if row == twin and shards.hash == others.hash:
        return True
    try:
        return np.array_equal(shards.read(row), others.read(twin))
    except UserError:  # damaged, and listed as such where images are read to be scored
        return False
