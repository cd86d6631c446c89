"""``make bench``: how quick shards and generation are on this machine, beside the plain way of doing it.

Everything is measured here and now, on noise images and an untrained generator: speed depends on neither.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.provenance import environment
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import load_model, save_model
from crossfake.synth.settings import GenerateSettings

SIZE, IMAGES, FAKES = 128, 4000, 4096


def rate(count: int, work: Callable[[], object]) -> float:
    """Images per second of ``work``, which handles ``count`` of them."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def storage(folder: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (IMAGES, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.integers(
        0, 8, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8
    )
    order = rng.permutation(IMAGES).tolist()

    def write_shards(codec: str) -> None:
        with ShardWriter(folder / codec, size=SIZE, codec=codec) as writer:
            writer.extend(images, [Row(label=0, source="noise", group=str(i)) for i in range(IMAGES)])

    def write_png() -> None:
        (folder / "png").mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / "png" / f"{number}.png")

    def read_png() -> None:
        for number in order:
            np.asarray(Image.open(folder / "png" / f"{number}.png").convert("RGB"))

    print(f"\n{IMAGES:,} images of {SIZE}²: images/s, files just written and still in memory")
    print(f"{'':<22}{'write':>10}{'random read':>14}{'MB':>8}")
    for name in ("raw", "webp", "png"):
        wrote = rate(IMAGES, write_png if name == "png" else lambda name=name: write_shards(name))
        shards = None if name == "png" else ShardSet(folder / name)
        read = rate(
            IMAGES, read_png if shards is None else lambda shards=shards: [shards.read(i) for i in order]
        )
        megabytes = sum(file.stat().st_size for file in (folder / name).iterdir()) / 1e6
        label = "folder of PNG files" if name == "png" else f"shards, {name}"
        print(f"{label:<22}{wrote:>10,.0f}{read:>14,.0f}{megabytes:>8,.0f}")


def generation(folder: Path, family: str, size: int) -> None:
    entry = FAMILIES.get(family)
    torch.manual_seed(0)
    arguments = {"size": size, "channels": entry.channels_cpu}
    card = {"size": size, "kimg": 0.0, "network": arguments, "classes": []}
    save_model(folder / f"{family}{size}", family, entry.generator(**arguments), card)
    model = load_model(folder / f"{family}{size}")
    vectors = model.draw(0, seed=0)
    model.render(vectors)  # the first call is slower
    count = FAKES if family != "diffusion" else 2 * model.tile  # each is twenty passes
    alone = rate(count, lambda: [model.render(vectors) for _ in range(count // model.tile)])
    settings = GenerateSettings(count, model.path, folder / f"{family}{size}-fakes")
    whole = rate(count, lambda: generate(settings))
    print(f"{f'{family} {size}²':<22}{alone:>14,.0f}{whole:>16,.0f}{whole / alone:>8.0%}")


if __name__ == "__main__":
    facts = environment()
    machine = ", ".join(facts["hardware"]["gpus"]) or facts["hardware"]["cpu"]
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"load before starting: {os.getloadavg()[0]:.1f} (other work makes the figures smaller)")
    with tempfile.TemporaryDirectory() as scratch:
        storage(Path(scratch))
        print(f"\n{FAKES:,} fakes, families at their CPU width: images/s")
        print(f"{'':<22}{'network alone':>14}{'synth generate':>16}{'share':>8}")
        for family in (name for name in FAMILIES.names() if FAMILIES.get(name).learner):
            for size in (32, 64):
                generation(Path(scratch), family, size)
