"""How quick the data side is on this machine: shards beside a folder of PNG files, and every stage from file to split.

    python benchmarks/data.py [--data PHOTOS --size 64 --crop face --workers 2]

Peers run here and now, in the same process, one after the other in three rounds; ratios are of medians.
"""

import argparse
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, RandomCrop

from crossfake.datasets.audit.audit import (
    audit,
)
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import find_faces
from crossfake.datasets.fingerprints import distance, fingerprint, near_pairs
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.sources.fixtures import write_video
from crossfake.datasets.sources.folder import walk
from crossfake.datasets.torch_data import ShardDataset
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.types import Pixels
from crossfake.datasets.video import read_frames
from crossfake.provenance import environment
from crossfake.weights import locate

SIZE, IMAGES, ROUNDS = 128, 2000, 3
WINDOW = 128


def rate(count: int, work: Callable[[], object]) -> float:
    """Images per second of ``work``, which handles ``count`` of them."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def write_shards(images: list[Pixels], folder: Path, codec: str) -> None:
    with ShardWriter(folder, SIZE, codec) as writer:
        writer.extend(images, [Row(0, "toyfaces", group=str(n), origin=str(n)) for n in range(len(images))])


def write_png(images: list[Pixels], folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


def storage(scratch: Path) -> None:
    base = [toyface(number, SIZE) for number in range(200)]
    images = [base[number % 200] for number in range(IMAGES)]
    order = np.random.default_rng(0).permutation(IMAGES).tolist()
    kinds = ("png", "raw", "webp")
    writes: dict[str, list[float]] = {kind: [] for kind in kinds}
    reads: dict[str, list[float]] = {kind: [] for kind in kinds}
    size = {}
    for turn in range(ROUNDS):
        for kind in kinds:
            folder = scratch / f"{kind}{turn}"
            if kind == "png":
                writes[kind].append(rate(IMAGES, lambda folder=folder: write_png(images, folder)))
                paths = [folder / f"{number}.png" for number in order]
                reads[kind].append(
                    rate(IMAGES, lambda paths=paths: [np.asarray(Image.open(path)) for path in paths])
                )
            else:
                writes[kind].append(
                    rate(IMAGES, lambda folder=folder, kind=kind: write_shards(images, folder, kind))
                )
                shards = ShardSet(folder)
                reads[kind].append(
                    rate(IMAGES, lambda shards=shards: [shards.read(number) for number in order])
                )
            size[kind] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"\n{IMAGES:,} drawn faces of {SIZE}², median of {ROUNDS} rounds, just written and still in memory")
    print(f"{'':<14}{'write/s':>10}{'× PNG':>8}{'random read/s':>16}{'× PNG':>8}{'MB':>8}")
    middle = {kind: (statistics.median(writes[kind]), statistics.median(reads[kind])) for kind in kinds}
    for kind in kinds:
        write, read = middle[kind]
        label = "PNG files" if kind == "png" else f"shards, {kind}"
        print(
            f"{label:<14}{write:>10,.0f}{write / middle['png'][0]:>8.1f}"
            f"{read:>16,.0f}{read / middle['png'][1]:>8.1f}{size[kind]:>8,.0f}"
        )


def stages(photos: str) -> None:
    """One process, one photo at a time: what each stage costs."""
    paths = list(itertools.islice(walk(Path(photos)), 300))
    images = [decode_image(path) for path in paths]
    cropper = Cropper(64) if locate("yunet") else Cropper(64, "center")
    print(f"\nstages, one process, {len(paths)} photos of {photos}")
    works: list[tuple[str, int, Callable[[], object]]] = [
        ("list files", sum(1 for _ in walk(Path(photos))), lambda: sum(1 for _ in walk(Path(photos)))),
        ("decode", len(paths), lambda: [decode_image(path) for path in paths]),
        ("fingerprint", len(paths), lambda: [fingerprint(image) for image in images]),
    ]
    if cropper.finds_faces:
        works.append(
            (
                "find faces",
                len(paths),
                lambda: [find_faces(i, cropper.model, largest_only=True) for i in images],
            )
        )
    for name, count, work in works:
        work()
        print(f"{name:<28}{statistics.median(rate(count, work) for _ in range(ROUNDS)):>12,.0f}/s")


def windows(photos: str, scratch: Path) -> None:
    """Random windows of native photos as a training reads them, beside torchvision's loader of files."""
    prepare(PrepareSettings(photos, scratch / "native", crop="none", pixels="native", limit=2000))
    ours = ShardDataset(scratch / "native", window=WINDOW)
    named = ours.sets[0].columns["origin"].tolist()
    for origin in named:
        link = scratch / "files" / "one" / origin.replace("/", "-")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((Path(photos) / origin).resolve())
    peer = ImageFolder(scratch / "files", Compose([RandomCrop(WINDOW), PILToTensor()]))
    batches = np.random.default_rng(0).permutation(len(ours))[: len(ours) // 32 * 32].reshape(-1, 32).tolist()
    works: dict[str, Callable[[], object]] = {
        "ImageFolder, RandomCrop": lambda: [torch.stack([peer[k][0] for k in batch]) for batch in batches],
        "ShardDataset, first epoch": lambda: [ours.batch(batch) for batch in batches],
        "ShardDataset": lambda: [ours.batch(batch) for batch in batches],
    }
    count = 32 * len(batches)
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS):
        for name, work in works.items():
            if "first" not in name or not turn:  # rows are checked when they are read for the first time
                rates[name].append(rate(count, work))
    print(
        f"\nwindows of {WINDOW}² of {len(ours):,} photos in batches of 32, one process, median of {ROUNDS} rounds"
    )
    base = statistics.median(rates["ImageFolder, RandomCrop"])
    for name, found in rates.items():
        speed = statistics.median(found)
        print(f"{name:<28}{speed:>12,.0f}/s{speed / base:>8.1f} ×")


