"""Which measure of novelty notices pictures of a source that was left out: ``python benchmarks/novelty.py --help``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle, novelty
from crossfake.detect.bundle.bundle import Outputs
from crossfake.progress import tqdm
from crossfake.stats.intervals import wilson
from crossfake.stats.ranking import auc

SIDE = 224  # that crops are resized to for DINOv2
ALARMS = 0.05  # share of the known sources' held-out reals that is flagged: every source counts alike


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
        batch = torch.cat(
            [
                torch.nn.functional.interpolate(
                    torch.from_numpy(crop).permute(2, 0, 1)[None].float(),
                    (SIDE, SIDE),
                    mode="bilinear",
                    antialias=True,
                )
                for crop in crops
            ]
        )
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


def stack(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, features and labels."""
    counts = [len(part.logits) for part in parts]
    return (
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.repeat([part.label for part in parts], counts),
    )


def gaussian(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Class means and one shrunk covariance (Lee et al. 2018; Ledoit & Wolf 2004)."""
    means = np.stack([features[labels == label].mean(0) for label in (0, 1)])
    covariance = LedoitWolf(assume_centered=True).fit(features - means[labels]).covariance_
    variances, axes = np.linalg.eigh(covariance.astype(np.float64))
    return {"means": means, "axes": axes, "variances": variances, "rest": np.array([np.inf])}


def distances(method: str, train: list[Part], asked: list[list[Part]]) -> list[np.ndarray]:
    """How unusual pictures are, one array for each list of parts."""
    logits, features, labels = stack(train)
    probe = LogisticRegression(max_iter=2000, C=0.01).fit(features, labels) if not logits.any() else None
    if method == "mahalanobis":
        arrays = gaussian(features, labels)
    else:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        arrays = {"vectors": unit} if method == "knn" else {}
    fitted = novelty.Novelty(method, arrays, np.zeros(1, np.float32))
    found = []
    for parts in asked:
        logits, features, _ = stack(parts)
        found.append(fitted.distance(probe.decision_function(features) if probe else logits, features))
    return found


def cell(new: list[np.ndarray], usual: list[np.ndarray], weights: np.ndarray) -> str:
    """Share flagged with its interval, and the AUC against usual ones; means over detectors."""
    shares, ranks = [], []
    for known, strange in zip(usual, new, strict=True):
        order = np.argsort(known)
        limit = known[order][np.searchsorted(np.cumsum(weights[order]), (1 - ALARMS) * weights.sum())]
        shares.append(np.mean(strange > limit))
        labels = np.repeat([0, 1], [len(known), len(strange)])
        ranks.append(auc(labels, np.concatenate([known, strange])))
    low, high = wilson(np.mean(shares), len(new[0]))
    return f"{np.mean(shares):.2f} [{low:.2f}, {high:.2f}]; {np.mean(ranks):.2f}"


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
@click.option(
    "--cache", type=click.Path(path_type=Path), default=Path("runs/novelty-features"), help="For features."
)
def main(
    bundles: tuple[Path, ...],
    real: tuple[Path, ...],
    fake: tuple[Path, ...],
    strange: tuple[Path, ...],
    tower: Path | None,
    n: int,
    cache: Path,
) -> None:
    """Leave out one source of reals after the other: how many of its pictures are flagged, where as many of the others'
    held-out reals are as with every measure.

    The reference is of training rows, reals and the fakes made of them. The last columns leave no source out.
    """
    wanted: list[Any] = [(folder, 0, split, n) for folder in real for split in ("train", "val", "test")]
    wanted += [(folder, 1, "train", n) for folder in fake] + [(folder, 1, "", n) for folder in strange]
    networks = {"own": [judged(own(path), wanted, cache) for path in bundles]}
    if tower:
        networks["DINOv2-S"] = [judged(dinov2(tower), wanted, cache)]
    counts = [
        sum(len(p.logits) for p in networks["own"][0] if p.folder == f and p.split != "train")
        for f in (*real, *strange)
    ]
    titles = [f"{folder.name} (n = {count})" for folder, count in zip((*real, *strange), counts, strict=True)]
    print(f"| features | measure | {' | '.join(titles)} |\n|---|---|{'---|' * len(titles)}")
    for title, detectors in networks.items():
        for method in ("knn", "mahalanobis", "energy"):
            cells = []
            for left in (*real, None):
                found = []
                for parts in detectors:
                    known = [pair for pair in zip(real, fake, strict=True) if pair[0] != left]
                    train = [
                        p for p in parts if p.split == "train" and any(p.folder in pair for pair in known)
                    ]
                    usual = [
                        p for p in parts if p.split != "train" and any(p.folder == pair[0] for pair in known)
                    ]
                    asked = [
                        [p for p in parts if p.folder == f and p.split != "train"]
                        for f in ((left,) if left else strange)
                    ]
                    found.append(distances(method, train, [usual, *asked]))
                sizes = {f: sum(len(p.logits) for p in usual if p.folder == f) for f, _ in known}
                weights = np.concatenate([np.full(len(p.logits), 1 / sizes[p.folder]) for p in usual])
                columns = list(zip(*found, strict=True))
                cells += [cell(list(each), list(columns[0]), weights) for each in columns[1:]]
            print(f"| {title} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
