"""How quickly a detector is trained here, beside a folder of PNG files and a plain loop over it.

    python benchmarks/detector.py --size 128 --batch 32 --steps 8

The peer is written after timm's train script and torchvision's references on a CPU: ``ImageFolder``, a ``DataLoader``
with workers, mirroring, ``ToTensor`` and normalisation, float32, NCHW, the same network and optimiser. The second peer
has the same input and is timm's own training task at its best: what its train script does with ``--amp --amp-dtype
bfloat16 --channels-last``. Input pipelines are measured alone, too, per second of one core: with mirroring only, and
with blur and JPEG on both sides. Rounds take turns; ratios are of medians. Where bfloat16 is not quick all networks
compute the same, and only the input can differ.

On a machine that others use, ``--clock processor`` counts this process's time on its cores, and ``--workers 0`` keeps
the peers' input in it.
"""

import argparse
import contextlib
import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import DetectorTraining
from crossfake.memory import keep_freed_memory
from crossfake.provenance import environment

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write(folder: Path, images: int, size: int) -> None:
    """The same drawn faces as shards and as PNG files; the "fakes" are other faces."""
    drawn = [toyface(number, size) for number in range(min(images, 300))]
    for label, name in enumerate(("real", "fake")):
        (folder / "png" / name).mkdir(parents=True)
        with ShardWriter(folder / name, size, attributes={"crop": {"policy": "none"}}) as writer:
            for number in range(images // 2):
                image = drawn[(2 * number + label) % len(drawn)].copy()
                image[0, 0] = (number % 256, number // 256, label)
                split = "val" if number < 16 else "train"
                writer.append(image, Row(label, name, name * label, split, f"{name}{number}"))
                Image.fromarray(image).save(folder / "png" / name / f"{number}.png")


class Compress:
    """Real JPEG with the probability of one half, as Wang et al. (2020) do it."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) < 0.5:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=int(torch.randint(30, 101, ())))
            image = Image.open(buffer).convert("RGB")
        return image


def peer_batches(args: argparse.Namespace, folder: Path, recipe: str, workers: int) -> Iterator[Any]:
    sigma = 3 * args.size / 224
    width = 2 * int(np.ceil(3 * sigma)) + 1
    blur = transforms.RandomApply([transforms.GaussianBlur(width, (0.01, sigma))], p=0.5)
    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            *([blur, Compress()] if recipe == "wang2020" else []),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    loader: DataLoader[Any] = DataLoader(
        ImageFolder(str(folder / "png"), transform),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def ours(args: argparse.Namespace, folder: Path, recipe: str) -> DetectorTraining:
    return DetectorTraining(
        TrainSettings(
            (folder / "real",),
            folder / "run",
            (folder / "fake",),
            model=args.model,
            batch=args.batch,
            steps=10**6,
            recipe=recipe,
            device="cpu",
        )
    )


def input_rates(args: argparse.Namespace, folder: Path, recipe: str) -> tuple[float, float]:
    """Batches as float32, per second of one core: CPU time, which other work on the machine does not change."""
    training, theirs = ours(args, folder, recipe), peer_batches(args, folder, recipe, workers=0)
    found: tuple[list[float], list[float]] = ([], [])
    steps, numbers = max(10, args.steps), itertools.count()

    def own_batch() -> Tensor:
        return training.batch(next(numbers)).permute(0, 3, 1, 2).float().div_(255)

    own_batch(), next(theirs)
    for _ in range(args.rounds):
        for rates, work in zip(found, (own_batch, lambda: next(theirs)), strict=True):
            started = time.process_time()
            for _ in range(steps):
                work()
            rates.append(steps * args.batch / (time.process_time() - started))
    return statistics.median(found[0]), statistics.median(found[1])


def plain_step(args: argparse.Namespace, batches: Iterator[Any]) -> Callable[[], object]:
    import timm

    network = timm.create_model(args.model, num_classes=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def step() -> None:
        images, targets = next(batches)
        loss = F.binary_cross_entropy_with_logits(network(images).squeeze(1), targets.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def timm_step(args: argparse.Namespace, batches: Iterator[Any]) -> Callable[[], object]:
    import timm
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    network = timm.create_model(args.model, num_classes=2).to(memory_format=torch.channels_last)
    task = ClassificationTask(network, device=torch.device("cpu"), verbose=False)
    optimizer = create_optimizer_v2(network, "adamw", lr=1e-3)

    def step() -> None:
        images, targets = next(batches)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = task(images, targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def training_rates(args: argparse.Namespace, folder: Path, recipe: str) -> tuple[float, ...]:
    training = ours(args, folder, recipe)
    peers = [make(args, peer_batches(args, folder, recipe, args.workers)) for make in (plain_step, timm_step)]
    clock = time.process_time if args.clock == "processor" else time.perf_counter
    found: tuple[list[float], ...] = ([], [], [])
    with contextlib.closing(training.batches()) as batches:

        def own_step() -> dict[str, Tensor]:
            return training.learner.train_step(*next(batches))

        works = (own_step, *peers)
        for work in works:
            work()
        for _ in range(args.rounds):
            for rates, work in zip(found, works, strict=True):
                started = clock()
                for _ in range(args.steps):
                    work()
                rates.append(args.steps * args.batch / (clock() - started))
    return tuple(map(statistics.median, found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a model of timm")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the peers' DataLoaders")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="of trainings")
    args = parser.parse_args()
    keep_freed_memory()
    hardware = environment()["hardware"]
    print(f"{hardware['cpu']}, {hardware['cpus']} cores, load before starting {os.getloadavg()[0]:.1f}")
    print(f"{args.model}, {args.size}×{args.size}, batch {args.batch}, {torch.get_num_threads()} threads")
    print(f"\n{'images/s':<28}{'crossfake':>12}{'plain loop':>12}{'ratio':>8}{'timm, bf16':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), args.images, args.size)
        for what, recipe, measure in (
            ("input, mirrored", "plain", input_rates),
            ("input, blur and JPEG", "wang2020", input_rates),
            ("training, mirrored", "plain", training_rates),
            ("training, blur and JPEG", "wang2020", training_rates),
        ):
            mine, *theirs = measure(args, Path(scratch), recipe)
            beside = "".join(f"{each:>12,.0f}{mine / each:>8.2f}" for each in theirs)
            print(f"{what:<28}{mine:>12,.0f}{beside}", flush=True)


if __name__ == "__main__":
    main()
