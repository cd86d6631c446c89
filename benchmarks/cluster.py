"""What Ray costs on one machine: ``python benchmarks/cluster.py overhead`` and ``… memory``.

Each measurement is a process of its own: imports, caches and a cluster that is up already favour none.
"""

import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from crossfake.executor import ExecutorSettings

STAGES = ("prepare", "generate", "split", "evaluate", "predict", "quality")
OBJECTS = 200 * 2**20  # bytes of Ray's object store
FACES = 512  # different ones in the measurement of memory


def own_memory() -> float:
    """MB that this process holds itself; Ray's object store, which it shares, left out."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(facts["RssAnon"].split()[0]) / 1024


def busy() -> tuple[float, float]:
    """Seconds that processors worked for this process, and for it and all below it, Ray's own processes too."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(file.parent.name)] = int(words[1]), sum(map(int, words[11:15])) / ticks
    below, added = {os.getpid()}, True
    while added:
        more = {pid for pid, (parent, _) in found.items() if parent in below} - below
        below, added = below | more, bool(more)
    return time.process_time(), sum(found[pid][1] for pid in below)


@contextmanager
def watched() -> Iterator[list[float]]:
    """The largest :func:`own_memory` in the meantime, as the one item of a list."""
    found, over = [own_memory()], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            found[0] = max(found[0], own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


@contextmanager
def started(executor: str, cores: int) -> Iterator[tuple[ExecutorSettings, float]]:
    """Ray with so many cores, or nothing; and how many seconds that took."""
    if executor == "local":
        yield ExecutorSettings(), 0.0
        return
    import ray

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    begun = time.perf_counter()
    ray.init(
        "local",
        num_cpus=cores,
        object_store_memory=OBJECTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    # a worker for each core: they start once, whatever the stage
    task = ray.remote(lambda: time.sleep(1))
    ray.get([task.remote() for _ in range(cores)])
    try:
        yield ExecutorSettings("ray"), time.perf_counter() - begun
    finally:
        ray.shutdown()


# ---------------------------------------------------------------- overhead


def stage_work(stage: str, scratch: Path, n: int, cores: int, where: ExecutorSettings) -> Callable[[], Any]:
    """A stage, ready to be run; ``n`` rows pass through it."""
    from crossfake.datasets.leaks import split
    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import PrepareSettings, SplitSettings
    from crossfake.detect.bundle.bundle import load
    from crossfake.detect.evaluation.evaluate import evaluate
    from crossfake.detect.prediction.predict import predict
    from crossfake.detect.settings import EvaluateSettings, PredictSettings
    from crossfake.synth.quality.evaluate import evaluate as quality
    from crossfake.synth.sampling.generation import generate
    from crossfake.synth.settings import EvaluateSettings as QualitySettings
    from crossfake.synth.settings import GenerateSettings

    out = Path(tempfile.mkdtemp(dir=scratch))
    data = scratch / "real", scratch / "fake"
    if stage == "prepare":
        settings = PrepareSettings(
            str(scratch / "photos"), out / "x", crop="center", size=64, label="real", workers=cores
        )
        return lambda: prepare(settings, where)
    if stage == "generate":
        return lambda: generate(GenerateSettings(n, scratch / "model", out / "x"), where=where)
    if stage == "split":
        return lambda: split(SplitSettings(data[:1], redeal=True, workers=cores), where)
    if stage == "evaluate":
        asked = EvaluateSettings(
            scratch / "bundle", data, out=out / "x", split="all", bootstrap=0, force=True, device="cpu"
        )
        return lambda: evaluate(asked, where)
    if stage == "predict":
        judge = load(scratch / "bundle", "cpu")
        reading = PredictSettings(workers=cores)
        return lambda: sum(
            p.judged for p in predict([scratch / "photos"], judge, reading, where, device="cpu")
        )
    measured = QualitySettings(
        *data,
        out=out / "x.json",
        metrics=("fd",),
        features=("timm:resnet18",),
        weights=(scratch / "resnet18.pth",),
        real_split="all",
        device="cpu",
    )
    return lambda: quality(measured, where)


def fill(scratch: Path, n: int) -> None:
    """What the stages work on: photos of 256 pixels, shards of both classes, a generator and a detector."""
    import cv2
    import timm
    import torch

    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import PrepareSettings
    from crossfake.datasets.toyfaces import toyface
    from crossfake.detect.bundle.bundle import save
    from crossfake.detect.models import create_model
    from crossfake.synth.families.base import FAMILIES
    from crossfake.synth.sampling.models import save_model

    (scratch / "photos").mkdir()
    faces = [cv2.imencode(".jpg", toyface(number, 256))[1].tobytes() for number in range(min(n, FACES))]
    for number in range(n):
        (scratch / "photos" / f"{number:06}.jpg").write_bytes(faces[number % len(faces)])
    for name in ("real", "fake"):
        asked = PrepareSettings(
            "toyfaces",
            scratch / name,
            crop="none",
            size=64,
            limit=n // 2,
            name=name,
            label=name,
            seed=len(name),
        )
        prepare(asked)
    torch.manual_seed(0)
    family = FAMILIES.get("stylegan2")
    network = {"size": 64, "channels": family.channels_cpu}
    save_model(
        scratch / "model",
        "stylegan2",
        family.generator(**network),
        {"size": 64, "network": network, "crop": None},
    )
    card = {"model": "cnn", "size": 64, "crop": {"policy": "none"}, "temperature": 1.0, "threshold": 0.5}
    save(scratch / "bundle", create_model("cnn"), card)
    torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), scratch / "resnet18.pth")


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Ray beside local workers, and the driver's memory."""


