"""Drawn faces as a source: no download, any number, any resolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.toyfaces import toyface


@SOURCES.register("toyfaces")
class ToyFaces(Source):
    about = "drawn faces, any number of them"
    needs_path = False
    endless = True

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        """Face number i depends on (seed, i) only."""
        for number in itertools.count():
            yield Record(
                toyface((spec.seed, number), spec.size),
                origin=f"{spec.seed}-{number:07d}",
                source="toyfaces",
            )
