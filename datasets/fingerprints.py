"""Near-duplicates among hundreds of thousands of images: a perceptual hash, and an index over its bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from zipfile import BadZipFile

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from crossfake.datasets.remote import Shared
from crossfake.datasets.settings import RADIUS
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.executor import LOCAL, ExecutorSettings, map_in_order
from crossfake.files import replacing
from crossfake.progress import tqdm

BITS = 256
_BANDS = 16
_BLOCK = 2048
_ROWS = 512  # images per task
CACHE = "fingerprints.npz"

Codes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]


def fingerprint(image: Pixels) -> Codes:
    """Perceptual hash of uint8 ``[H, W, 3]``: 256 bits as uint64 ``[4]``.

    The signs of the 16×16 lowest frequencies of a 64×64 grey copy about their median (pHash: Zauner 2010, section
    3.2.1), computed by imagehash. Recompression, resizing and small changes of colour flip few of them.
    """
    bits = imagehash.phash(Image.fromarray(image), hash_size=16).hash
    codes: Codes = np.packbits(bits.reshape(-1)).view(np.uint64)
    return codes


def fingerprints(shards: ShardSet, workers: int = 0, where: ExecutorSettings = LOCAL) -> Codes:
    """Fingerprints of all rows, uint64 ``[N, 4]``; kept in the folder, and computed anew when its shards change.

    Args:
        shards: the folder.
        workers: processes; 0 is one per core.
        where: this machine, or Ray.
    """

    def compute() -> Codes:
        blocks = [range(start, min(start + _ROWS, len(shards))) for start in range(0, len(shards), _ROWS)]
        data = Shared.of(shards, where) if where.is_ray else shards
        several = workers if len(blocks) > 4 else 1
        parts = map_in_order(partial(_of_rows, shards=data), blocks, several, where)
        found = []
        with tqdm(total=len(shards), unit="img", desc=f"fingerprints {shards.path.name}", leave=False) as bar:
            for block, part in parts:
                found.append(part)
                bar.update(len(block))
        return np.concatenate(found)

    codes: Codes = kept_beside(shards, CACHE, "codes", compute)
    return codes


def kept_beside(
    shards: ShardSet, file: str, name: str, compute: Callable[[], npt.NDArray[Any]], key: str = ""
) -> npt.NDArray[Any]:
    """What was computed from every row: read from ``file`` in the folder, or computed and kept there.

    Args:
        shards: the folder.
        file: an ``.npz`` file in it.
        name: of the array in the file.
        compute: computes it, when there is no such file, or it is of other shards or of another ``key``.
        key: what it depends on besides the shards.
    """
    kept, content = shards.path / file, f"{shards.content_hash} {key}".rstrip()
    if kept.exists():
        try:
            with np.load(kept, allow_pickle=False) as stored:
                if str(stored["content"]) == content and len(stored[name]) == len(shards):
                    values: npt.NDArray[Any] = stored[name]
                    return values
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            pass  # damaged: computed again
    values = compute()
    with (
        contextlib.suppress(OSError),  # in a folder that cannot be written it is computed each time
        replacing(kept, shared=True) as temporary,
        open(temporary, "wb") as target,
    ):
        np.savez(target, content=content, **{name: values})  # type: ignore[arg-type]
    return values


def _of_rows(rows: range, shards: ShardSet | Shared) -> Codes:
    data = shards if isinstance(shards, ShardSet) else shards.open()
    return np.stack([fingerprint(data.read(row)) for row in rows])


def distance(one: Codes, other: Codes) -> npt.NDArray[np.int64]:
    """Differing bits of codes uint64 ``[…, words]``, broadcast."""
    bits: npt.NDArray[np.int64] = np.bitwise_count(one ^ other).sum(axis=-1, dtype=np.int64)
    return bits


def near_pairs(codes: Codes, radius: int = RADIUS) -> Pairs:
    """Pairs of rows that differ in at most ``radius`` bits: int64 ``[P, 2]``, first before second, sorted.

    Multi-index hashing (Norouzi et al. 2012): the bits are dealt into 16 bands of 16, and only rows that agree in a
    whole band are compared. With up to 15 differing bits one band must agree, so nothing is missed; with more, a
    copy may be: of pairs at 32 bits about a tenth. Equal rows are linked as a chain, not each with each.

    Args:
        codes: uint64 ``[N, 4]``.
        radius: most differing bits.

    Example:
        >>> near_pairs(np.array([[0, 0, 0, 0], [7, 0, 0, 0], [2**64 - 1] * 4], np.uint64), radius=3).tolist()
        [[0, 1]]
    """
    if len(codes) < 2:
        return np.zeros((0, 2), np.int64)
    unique, first, of = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(of, kind="stable")
    same = of[order][1:] == of[order][:-1]
    chains = np.stack([order[:-1][same], order[1:][same]], axis=1)
    found = [chains]
    bits = np.unpackbits(unique.view(np.uint8), axis=1)
    dealt = bits[:, np.random.default_rng(0).permutation(BITS)]  # neighbouring bits are alike: spread them
    bands = np.ascontiguousarray(np.packbits(dealt, axis=1)).view(np.uint16)
    for band in range(_BANDS):
        for one, other in _agreeing(bands[:, band]):
            near = distance(unique[one], unique[other]) <= radius
            found.append(np.stack([first[one[near]], first[other[near]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _agreeing(keys: npt.NDArray[np.uint16]) -> Iterator[tuple[Pairs, Pairs]]:
    """Index arrays of all pairs with equal keys, in blocks of bounded size."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    waiting: list[tuple[Pairs, Pairs]] = []
    pending = 0
    for rows in np.split(order, edges):
        for start in range(0, len(rows) if len(rows) > 1 else 0, _BLOCK):
            one, other = (
                np.triu_indices(len(rows) - start, k=1)
                if len(rows) - start <= _BLOCK
                else _block(rows, start)
            )
            waiting.append((rows[start + one], rows[start + other]))
            pending += len(one)
            if pending > 1 << 20:
                yield np.concatenate([a for a, _ in waiting]), np.concatenate([b for _, b in waiting])
                waiting, pending = [], 0
            if len(rows) - start <= _BLOCK:
                break
    if waiting:
        yield np.concatenate([a for a, _ in waiting]), np.concatenate([b for _, b in waiting])


def _block(rows: Pairs, start: int) -> tuple[Pairs, Pairs]:
    """A block of rows against itself and everything after it; offsets from ``start``."""
    one, other = np.meshgrid(np.arange(_BLOCK), np.arange(len(rows) - start), indexing="ij")
    keep = other > one
    return one[keep], other[keep]