@main.command()
@click.argument("stage")
@click.argument("executor")
@click.argument("scratch", type=click.Path(path_type=Path))
@click.argument("n", type=int)
@click.argument("cores", type=int)
def stage(stage: str, executor: str, scratch: Path, n: int, cores: int) -> None:
    """One measurement, for the command below."""
    with started(executor, cores) as (where, start):
        work = stage_work(stage, scratch, n, cores, where)
        before, begun = busy(), time.perf_counter()
        work()
        driver, whole = (after - was for after, was in zip(busy(), before, strict=True))
        facts = {"start": start, "seconds": time.perf_counter() - begun, "driver": driver, "busy": whole}
        print(json.dumps(facts))


def told(*words: object, **environment: str) -> dict[str, float]:
    """What a measurement in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@main.command()
@click.option("--n", type=int, default=6000, help="Rows of a stage.")
@click.option("--cores", type=int, default=2)
@click.option("--stages", default=",".join(STAGES))
@click.option("--times", type=int, default=1, help="The best of so many counts.")
def overhead(n: int, cores: int, stages: str, times: int) -> None:
    """Seconds of each stage by local workers, and on Ray with as many cores; Ray's start is told apart.

    Beside other work the seconds that processors were busy say more than those that went by.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        fill(scratch, n)
        print(f"{n:,} rows, {cores} cores; load {os.getloadavg()[0]:.1f}")
        print(
            f"{'':<10}{'seconds':>17}{'ratio':>7}{'busy':>17}{'ratio':>7}{'driver':>8}{'start':>7}",
            flush=True,
        )
        for name in stages.split(","):
            best: dict[str, dict[str, float]] = {}
            for _ in range(times):
                for executor in ("local", "ray"):
                    threads = "1" if executor == "ray" or name in ("prepare", "split") else str(cores)
                    found = told(
                        "stage",
                        name,
                        executor,
                        scratch,
                        n,
                        cores,
                        OMP_NUM_THREADS=threads,
                        XDG_CACHE_HOME=tempfile.mkdtemp(dir=scratch),
                    )
                    known = best.get(executor, found)
                    best[executor] = min(found, known, key=lambda each: each["seconds"])
            local, ray = best["local"], best["ray"]
            cells = [
                f"{local[what]:>8.1f}{ray[what]:>9.1f}{ray[what] / local[what]:>7.2f}"
                for what in ("seconds", "busy")
            ]
            print(f"{name:<10}{''.join(cells)}{ray['driver']:>8.1f}{ray['start']:>7.1f}", flush=True)


# ---------------------------------------------------------------- memory


def listed(kind: str, folder: Path, n: int) -> str:
    """A source of so many rows, of a few hundred different faces; returns what to prepare."""
    import cv2

    from crossfake.datasets.toyfaces import toyface

    faces = [cv2.imencode(".png", toyface(number, 8))[1].tobytes() for number in range(FACES)]
    folder.mkdir()
    if kind == "list":
        for number, face in enumerate(faces):
            (folder / f"{number}.png").write_bytes(face)
        with open(folder / "list.csv", "w") as file:
            file.write("file,label\n")
            file.writelines(f"{number % FACES}.png,{('real', 'fake')[number % 2]}\n" for number in range(n))
        return f"file://{folder / 'list.csv'}"
    if kind == "tar":
        for shard in range(0, n, 10_000):
            with tarfile.open(folder / f"{shard:07d}.tar", "w") as tar:
                for number in range(shard, min(shard + 10_000, n)):
                    for ending, content in (("png", faces[number % FACES]), ("cls", b"01"[number % 2 :][:1])):
                        item = tarfile.TarInfo(f"{number:07d}.{ending}")
                        item.size = len(content)
                        tar.addfile(item, BytesIO(content))
        return f"file://{folder}"
    import pyarrow
    import pyarrow.parquet

    for part in range(0, n, 10_000):
        numbers = range(part, min(part + 10_000, n))
        table = pyarrow.table(
            {
                "image": [{"bytes": faces[k % FACES], "path": f"{k}.png"} for k in numbers],
                "label": [("real", "fake")[k % 2] for k in numbers],
            }
        )
        pyarrow.parquet.write_table(table, folder / f"train-{part:07d}.parquet", row_group_size=1000)
    return f"file://{folder}"


@main.command()
@click.argument("word")
@click.argument("executor")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("cores", type=int)
def reading(word: str, executor: str, out: Path, cores: int) -> None:
    """One measurement, for the command below."""
    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import PrepareSettings

    with started(executor, cores) as (where, _), watched() as most:
        before, begun = own_memory(), time.perf_counter()
        done = prepare(PrepareSettings(word, out, crop="none", size=8, workers=cores), where)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"rows": done.images, "before": before, "most": most[0], "peak": peak, "seconds": seconds})
    )


@main.command()
@click.option("--rows", default="10000,100000,1000000")
@click.option("--kinds", default="list,tar,parquet")
@click.option("--executor", default="ray")
@click.option("--cores", type=int, default=2)
def memory(rows: str, kinds: str, executor: str, cores: int) -> None:
    """MB of the driver's own memory while it prepares longer and longer lists."""
    print(f"{'':<9}{'rows':>10}{'before MB':>11}{'most MB':>9}{'rows/s':>8}", flush=True)
    for kind in kinds.split(","):
        for n in map(int, rows.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                word = listed(kind, Path(folder) / "source", n)
                found = told("reading", word, executor, Path(folder) / "out", cores, OMP_NUM_THREADS="1")
            print(
                f"{kind:<9}{n:>10,}{found['before']:>11.0f}{found['most']:>9.0f}{n / found['seconds']:>8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
