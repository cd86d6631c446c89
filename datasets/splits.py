"""Train, val and test by group, decided by a hash, so that new files never move an old one; what learned from them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossfake.datasets.shards import MANIFEST, ShardSet
from crossfake.errors import UserError

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Fractions:
    """Shares of train, val and test.

    Example:
        >>> Fractions.parse("0.8/0.1/0.1").split_of("person 7")
        'train'
    """

    train: float
    val: float
    test: float
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Fractions:
        """``0.8/0.1/0.1`` as typed; anything that is not three shares of 1 is a ``UserError``."""
        try:
            shares = [float(part) for part in text.split("/")]
        except ValueError:
            shares = []
        if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 1) < 1e-6:
            raise UserError(
                f"{text!r} does not name three shares that add up to 1", hint="write --split 0.8/0.1/0.1"
            )
        return cls(shares[0], shares[1], shares[2], seed)

    def split_of(self, group: str) -> str:
        """The split of a group: its hash, as a number in [0, 1), falls into one of the three shares."""
        digest = hashlib.sha256(f"{self.seed}:{group}".encode("utf-8", "surrogateescape")).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        if position < self.train:
            return "train"
        return "val" if position < self.train + self.val else "test"


_CARDS = (
    "config.yaml",
    "bundle.json",
    "model.json",
    "cell.json",
)  # of runs, detectors, generators, experiments
_DEPTH = 6  # of folders below the working directory


def learned_from(sets: Sequence[ShardSet], root: Path = Path()) -> list[str]:
    """Runs and models below ``root`` that were trained on these folders: their paths, with their kinds.

    Their cards name the folders that they learned from, with the hashes of that time: either tells.
    """
    places = {str(shards.path.resolve()) for shards in sets}
    hashes = {value for shards in sets for value in (shards.hash, shards.content_hash)}
    found: dict[Path, str] = {}
    for folder, card in _cards(root) if sets else ():
        inputs = card.get("data_hashes") or card.get("inputs") or {}
        if not isinstance(inputs, dict) or any(above in found for above in (folder, *folder.parents)):
            continue
        if any(value in hashes or str((root / key).resolve()) in places for key, value in inputs.items()):
            found[folder] = f"{folder} ({card['kind']})" if card.get("kind") else str(folder)
    return list(found.values())


def _cards(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Whatever may say what was trained on what; a folder comes before those in it."""
    for name, below, files in os.walk(root):
        folder = Path(name)
        deep = len(folder.relative_to(root).parts) >= _DEPTH
        below[:] = [] if deep or MANIFEST in files else sorted(b for b in below if not b.startswith("."))
        for file in (card for card in _CARDS if card in files):
            try:
                text = (folder / file).read_text()
                card = yaml.safe_load(text) if file.endswith(".yaml") else json.loads(text)
            except (OSError, ValueError, yaml.YAMLError):
                continue  # not of ours, or damaged
            if isinstance(card, dict):
                yield folder, card
