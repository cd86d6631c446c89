"""Face splices: the fakes that are not made by a network, for the arm that has no generator of its own.

The inner face of one real photo is pasted, colour-matched and with a soft edge, into another. That is the classic
face swap in its plainest form, the blended image of Face X-ray (Li et al. 2020, equation 1). A detector trained on
these has learned *a* forgery, but never saw a GAN: what a team has before it trains a generator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.errors import UserError
from crossfake.progress import tqdm

Pixels = npt.NDArray[np.uint8]
SPLITS = ("train", "val", "test")


def splice(host: Pixels, donor: Pixels, rng: np.random.Generator) -> Pixels:
    """Blend the inner face of ``donor`` into ``host``: ``M * donor' + (1 - M) * host``.

    ``M`` is a soft ellipse around the middle, where aligned faces are; ``donor'`` has the host's colour mean and
    spread inside it (Reinhard et al. 2001).

    Args:
        host, donor: uint8 ``[H, W, 3]`` of one shape.
        rng: decides position, extent, softness and tilt of the ellipse.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    height, width, _ = host.shape
    y, x = np.mgrid[0.5:height, 0.5:width] / np.array([height, width]).reshape(2, 1, 1)
    angle = rng.uniform(-0.3, 0.3)
    down, right = y - rng.uniform(0.48, 0.58), x - rng.uniform(0.45, 0.55)
    along, across = np.cos(angle) * down - np.sin(angle) * right, np.sin(angle) * down + np.cos(angle) * right
    radius = np.hypot(along / rng.uniform(0.22, 0.36), across / rng.uniform(0.17, 0.30))
    mask = np.clip((1 - radius) / rng.uniform(0.05, 0.5) + 0.5, 0, 1)[..., None]

    one, two = host.astype(np.float64), donor.astype(np.float64)
    weight = mask / max(mask.sum(), 1e-9)
    mean_one, mean_two = (one * weight).sum((0, 1)), (two * weight).sum((0, 1))
    spread_one, spread_two = (
        np.sqrt((((image - mean) ** 2) * weight).sum((0, 1)))
        for image, mean in ((one, mean_one), (two, mean_two))
    )
    matched = (two - mean_two) * np.clip(spread_one / (spread_two + 1e-6), 0.5, 2.0) + mean_one
    return np.clip(np.rint(mask * matched + (1 - mask) * one), 0, 255).astype(np.uint8)


def make_splices(real: list[Path], out: Path, n: int, seed: int = 0) -> Path:
    """Write ``n`` splices of the reals to shards, each split's from that split's photos and in its proportion.

    Image i depends only on (reals, seed, i), so a resumed folder equals one made in one go. A splice carries its
    host's group, so the grouped split holds for it too.

    Args:
        real: shard folders of real faces, all of one size, with train, val and test rows.
        out: shard folder to write, or to complete.

    Raises:
        UserError: a split that has rows holds photos of fewer than two groups, so there is no donor.
    """
    sets = [ShardSet(folder) for folder in real]
    table = np.concatenate(
        [np.stack([np.full(len(s), k), np.arange(len(s))]) for k, s in enumerate(sets)], axis=1
    )
    split, group = (np.concatenate([s.columns[name] for s in sets]) for name in ("split", "group"))
    pools = {name: np.flatnonzero(split == name) for name in SPLITS if (split == name).any()}
    for name, pool in pools.items():
        if len(set(group[pool])) < 2:
            raise UserError(
                f"the {name} split of {real[0]} has no two different people", hint="give more photos"
            )
    if not pools:
        raise UserError(f"{real[0]} has no splits", hint="prepare it with --split 0.8/0.1/0.1")
    chances = np.array([len(pool) for pool in pools.values()], float)
    attributes = {
        "family": "splice",
        "seed": seed,
        "n": n,
        "real": [s.hash for s in sets],
        "crop": sets[0].attributes.get("crop"),
    }
    with ShardWriter(out, size=sets[0].size, attributes=attributes) as writer:
        first = writer.rows_done
        for index in tqdm(
            range(first, n), desc="splice faces", initial=first, total=n, unit="img", leave=False
        ):
            rng = np.random.default_rng([seed, index])
            name = list(pools)[int(rng.choice(len(pools), p=chances / chances.sum()))]
            host, donor = rng.choice(pools[name], 2)
            while group[host] == group[donor]:
                donor = rng.choice(pools[name])
            images = [sets[table[0, row]].read(int(table[1, row])) for row in (host, donor)]
            row = Row(1, "splice", "splice", name, str(group[host]), index, f"{host}+{donor}")
            writer.append(splice(images[0], images[1], rng), row)
    return out
