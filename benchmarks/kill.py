"""Kill a training at random moments, again and again: nothing but the work since the last checkpoint may be lost.

    python benchmarks/kill.py --trials 100

Each trial starts the training of a tiny StyleGAN2, or resumes it, and kills it (SIGKILL) after a random time. After
every kill the newest checkpoint has to load, and to be no older than the one before; in the end the weights have to
equal, bit by bit, those of a training that was never stopped.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.fit.checkpoints import newest_checkpoint

_TRAIN = """
import sys
from pathlib import Path
from crossfake.synth.training.train import train
from crossfake.synth.training.runs import resumed
from crossfake.synth.training.settings import TrainSettings
data, out, kimg = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
options = dict(kimg=kimg, batch=8, channels=64, snapshot_kimg=0.008, augment="ada", device="cpu", threads=1)
print("ready", flush=True)
begun = (out / "config.yaml").exists()
train(resumed(out, kimg=kimg) if begun else TrainSettings(data, out, **options))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data, killed, whole = folder / "data", folder / "killed", folder / "whole"
        with ShardWriter(data, 16) as writer:
            for image in rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8):
                writer.append(image, Row(0, "noise", split="train"))
        step, started, worst = 0, 0, 0
        for trial in range(args.trials):
            process = _start(data, killed, 1000.0)
            assert process.stdout is not None
            process.stdout.readline()  # imports are behind it
            time.sleep(4 * float(rng.random()))
            process.send_signal(signal.SIGKILL)
            process.wait()
            checkpoint = newest_checkpoint(killed)
            now = _step(checkpoint) if checkpoint else 0
            if now < step:
                sys.exit(f"trial {trial}: the newest checkpoint is of step {now}, it was of {step} before")
            worst, started, step = max(worst, now - step), started + (now > step), now
            print(f"\rtrial {trial + 1}: step {step:,}, {started} trials got on", end="", flush=True)
        target = (step + 10) * 8 / 1000
        for out in (killed, whole):
            _start(data, out, target).communicate()
        ends = [torch.load(_newest(out), weights_only=True) for out in (killed, whole)]
        for name, tensor in ends[0]["average"].items():
            if not torch.equal(tensor, ends[1]["average"][name]):
                sys.exit(f"\n{name} differs from that of the training that was never stopped")
        print(f"\n{args.trials} kills, no checkpoint lost, {ends[0]['step']:,} steps equal to the bit")


def _start(data: Path, out: Path, kimg: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _TRAIN, str(data), str(out), str(kimg)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _newest(out: Path) -> Path:
    found = newest_checkpoint(out)
    if found is None:
        sys.exit(f"\n{out} has no checkpoint")
    return found


def _step(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["step"])


if __name__ == "__main__":
    main()
