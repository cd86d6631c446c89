"""Features and moments of images, taken by tasks of the Ray cluster that is connected: the same as taken here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crossfake.cluster import Sent, computing
from crossfake.datasets.remote import Shared
from crossfake.datasets.shards import ShardSet
from crossfake.executor import ExecutorSettings, map_in_order
from crossfake.progress import tqdm
from crossfake.synth.quality.images import Images
from crossfake.synth.quality.moments import Moments, collect

Rows = npt.NDArray[np.int64]
Open = Callable[[Path], Callable[[Tensor], npt.NDArray[np.float32]]]
_BATCHES = 32  # of a task


def features(
    open_it: partial[Any],
    weights: Path,
    shards: ShardSet,
    rows: Rows,
    batch: int,
    bar: tqdm,
    where: ExecutorSettings,
) -> npt.NDArray[np.float32]:
    """Features ``[n, d]`` of rows, in their order and in the batches that they have here.

    Args:
        open_it: opens the network from its file, ``weights``.
        shards, rows, batch: what is looked at.
        bar: counts images.
        where: the cluster.
    """
    device = str(open_it.keywords["device"]).partition(":")[0]  # Ray deals the GPUs
    open_there = partial(open_it.func, *open_it.args, **{**open_it.keywords, "device": device})
    work = partial(
        _features, network=_Sent(open_there, Sent(weights)), shards=Shared.of(shards, where), batch=batch
    )
    step = _BATCHES * batch
    tasks = (rows[start : start + step] for start in range(0, len(rows), step))
    found = []
    for part, values in map_in_order(work, tasks, where=where, demand=computing(device)):
        found.append(values)
        bar.update(len(part))
    return np.concatenate(found)


class _Sent:
    """A network that a worker opens once."""

    def __init__(self, open_it: partial[Any], weights: Sent) -> None:
        self.open_it, self.weights = open_it, weights
        self.name = repr((open_it.args, sorted(open_it.keywords.items()), weights.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sent) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@functools.lru_cache(maxsize=1)
def _opened(network: _Sent) -> Any:
    return network.open_it(network.weights.there())


def _features(rows: Rows, network: _Sent, shards: Shared, batch: int) -> npt.NDArray[np.float32]:
    take = _opened(network)
    with tqdm(disable=True) as silent:
        return np.concatenate([take(part) for part in Images(shards.open(), rows, batch, silent)])


def moments(
    take: Callable[[Tensor], npt.NDArray[Any]],
    shards: ShardSet,
    blocks: Sequence[Rows],
    batch: int,
    bar: tqdm,
    where: ExecutorSettings,
) -> list[Moments]:
    """Moments of what a function takes of each block of rows; one task for each."""
    work = partial(_moments, take=take, shards=Shared.of(shards, where), batch=batch)
    found = []
    for block, each in map_in_order(work, blocks, where=where):
        found.append(each)
        bar.update(len(block))
    return found


def _moments(rows: Rows, take: Callable[[Tensor], npt.NDArray[Any]], shards: Shared, batch: int) -> Moments:
    with tqdm(disable=True) as silent:
        return collect(take, Images(shards.open(), rows, batch, silent))
