"""How quick ``synth evaluate`` is here, and what bfloat16 changes: ``python benchmarks/evaluate.py --help``."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from crossfake.datasets.shards import ShardSet
from crossfake.device import pick_device
from crossfake.options import Precision
from crossfake.progress import tqdm
from crossfake.synth.quality.features import InceptionFeatures
from crossfake.synth.quality.fid import frechet_distance
from crossfake.synth.quality.images import Images
from crossfake.synth.quality.moments import Moments
from crossfake.synth.quality.sliced_wasserstein import sliced_wasserstein
from crossfake.synth.quality.spectrum import radial_spectrum
from crossfake.weights import find_weights


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its seconds, and its seconds of processor time (which other programs do not change)."""
    wall, busy = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - busy


@click.command(context_settings={"show_default": True})
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Shards of reals.")
@click.option("--fake", type=click.Path(path_type=Path), help="Shards of fakes, for a second distance.")
@click.option("--inception", type=click.Path(path_type=Path), help="The FID network.")
@click.option("--dims", type=click.Choice(["64", "192", "768", "2048"]), default="768")
@click.option("--n", type=int, default=1000, help="Images from each side.")
@click.option("--threads", type=int, default=torch.get_num_threads(), help="Of torch.")
def main(real: Path, fake: Path | None, inception: Path | None, dims: str, n: int, threads: int) -> None:
    """Images/s of each figure, in float32 and bfloat16, and how far FID moves between the two."""
    torch.set_num_threads(threads)
    device = pick_device("auto")
    batch = 128 if device.type == "cuda" else 16
    sides = [ShardSet(folder) for folder in (real, fake) if folder]
    rows = [np.random.default_rng(0).permutation(len(shards))[:n] for shards in sides]
    images = sum(map(len, rows))
    print(f"{device}, {threads} threads, {images:,} images of {sides[0].size}²")
    print(f"{'':<28}{'images/s':>10}{'per CPU second':>16}")

    def show(title: str, count: int, wall: float, busy: float) -> None:
        print(f"{title:<28}{count / wall:>10.1f}{count / busy:>16.1f}", flush=True)

    quiet = tqdm(disable=True)
    distances: dict[str, list[float]] = {}
    exact: list[np.ndarray] = []
    deviation = 0.0
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        network = InceptionFeatures(find_weights("inception", inception), int(dims), device, precision)
        network(torch.zeros(batch, 3, 64, 64, dtype=torch.uint8))  # the first call is slower

        def features(network: InceptionFeatures = network) -> list[np.ndarray]:
            return [
                np.concatenate([network(b) for b in Images(shards, r, batch, quiet)])
                for shards, r in zip(sides, rows, strict=True)
            ]

        found, wall, busy = timed(features)
        show(f"FID features {dims}, {precision}", images, wall, busy)
        halves = [Moments.of(found[0][::2]), Moments.of(found[0][1::2])]
        distances[precision] = [frechet_distance(*halves)]
        if fake:
            distances[precision].append(frechet_distance(Moments.of(found[0]), Moments.of(found[1])))
        if exact:
            deviation = float(np.linalg.norm(found[0] - exact[0]) / np.linalg.norm(exact[0]))
        exact = exact or found
    _, wall, busy = timed(lambda: frechet_distance(*halves))
    print(f"{'one Fréchet distance':<28}{wall:>9.2f}s{busy:>15.2f}s")
    _, wall, busy = timed(
        lambda: [radial_spectrum(b.to(device)) for b in Images(sides[0], rows[0], batch, quiet)]
    )
    show("power spectrum", len(rows[0]), wall, busy)
    side = Images(sides[0], rows[0], 64, quiet)
    _, wall, busy = timed(lambda: sliced_wasserstein(side, side, int(sides[0].size or 0), device))
    show("sliced Wasserstein", 2 * len(rows[0]), wall, busy)
    print(f"\nbfloat16 changes the features by {deviation:.2%} of their norm")
    for k, title in enumerate(["halves of the reals", "fakes and reals"][: len(distances["fp32"])]):
        print(f"FID between {title}: {distances['fp32'][k]:.3f} in fp32, {distances['bf16'][k]:.3f} in bf16")


if __name__ == "__main__":
    main()
