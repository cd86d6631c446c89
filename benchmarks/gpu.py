"""What a GPU makes of generators and detectors; ``benchmarks/gpu.sh`` calls it part by part.

    python benchmarks/gpu.py rates --family stylegan2 --size 64 --seconds 10
    python benchmarks/gpu.py resume
    python benchmarks/gpu.py detector --model resnet18 --size 224

Each call prints one line of JSON. ``--device cpu`` runs the same on a CPU, for its test.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training.settings import TrainSettings as DetectorSettings
from crossfake.detect.training.train import DetectorTraining
from crossfake.fit.checkpoints import newest_checkpoint, read_checkpoint
from crossfake.memory import keep_freed_memory
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import save_model
from crossfake.synth.settings import GenerateSettings
from crossfake.synth.training.runs import make_plan, resumed
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import train


def faces(folder: Path, size: int, count: int, label: int = 0) -> Path:
    """Drawn faces as shards, some of them for validation."""
    drawn = [toyface(2 * number + label, size) for number in range(min(count, 64))]
    with ShardWriter(folder, size, attributes={"crop": {"policy": "none"}}) as writer:
        for number in range(count):
            image = drawn[number % len(drawn)].copy()
            image[0, 0] = (number % 256, number // 256, label)
            split = "val" if number < 8 else "train"
            writer.append(image, Row(label, "toy", "toy" * label, split, f"{label}-{number}"))
    return folder


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def per_second(args: argparse.Namespace, step: Callable[[], object], images: int) -> float:
    """Images per second, after three steps that allocate and choose kernels."""
    for _ in range(3):
        step()
    wait(args.device)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds:
        step()
        wait(args.device)
        done += 1
    return done * images / (time.perf_counter() - started)


def peak(device: str) -> float:
    """GB at most since the last call: of the GPU, or of this process."""
    if device != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return found


def rates(args: argparse.Namespace) -> dict[str, Any]:
    """Training and generation of one family in float32 and bfloat16, and how far their images differ."""
    found: dict[str, Any] = {"family": args.family, "size": args.size}
    made = {}
    with tempfile.TemporaryDirectory() as place:
        for precision in ("fp32", "bf16"):
            settings = TrainSettings(
                Path(), Path(), args.family, batch=args.batch, channels=args.channels, device=args.device,
                precision=precision,
            )  # a table  # fmt: skip
            plan = make_plan(settings, args.size)
            assert plan.family.learner is not None
            learner = plan.family.learner(plan, 0)
            real = torch.randint(0, 256, (plan.batch, 3, args.size, args.size), dtype=torch.uint8)
            trained = per_second(args, partial(learner.train_step, real), plan.batch)
            figures = {"train": trained, "train_gb": peak(args.device)}
            del learner
            torch.manual_seed(0)
            network = plan.family.generator(**plan.arguments)
            card = {"size": args.size, "network": plan.arguments, "classes": []}
            save_model(Path(place) / precision, args.family, network, card)
            out, n = Path(place) / f"{precision}-fakes", args.images
            ask = GenerateSettings(n, Path(place) / precision, out, device=args.device, precision=precision)
            started = time.perf_counter()
            made[precision] = ShardSet(generate(ask)).read_many(range(min(n, 64))).astype(int)
            figures |= {"generate": n / (time.perf_counter() - started), "generate_gb": peak(args.device)}
            found |= {"batch": plan.batch, "channels": plan.channels, precision: figures}
    found["levels_apart"] = float(np.abs(made["fp32"] - made["bf16"]).mean())
    return found


def resume(args: argparse.Namespace) -> dict[str, Any]:
    """Whether a training that is stopped and resumed ends where one that was not does."""
    with tempfile.TemporaryDirectory() as place:
        data = faces(Path(place) / "data", 32, 128)
        whole = TrainSettings(
            data, Path(place) / "whole", kimg=0.256, batch=16, channels=args.channels or 1024, device=args.device
        )  # a table  # fmt: skip
        train(whole)
        half = Path(place) / "half"
        train(TrainSettings(**{**vars(whole), "out": half, "kimg": 0.128}))
        train(resumed(half, kimg=0.256))
        ends = [newest_checkpoint(run) for run in (whole.out, half)]
        states = [read_checkpoint(end) for end in ends if end]
    apart = max(
        float((states[0]["average"][name] - value).abs().max())
        for name, value in states[1]["average"].items()
    )
    return {"steps": [state["step"] for state in states], "largest_difference": apart}


class Utilisation:
    """How busy the GPU is while a block runs, in percent, twice a second; NaN without nvidia-smi."""

    def __enter__(self) -> Utilisation:
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        while not self._over.wait(0.5):
            try:
                self._seen.append(
                    float(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
                )
            except (OSError, ValueError, subprocess.CalledProcessError):
                return

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def percent(self) -> float:
        return float(np.mean(self._seen)) if self._seen else math.nan


def detector(args: argparse.Namespace) -> dict[str, Any]:
    """A detector's training as the command does it, reading and augmentation included."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        real, fake = (faces(folder / name, args.size, args.images, k) for k, name in enumerate(("r", "f")))
        training = DetectorTraining(
            DetectorSettings(
                (real,),
                folder / "run",
                (fake,),
                model=args.model,
                batch=args.batch or 64,
                steps=10**6,
                device=args.device,
            )  # a table  # fmt: skip
        )
        with training.context(), closing(training.batches()) as batches, Utilisation() as busy:
            rate = per_second(args, lambda: training.learner.train_step(*next(batches)), args.batch or 64)
    return {
        "model": args.model, "size": args.size, "batch": args.batch or 64, "train": rate,
        "train_gb": peak(args.device), "utilisation": busy.percent,
    }  # a table  # fmt: skip


PARTS = {part.__name__: part for part in (rates, resume, detector)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--family", default="stylegan2")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=0, help="0 chooses")
    parser.add_argument("--channels", type=int, default=0, help="0 chooses")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    keep_freed_memory()
    print(json.dumps({"part": args.part, **PARTS[args.part](args)}))


if __name__ == "__main__":
    main()
