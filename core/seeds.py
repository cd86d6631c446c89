"""Lists of seeds as people write them: ``1-8`` or ``3,7,12``."""

from __future__ import annotations

import re

from crossfake.errors import UserError


def parse_seeds(text: str, most: int = 10_000) -> list[int]:
    """Seeds from numbers and ranges, in the order they are named.

    Raises:
        UserError: it is no such list, or names more than ``most``.

    Example:
        >>> parse_seeds("1-3, 7")
        [1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise UserError(f"{text[:40]!r} is no list of seeds", hint="write them like 1-8 or 3,7,12")
        if len(seeds) + last - first >= most:
            raise UserError(f"{text[:40]!r} names too many seeds", hint=f"give at most {most:,}")
        seeds += range(first, last + 1)
    return seeds
