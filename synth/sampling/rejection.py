"""Dropping the least face-like of a model's images, by its discriminator or by how near they are to reals.

Both drop what a model does badly, and so what it does rarely: precision rises, recall falls. Images are judged within
blocks of neighbouring numbers, so that any of those that are left can still be made on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.pages import plural
from crossfake.progress import tqdm
from crossfake.provenance import hash_file
from crossfake.synth.quality.features import InceptionFeatures
from crossfake.synth.quality.neighbours import realism
from crossfake.synth.sampling.discriminators import load_discriminator
from crossfake.synth.sampling.models import Model, hash_weights
from crossfake.synth.settings import GenerateSettings
from crossfake.weights import find_weights

_BLOCK = 128  # images that are compared with one another
_REALS = 2000  # at most: twice as many change a score little and take twice as long
_DIMS = 768  # of FID's network: the published file has them, and the smaller one, too
_BATCH = 32

Scores = npt.NDArray[np.float32]
Judge = Callable[[Images, Tensor | None], Scores]


class Tile(NamedTuple):
    """Images that follow one another.

    Attributes:
        begin: place of the first in the whole set.
        images: uint8 ``[H, W, 3]`` each.
        drawn: of each the number of its latents, and its score, 0 where nothing judged it.
    """

    begin: int
    images: list[Pixels]
    drawn: list[tuple[int, float]]


@dataclass(frozen=True)
class Rejection:
    """What is dropped, and how it is judged.

    Attributes:
        model: makes the images.
        share: of them.
        judge: images uint8 ``[B, H, W, 3]`` and their classes, one-hot, to scores ``[B]``; high ones are kept.
        by: ``discriminator`` or ``density``.
        facts: what scores depend on beside the images.
        block: images that are compared with one another; a multiple of the model's tile.
        seen: reals that had a part in the choice.
    """

    model: Model
    share: float
    judge: Judge
    by: str
    facts: dict[str, Any]
    block: int
    seen: Seen

    @classmethod
    def of(cls, model: Model, settings: GenerateSettings) -> Rejection:
        """By density where the settings name reals, else by the model's discriminator.

        Raises:
            UserError: the model draws no images from latents, or nothing is there to judge them by.
        """
        if model.takes or settings.photos:
            raise UserError(
                f"images of {model.name} are not drawn from latents: there is no other one in a dropped one's place",
                hint="leave --reject out",
            )
        block = max(1, _BLOCK // model.tile) * model.tile
        if settings.like:
            shards = ShardSet(settings.like)
            rows = _reals(shards, model.size)
            file = find_weights("inception")
            network = InceptionFeatures(
                file, _DIMS, model.device, "fp32" if model.dtype is torch.float32 else "bf16"
            )
            facts = {"reals": shards.hash, "rows": len(rows), "network": hash_file(file), "dims": _DIMS}
            judge = _Nearness(network, shards, rows)
            return cls(model, settings.reject, judge, "density", facts, block, Seen.of(shards, rows))
        discriminator = load_discriminator(model)
        if discriminator is None:
            raise UserError(
                f"no discriminator of {model.name} was kept, which could say what is least face-like",
                hint="name reals with --like SHARDS to go by density, or leave --reject out",
            )
        facts = {"discriminator": hash_weights(discriminator)}
        return cls(
            model, settings.reject, _opinion(discriminator, model), "discriminator", facts, block, Seen()
        )

    @property
    def dropped(self) -> int:
        """Images of a block that are dropped: one at least, and not all."""
        return min(self.block - 1, max(1, round(self.block * self.share)))

    @property
    def left(self) -> int:
        """Images of a block that are kept."""
        return self.block - self.dropped

    @property
    def attributes(self) -> dict[str, Any]:
        """What shards say of it."""
        return {"by": self.by, "dropped": self.dropped, "of": self.block, **self.facts}

    def drawn(self, first: int, last: int) -> tuple[int, int]:
        """Numbers of the latents, first and after the last, from which images ``first`` to ``last - 1`` are chosen."""
        return first // self.left * self.block, -(-last // self.left) * self.block

    def kept(
        self, tiles: Iterable[tuple[int, list[Pixels]]], first: int, last: int, label: int | None
    ) -> Iterator[Tile]:
        """Images ``first`` to ``last - 1`` of those that are left, block by block, in the order of their latents.

        Args:
            tiles: all that :meth:`drawn` says, whole tiles of the model with the number that each begins at.
            first, last: places in the whole set.
            label: the class of all; None where all come in turn.
        """
        images: list[Pixels] = []
        scores: list[float] = []
        for start, tile in tiles:
            images += tile
            labels = self.model.labels(start // self.model.tile, label)
            scores += self.judge(np.stack(tile), labels).tolist()
            if len(images) < self.block:
                continue
            number = start // self.block
            begin = number * self.left
            left = np.sort(np.argsort(scores, kind="stable")[self.dropped :])
            own = left[max(first - begin, 0) : last - begin].tolist()
            drawn = [(number * self.block + k, scores[k]) for k in own]
            yield Tile(max(first, begin), [images[k] for k in own], drawn)
            images, scores = [], []


def _reals(shards: ShardSet, size: int) -> npt.NDArray[np.int64]:
    """Train reals, spread evenly over the set."""
    rows = shards.select(split="train", label=0)
    if shards.size != size:
        raise UserError(
            f"{shards.path} holds images of {shards.size or 'several'} pixels, the model makes {size}",
            hint="bring them to its size with 'crossfake data prepare'",
        )
    if len(rows) < 10:
        raise UserError(
            f"{shards.path} has {len(rows)} reals of split train",
            hint="name the reals that the model learned from with --like",
        )
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), _REALS)).astype(int)]


def _opinion(discriminator: nn.Module, model: Model) -> Judge:
    @torch.inference_mode()
    def judge(images: Images, labels: Tensor | None) -> Scores:
        pixels = torch.from_numpy(images).to(model.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        labels = None if labels is None else labels.to(model.device)
        logits: Scores = discriminator(pixels, model.dtype, labels).float().cpu().numpy()
        return logits

    return judge


class _Nearness:
    """Judges by realism (Kynkäänniemi et al. 2019); the reals are looked at when the first image is judged."""

    def __init__(self, network: InceptionFeatures, shards: ShardSet, rows: npt.NDArray[np.int64]) -> None:
        self._network, self._shards, self._rows = network, shards, rows

    def __call__(self, images: Images, labels: Tensor | None) -> Scores:
        return realism(self._reals, self._features(images))

    def _features(self, images: Images) -> Scores:
        parts = [images[k : k + _BATCH] for k in range(0, len(images), _BATCH)]
        return np.concatenate([self._network(torch.from_numpy(part).permute(0, 3, 1, 2)) for part in parts])

    @cached_property
    def _reals(self) -> Scores:
        tqdm.write(f"looking at {plural(len(self._rows), 'real')} of {self._shards.path} to compare with")
        parts = [self._rows[k : k + _BATCH] for k in range(0, len(self._rows), _BATCH)]
        return np.concatenate([self._features(self._shards.read_many(part)) for part in parts])
