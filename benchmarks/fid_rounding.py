"""What FID loses in bfloat16, on any machine.

    python benchmarks/fid_rounding.py --real data/faces --fake data/fakes --n 1000 --dims 768

Operands and results of every convolution are rounded to bfloat16 and its sums kept in float32, as matrix units do it:
a machine without such a unit gives the figure of one that has it, to the order of sums.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from crossfake.datasets.shards import ShardSet
from crossfake.progress import tqdm
from crossfake.synth.quality.features import InceptionFeatures
from crossfake.synth.quality.fid import frechet_distance
from crossfake.synth.quality.images import Images
from crossfake.synth.quality.moments import collect
from crossfake.weights import find_weights


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def round_convolutions(features: InceptionFeatures) -> None:
    for module in features.stages.modules():
        if isinstance(module, nn.Conv2d):
            for parameter in module.parameters():
                parameter.data = rounded(parameter.data)
            module.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))
            module.register_forward_hook(lambda _, __, result: rounded(result))


@click.command(context_settings={"show_default": True})
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Shards.")
@click.option("--fake", type=click.Path(path_type=Path), required=True, help="Shards.")
@click.option("--inception", type=click.Path(path_type=Path), help="The FID network.")
@click.option("--n", type=int, default=1000, help="Images from each side.")
@click.option("--dims", type=int, default=768)
def main(real: Path, fake: Path, inception: Path | None, n: int, dims: int) -> None:
    """FID in float32 and in bfloat16, and by how much they differ."""
    network = find_weights("inception", inception)
    exact, coarse = (InceptionFeatures(network, dims, torch.device("cpu"), "fp32") for _ in range(2))
    round_convolutions(coarse)
    found = []
    for source in (real, fake):
        shards = ShardSet(source)
        rows = np.random.default_rng(0).permutation(len(shards))[:n]
        images = Images(shards, rows, 16, tqdm(disable=True))
        found.append([collect(features, images) for features in (exact, coarse)])
    fine, rough = (frechet_distance(found[0][k], found[1][k]) for k in range(2))
    print(f"n {len(rows)}, float32 {fine:.5f}, bfloat16 {rough:.5f}, {rough / fine - 1:+.2%}")


if __name__ == "__main__":
    main()
