"""``synth evaluate`` beside pytorch-fid's command, as whole processes on the same images and network.

    python benchmarks/fid.py --real data/faces --fake data/fakes --n 1000 --dims 768

pytorch-fid reads PNG files, crossfake the shards that they come from. A second evaluation against the same reals is
timed too, since crossfake keeps their features.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.images import save_png
from crossfake.synth.quality.table import head_of
from crossfake.weights import find_weights


def timed(command: list[str], environment: dict[str, str]) -> tuple[str, float]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - started


@click.command(context_settings={"show_default": True})
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Shards.")
@click.option("--fake", type=click.Path(path_type=Path), required=True, help="Shards.")
@click.option("--inception", type=click.Path(path_type=Path), help="The FID network.")
@click.option("--n", type=int, default=1000, help="Images from each side.")
@click.option("--dims", default="768")
def main(real: Path, fake: Path, inception: Path | None, n: int, dims: str) -> None:
    """Seconds and FID of both, and their ratio."""
    network = find_weights("inception", inception)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        hub = work / "torch" / "hub" / "checkpoints"
        hub.mkdir(parents=True)
        (hub / "pt_inception-2015-12-05-6726825d.pth").symlink_to(network.resolve())
        environment = os.environ | {"TORCH_HOME": str(work / "torch"), "XDG_CACHE_HOME": str(work / "cache")}
        for label, (side, source) in enumerate((("real", real), ("fake", fake))):
            shards = ShardSet(source)
            images = shards.read_many(np.random.default_rng(0).permutation(len(shards))[:n])
            (work / f"{side}-png").mkdir()
            with ShardWriter(work / side, size=int(shards.size or 0)) as writer:
                for k, image in enumerate(images):
                    save_png(image, work / f"{side}-png" / f"{k:06}.png")
                    writer.append(image, Row(label=label, source=side, group=str(k)))
        theirs = [sys.executable, "-m", "pytorch_fid", "--dims", dims, "--device", "cpu"]
        text, seconds = timed([*theirs, str(work / "real-png"), str(work / "fake-png")], environment)
        print(head_of("fid", {"dims": int(dims)}))
        value = float(re.findall(r"FID:\s+(\S+)", text)[0])
        print(f"{'pytorch-fid':<34}{seconds:8.1f} s   {value:.6f}", flush=True)
        for title, precision in (("exact", "fp32"), ("bf16 where quick", "auto"), ("reals known", "auto")):
            ours = [
                sys.executable,
                "-m",
                "crossfake.synth",
                "evaluate",
                "--real",
                str(work / "real"),
                "--fake",
                str(work / "fake"),
                "--dims",
                dims,
                "--metrics",
                "fid",
                "--precision",
                precision,
                "--inception",
                str(network),
                "--out",
                str(work / "q.json"),
            ]
            _, took = timed(ours, environment)
            found = json.loads((work / "q.json").read_text())["fid"]
            print(
                f"crossfake, {title:<23}{took:8.1f} s   {found:.6f} ({found / value - 1:+.1e})   "
                f"{seconds / took:.1f} times as fast",
                flush=True,
            )


if __name__ == "__main__":
    main()
