"""Which measure of novelty notices pictures of a source that was left out: ``python benchmarks/novelty.py --help``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle, novelty
from crossfake.detect.bundle.bundle import Outputs
from crossfake.progress import tqdm
from crossfake.stats.intervals import wilson
from crossfake.stats.ranking import auc

SIDE = 224  # that crops are resized to for DINOv2
QUANTILE = 0.95


@dataclass(frozen=True)
class Part:
    """Rows of one folder, of one split, and what a network makes of them."""

    folder: Path
    label: int
    split: str
    logits: np.ndarray
    features: np.ndarray


def read(folder: Path, split: str, most: int) -> tuple[ShardSet, np.ndarray]:
    shards = ShardSet(folder)
    rows = shards.select(split=split) if split else np.arange(len(shards))
    return shards, np.random.default_rng(0).permutation(rows)[:most]


def own(path: Path) -> tuple[str, Callable[[list[Pixels]], Outputs]]:
    """What a detector makes of crops."""
    detector = bundle.load(path, "cpu")
    return detector.hash[:12], detector.outputs


def dinov2(file: Path) -> tuple[str, Callable[[list[Pixels]], Outputs]]:
    """The class token of DINOv2-S of whole crops; it has no logits."""
    import timm
    from timm.models import load_checkpoint
    from timm.models.vision_transformer import checkpoint_filter_fn

    network: Any = timm.create_model("vit_small_patch14_dinov2", img_size=SIDE, num_classes=0)
    load_checkpoint(network, str(file), filter_fn=checkpoint_filter_fn)
    network = network.eval().bfloat16()
    facts = network.pretrained_cfg
    mean, deviation = (torch.tensor(facts[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))

    @torch.inference_mode()
    def outputs(crops: list[Pixels]) -> Outputs:
        batch = torch.cat([
            torch.nn.functional.interpolate(
                torch.from_numpy(crop).permute(2, 0, 1)[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True
            )
            for crop in crops
        ])  # fmt: skip
        features = network(((batch - mean) / deviation).bfloat16()).float().numpy()
        return np.zeros(len(crops)), features

    return "dinov2", outputs


def judged(
    network: tuple[str, Callable[[list[Pixels]], Outputs]], wanted: list[Any], cache: Path
) -> list[Part]:
    """Every part once, kept in ``cache``."""
    name, outputs = network
    parts = []
    for folder, label, split, most in tqdm(wanted, desc=name, unit="set"):
        shards, rows = read(folder, split, most)
        file = cache / f"{name}-{shards.hash[:12]}-{split or 'all'}-{most}.npz"
        if not file.exists():
            found = [outputs([shards.read(row) for row in rows[i : i + 32]]) for i in range(0, len(rows), 32)]
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(
                file,
                logits=np.concatenate([a for a, _ in found]),
                features=np.concatenate([b for _, b in found]),
            )
        kept = np.load(file)
        parts.append(Part(folder, label, split, kept["logits"], kept["features"]))
    return parts


def stack(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, features, labels, and weights by which every part counts alike."""
    counts = [len(part.logits) for part in parts]
    return (
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.repeat([part.label for part in parts], counts),
        np.repeat([1 / count for count in counts], counts),
    )


def distances(method: str, train: list[Part], val: list[Part], asked: list[list[Part]]) -> list[np.ndarray]:
    """How unusual pictures are, as the share of validation that is less so, and finer beyond all of it."""
    logits, features, labels, _ = stack(train)
    probe = LogisticRegression(max_iter=2000, C=0.01).fit(features, labels) if not logits.any() else None

    def given(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
        logits, features, _, _ = stack(parts)
        return (probe.decision_function(features) if probe else logits), features

    fitted = novelty.fit(method, features, labels, given(val), QUANTILE, stack(val)[3])
    limit = np.quantile(fitted.scale, QUANTILE, method="higher")
    return [fitted.distance(*given(parts)) - limit for parts in asked]


def cell(flags: list[np.ndarray], usual: list[np.ndarray]) -> str:
    """Share flagged with its interval for as many pictures, and the AUC against usual ones; means over detectors."""
    n = len(flags[0])
    share = float(np.mean([np.mean(each > 0) for each in flags]))
    low, high = wilson(share, n)
    if usual is flags:
        return f"{share:.2f} [{low:.2f}, {high:.2f}], n = {n}"
    ranks = [
        auc(np.repeat([0, 1], [len(known), len(new)]), np.concatenate([known, new]))
        for known, new in zip(usual, flags, strict=True)
    ]
    return f"{share:.2f} [{low:.2f}, {high:.2f}], n = {n}; {np.mean(ranks):.2f}"


@click.command(context_settings={"show_default": True})
@click.option("--bundle", "bundles", type=click.Path(path_type=Path), multiple=True, required=True)
@click.option(
    "--real", type=click.Path(path_type=Path), multiple=True, required=True, help="Of one source each."
)
@click.option(
    "--fake", type=click.Path(path_type=Path), multiple=True, required=True, help="Made of these, in turn."
)
@click.option(
    "--strange", type=click.Path(path_type=Path), multiple=True, help="Fakes that no detector learned from."
)
@click.option(
    "--dinov2", "tower", type=click.Path(path_type=Path), help="Weights of timm's vit_small_patch14_dinov2."
)
@click.option("--n", type=int, default=200, help="Pictures of each split of a folder.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("/tmp/novelty"), help="For features.")
def main(
    bundles: tuple[Path, ...], real: tuple[Path, ...], fake: tuple[Path, ...], strange: tuple[Path, ...],
    tower: Path | None, n: int, cache: Path,
) -> None:  # fmt: skip
    """Leave out one source of reals after the other: how many of its pictures are flagged, and of the known ones.

    As in 'detect calibrate', the reference is of training rows and the limit is where 5% of validation rows lie beyond,
    both of reals and of the fakes made of them. Detectors have seen all sources: only the reference has not.
    """
    wanted: list[Any] = [(folder, 0, split, n) for folder in real for split in ("train", "val", "test")]
    wanted += [(folder, 1, split, n) for folder in fake for split in ("train", "val")]
    wanted += [(folder, 1, "", n) for folder in strange]
    networks = {"own": [judged(own(path), wanted, cache) for path in bundles]}
    if tower:
        networks["DINOv2-S"] = [judged(dinov2(tower), wanted, cache)]
    names = [folder.name for folder in real]
    print(f"| features | measure | known | {' | '.join(names)} | {' | '.join(f.name for f in strange)} |")
    print(f"|---|---|---|{'---|' * (len(names) + len(strange))}")
    for title, detectors in networks.items():
        for method in novelty.METHODS:
            cells, known = [], []
            for left in (*range(len(real)), None):
                every = []
                for parts in detectors:
                    kept = {folder for k in range(len(real)) if k != left for folder in (real[k], fake[k])}
                    train, val, usual = (
                        [part for part in parts if part.folder in kept and part.split == split]
                        for split in ("train", "val", "test")
                    )
                    if left is None:
                        asked = [[part] for part in parts if part.folder in strange]
                    else:
                        asked = [[p for p in parts if p.folder == real[left] and p.split != "train"]]
                    every.append(distances(method, train, val, [usual, *asked]))
                known.append([each[0] for each in every])
                cells += [cell([each[k] for each in every], known[-1]) for k in range(1, len(every[0]))]
            print(f"| {title} | {method} | {cell(known[-1], known[-1])} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
