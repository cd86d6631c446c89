"""How much of a network's own rate ``detect predict`` keeps: ``python benchmarks/predict.py --help``."""

import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.bundle.bundle import load, save
from crossfake.detect.models import create_model
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import PredictSettings


@click.command(context_settings={"show_default": True})
@click.option("--model", default="resnet18", help="Untrained: the rate does not depend on the weights.")
@click.option("--size", type=int, default=128)
@click.option("--n", type=int, default=2000, help="Files, cut to size already.")
@click.option("--format", "suffix", type=click.Choice(["jpg", "png"]), default="jpg")
@click.option("--workers", type=int, default=0, help="That open files; 0: one per core.")
@click.option("--threads", type=int, default=torch.get_num_threads(), help="Of torch.")
@click.option("--device", default="auto")
def main(model: str, size: int, n: int, suffix: str, workers: int, threads: int, device: str) -> None:
    """Images/s of the network on pixels in memory, and of predict on a folder of files with the same pixels."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder, bundle = Path(scratch) / "files", Path(scratch) / "bundle"
        folder.mkdir()
        faces = [Image.fromarray(toyface(number, size)) for number in range(64)]
        for number in range(n):
            faces[number % len(faces)].save(folder / f"{number:06}.{suffix}")
        card = {
            "model": model,
            "size": size,
            "crop": {"policy": "none"},
            "temperature": 1.0,
            "threshold": 0.5,
        }
        save(bundle, create_model(model), card)
        detector = load(bundle, device)
        images = np.stack([np.asarray(face) for face in faces])
        images = images[np.arange(n) % len(images)]
        detector.outputs(images[: detector.batch])  # the first call is slower
        print(
            f"{detector.device}, {threads} threads, {n:,} {suffix} files of {size}², {model}, batch {detector.batch}"
        )
        print(f"{'':<18}{'images/s':>10}{'CPU ms/image':>14}")
        rates: list[float] = []
        costs: list[float] = []
        for title in ("network alone", "predict", "network alone", "predict"):
            wall, busy = time.perf_counter(), time.process_time()
            if title == "predict":
                judged = sum(p.judged for p in predict([folder], detector, PredictSettings(workers=workers)))
                assert judged == n
            else:
                detector.outputs(images)
            rates.append(n / (time.perf_counter() - wall))
            costs.append((time.process_time() - busy) / n * 1e3)  # without that of other processes
            print(f"{title:<18}{rates[-1]:>10,.0f}{costs[-1]:>14.2f}", flush=True)
        print(f"predict keeps {max(rates[1::2]) / max(rates[::2]):.0%} of the network's rate")
        if workers == 1:  # then all work is in this process, and what else the machine does changes little
            print(f"by processor time it keeps {min(costs[::2]) / min(costs[1::2]):.0%}")


if __name__ == "__main__":
    main()