def indexing() -> None:
    """Near-duplicates among 200,000 fingerprints, against comparing each with each (timed on a part)."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, (200_000, 4), dtype=np.uint64)
    flips = np.packbits(rng.random((100_000, 256)) < 0.03, axis=1).view(np.uint64)
    codes[100_000:] = codes[:100_000] ^ flips
    started = time.perf_counter()
    pairs = near_pairs(codes)
    seconds = time.perf_counter() - started
    part = codes[:2000]
    speed = rate(len(part) ** 2, lambda: distance(part[:, None], part[None]))
    each = len(codes) ** 2 / 2 / speed
    print(f"\n200,000 fingerprints with 100,000 copies: {len(pairs):,} pairs found in {seconds:.0f} s")
    print(f"comparing each with each would take {each:,.0f} s: {each / seconds:.0f} × as long")


def videos(scratch: Path) -> None:
    if importlib.util.find_spec("av") is None:
        return
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    write_video(scratch / "clip.mp4", [np.roll(picture, 4 * step, axis=1) for step in range(300)])
    work = lambda: list(read_frames(scratch / "clip.mp4", 32))  # noqa: E731
    work()
    speed = statistics.median(rate(1, work) for _ in range(ROUNDS))
    print(
        f"\nvideo of 300 frames, 1280×720, H.264: 32 frames evenly spread in {1e3 / speed:,.0f} ms, one process"
    )


def auditing(prepared: Path) -> None:
    """Halves of one set against each other: as much work as any audit of its size."""
    shards = ShardSet(prepared)
    print(f"\naudit of 500 + 500 images of {shards.size}×{shards.size}")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("one", "other")]
        for label, folder in enumerate(folders):
            with ShardWriter(folder, shards.size) as writer:
                for row in range(label, min(1000, len(shards)), 2):
                    writer.append(shards.read(row), Row(label, "half", group=str(row), origin=str(row)))
        settings = AuditSettings((str(folders[0]),), (str(folders[1]),), workers=1)
        started = time.perf_counter()
        found = audit(settings)
        print(f"{time.perf_counter() - started:.1f} s in one process; verdict {found.verdict}")


def preparing(settings: PrepareSettings) -> None:
    """Wall time includes starting the workers; CPU time is what is left when other work takes the cores."""
    before, started = os.times(), time.perf_counter()
    done = prepare(settings)
    wall, after = time.perf_counter() - started, os.times()
    spent = sum(after[:4]) - sum(before[:4])  # of this process and of its workers, which have ended
    handled = done.images + sum(done.skipped.values())
    workers = settings.workers or os.cpu_count() or 1
    print(f"\nprepare {settings.source}: --size {settings.size} --crop {settings.crop}, {workers} workers")
    print(f"{handled:,} images in {wall:.1f} s: {handled / wall:,.0f}/s")
    print(
        f"{1e3 * spent / handled:.1f} ms of CPU each: {workers * handled / spent:,.0f}/s on {workers} idle cores"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a folder of photos to prepare; 5,000 drawn faces without it")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--crop", default="face", help="for --data; drawn faces are crops already")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one per core")
    args = parser.parse_args()
    hardware = environment()["hardware"]
    print(f"{hardware['cpu']}, {hardware['cpus']} cores, load before starting {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        storage(Path(scratch))
        source, crop, limit = (args.data, args.crop, None) if args.data else ("toyfaces", "none", 5000)
        out = Path(scratch) / "prepared"
        preparing(PrepareSettings(source, out, args.size, crop, limit=limit, workers=args.workers))
        if args.data:
            stages(args.data)
            windows(args.data, Path(scratch))
        indexing()
        videos(Path(scratch))
        auditing(out)
