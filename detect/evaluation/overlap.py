"""What a detector has seen, held against what it is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.firewall import (
    OWN,
    Rows,
    Seen,
    count_overlap,
    refuse_overlap,
    refuse_unknown,
    union,
)
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import related
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.training.data import Pool
from crossfake.errors import UserError

_HINT = (
    "prepare and split all folders together before anything is trained, or --force to see flattered figures"
)
_UNKNOWN = (
    "put it back, repeat the 'synth generate' of own fakes, or --force for figures that may be flattered"
)


def seen_by(detector: Detector, known: Sequence[ShardSet] = ()) -> Seen:
    """What a detector, and the generators of its own fakes, were trained and validated on.

    Bundles made before there was a record name folders and their hashes: these are looked at where they still are what
    they were.

    Args:
        detector: whose bundle holds the record.
        known: sets at hand, any of which may be a training folder under another path; the hash tells.

    Raises:
        UserError: the record is damaged.
    """
    found = Seen.load(detector.path)
    if found is not None:
        return found
    at_hand = {shards.hash: shards for shards in known}
    parts: list[Seen] = []
    for path, digest in (detector.card.get("data_hashes") or {}).items():
        try:
            shards: ShardSet | None = ShardSet(Path(path))
        except UserError:
            shards = None
        if shards is None or shards.hash != digest:
            shards = at_hand.get(digest)
        if shards is None:
            parts.append(Seen(unknown=(f"{path} was trained on and is not there as it was",)))
            continue
        for label in (0, 1):
            with suppress(UserError):  # nothing of that label
                pool = Pool.open(shards.path, label)
                parts.append(pool.seen() | pool.makers())
    return union(parts)


def check_overlap(
    seen: Seen, sets: Sequence[ShardSet], rows: Sequence[Rows], force: bool = False
) -> list[str]:
    """Notes on groups and images that were trained or validated on and are now measured.

    Rows of split ``val`` may have been validated on.

    Args:
        seen: by the detector; see :func:`seen_by`.
        sets: what is measured.
        rows: of each set.
        force: overlap, and what cannot be looked at, is a note and no error.

    Raises:
        UserError: an image, or its group, was trained or validated on, or that cannot be known.
    """
    notes = refuse_unknown(seen, force, _UNKNOWN)
    trained, validated = seen.only("trained on"), seen.only("validated on")
    apart = [chosen[s.columns["split"][chosen] != "val"] for s, chosen in zip(sets, rows, strict=True)]
    if not force:
        refuse_overlap(trained, sets, rows, _HINT)
        refuse_overlap(validated, sets, apart, _HINT)
        return notes
    for known, looked_at, was in ((trained, rows, "trained on"), (validated, apart, "validated on")):
        for shards, chosen in zip(sets, looked_at, strict=True):
            shared, twins = count_overlap(known, shards, chosen)
            for count, what in (
                (shared, f"belong to groups that were {was}"),
                (twins, f"are of no group that was {was}, but are images that were"),
            ):
                if count:
                    notes.append(
                        f"{count:,} of {len(chosen):,} images of {shards.path} {what}: figures are flattered"
                    )
    return notes


def notes_on_training(
    card: dict[str, Any], sets: Sequence[ShardSet], rows: Sequence[Rows], apart: bool = True
) -> Iterator[str]:
    """What the training data has to do with the data that is measured, of which ``apart`` says that none was seen."""
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
            if one == other and one != OWN:
                new = "a test on new images, not on a new data set" if apart else "no test on a new data set"
                yield f"{one} was trained on too: on it this is {new}"
            elif one != other and (why := related(one, other)):
                yield f"no cross-data-set test: {why}"
