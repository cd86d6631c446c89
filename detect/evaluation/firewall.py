"""Whether what a detector is measured on is apart from what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import related
from crossfake.errors import UserError

Rows = npt.NDArray[np.int64]


def check_overlap(
    card: dict[str, Any], sets: Sequence[ShardSet], rows: Sequence[Rows], strict: bool = True
) -> list[str]:
    """Notes on groups that were trained on and are now measured.

    Args:
        card: of the bundle; its training folders are looked at where they still are what they were.
        sets: what is measured.
        rows: of each set.
        strict: overlap is an error, not a note.

    Raises:
        UserError: an image's group was trained on.
    """
    trained, gone = _trained_groups(card)
    notes = [
        f"{path} was trained on and is not there as it was: overlap with it is unchecked" for path in gone
    ]
    for shards, chosen in zip(sets, rows, strict=True):
        groups = shards.columns["group"][chosen].tolist()
        shared = [group for group in groups if group in trained]
        if shared and strict:
            raise UserError(
                f"group {shared[0]!r} of {shards.path} was trained on, and so were {len(set(shared)) - 1:,} others",
                mend="prepare all folders with the same --split and --seed, or --force to see flattered figures",
            )
        if shared:
            notes.append(
                f"{len(shared):,} of {len(groups):,} images of {shards.path} belong to groups that were trained on: "
                "figures are flattered"
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


def _trained_groups(card: dict[str, Any]) -> tuple[set[str], list[str]]:
    """Groups of the training rows, and folders that cannot be looked at any more."""
    groups: set[str] = set()
    gone = []
    for path, digest in card.get("data_hashes", {}).items():
        try:
            shards = ShardSet(Path(path))
        except UserError:
            gone.append(path)
            continue
        if shards.hash != digest:
            gone.append(path)
            continue
        groups.update(shards.columns["group"][shards.select(split=["train", ""])].tolist())
    groups.discard("")
    return groups, gone
