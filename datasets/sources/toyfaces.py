"""Drawn faces as a source: no download, any number, any resolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from crossfake.datasets.sources.base import SOURCES, Asked, Record, Source
from crossfake.datasets.toyfaces import toyface


@SOURCES.register("toyfaces")
class ToyFaces(Source):
    about = "drawn faces, any number of them"
    needs_path = False
    endless = True

    def records(self, asked: Asked) -> Iterator[Record]:
        """Face number i depends on (seed, i) only."""
        for number in itertools.count():
            yield Record(
                toyface((asked.seed, number), asked.size),
                origin=f"{asked.seed}-{number:07d}",
                source="toyfaces",
            )
