"""Train, val and test by group: decided by a hash, so adding files never moves an old one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
                f"{text!r} does not name three shares that add up to 1", mend="write --split 0.8/0.1/0.1"
            )
        return cls(shares[0], shares[1], shares[2], seed)

    def split_of(self, group: str) -> str:
        """The split of a group: its hash, as a number in [0, 1), falls into one of the three shares."""
        digest = hashlib.sha256(f"{self.seed}:{group}".encode("utf-8", "surrogateescape")).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        if position < self.train:
            return "train"
        return "val" if position < self.train + self.val else "test"
