"""Fakes made by tasks of a Ray cluster: a few hundred images each, which other tasks write as shards."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from crossfake.cluster import Sent, computing, map_in_order
from crossfake.datasets.cluster_writer import Gathered, Held, ShardTasks
from crossfake.datasets.remote import Shared
from crossfake.datasets.types import Pixels
from crossfake.device import compute_dtype, pick_device
from crossfake.executor import Demand, ExecutorSettings
from crossfake.options import Precision
from crossfake.progress import tqdm
from crossfake.synth.sampling import generation as generations
from crossfake.synth.sampling.generation import Generation
from crossfake.synth.settings import GenerateSettings

_PIECE = 512  # images of a task, or one tile of them


@dataclass(frozen=True)
class MakeSpec:
    """What a worker has to know.

    Attributes:
        settings: as asked for, with the number format that is the same on all machines.
        model: folder of the generator, or of an autoencoder; None for a family that needs none, or a name on the hub.
        photos: that it works on.
    """

    settings: GenerateSettings
    model: Sent | None
    photos: Shared | None


def settled(settings: GenerateSettings) -> GenerateSettings:
    """The settings with the number format that workers compute in: this machine's may be another."""
    device = settings.device.partition(":")[0]  # Ray deals the GPUs
    settings = replace(settings, device=device)
    if settings.precision != "auto":
        return settings
    _, precision = next(map_in_order(_precision, [device], computing(device)))
    return replace(settings, precision=precision)


def _precision(device: str) -> Precision:
    quick = compute_dtype(pick_device(device), "auto") is torch.bfloat16
    return "bf16" if quick else "fp32"


def make_shards(
    generation: Generation, shards: list[int], bar: tqdm, *, asked: GenerateSettings, where: ExecutorSettings
) -> int:
    """Make the shards with these numbers; returns how many images were made. Pixels never come to this process.

    Args:
        generation: says what is known of each image.
        shards: their numbers.
        bar: counts images.
        asked: settings of the workers.
        where: the cluster, which is connected.
    """
    settings, model, photos = generation.settings, generation.model, generation.photos
    folder = model.path if model.path != Path() else Path(settings.model) if settings.model else None
    sent = Sent(folder) if folder and folder.is_dir() else None
    asked = replace(asked, n=settings.n, split=settings.split)
    spec = MakeSpec(asked, sent, Shared.of(photos.shards, where) if photos else None)
    length = max(1, _PIECE // model.tile) * model.tile
    rows, made = generations.SHARD_ROWS, 0
    # families without a network of torch's need no GPU
    demand = computing(asked.device) if sent or asked.model else Demand()
    with ShardTasks(generation.out, where, generation.size, "raw", generation.attributes) as writing:
        pieces = map_in_order(
            partial(_piece, spec=spec), _pieces(shards, rows, settings.n, length), demand, parts=True
        )
        shard = Gathered(-1, writing)
        for (k, _, end), (drawn, reference) in pieces:
            if k != shard.index:
                shard = Gathered(k, writing)
            for at, (number, score) in enumerate(drawn):
                shard.append(Held(reference, at), generation.row(number, score))
            bar.update(len(drawn))
            made += len(drawn)
            if end == min((k + 1) * rows, settings.n):
                shard.close()
    return made


def _pieces(shards: list[int], rows: int, n: int, length: int) -> Iterator[tuple[int, int, int]]:
    """A shard's number, and of each of its pieces the first image and the one after the last."""
    for k in shards:
        begin, last = k * rows, min((k + 1) * rows, n)
        while begin < last:
            end = min(last, (begin // length + 1) * length)
            yield k, begin, end
            begin = end


def _piece(
    piece: tuple[int, int, int], spec: MakeSpec
) -> tuple[list[tuple[int, float]], list[tuple[Pixels, None]]]:
    """On a worker: what is known of the images, and the images."""
    _, begin, end = piece
    with ThreadPoolExecutor(1) as drawer:
        tiles = list(_opened(spec).tiles(begin, end, drawer))
    return [each for tile in tiles for each in tile.drawn], [
        (image, None) for tile in tiles for image in tile.images
    ]


@functools.lru_cache(maxsize=1)
def _opened(spec: MakeSpec) -> Generation:
    settings = spec.settings
    if spec.model:
        settings = replace(settings, model=spec.model.there())
    if spec.photos:
        settings = replace(settings, photos=spec.photos.open().path)
    return Generation(settings)
