"""Rows of a shard folder as batches for a network."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.shards import ShardSet
from crossfake.progress import tqdm


@dataclass(frozen=True)
class Images:
    """Batches of uint8 ``[B, 3, H, W]`` in the order of ``rows``; can be gone through again.

    The next batch is read and decoded in a thread while the caller computes; ``bar`` counts images.
    """

    shards: ShardSet
    rows: npt.NDArray[np.int64]
    batch: int
    bar: tqdm

    def __iter__(self) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[Tensor] | None = None
            for start in range(0, len(self.rows), self.batch):
                ready, ahead = ahead, reader.submit(self._read, self.rows[start : start + self.batch])
                if ready is not None:
                    yield self._counted(ready.result())
            if ahead is not None:
                yield self._counted(ahead.result())

    def _read(self, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.shards.read_many(rows)).permute(0, 3, 1, 2)

    def _counted(self, images: Tensor) -> Tensor:
        self.bar.update(len(images))
        return images
