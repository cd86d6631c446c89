"""Many clients at a real ``detect serve`` on loopback: ``python benchmarks/serve.py --help``."""

import http.client
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
from PIL import Image

from crossfake.datasets.toyfaces import toyface

PATH = "/api/v1/analyze"
BUSY = (429, 503)  # answers that say when to come again
BOUNDARY = "crossfake-benchmark"


def megapixel(photo: Path | None) -> bytes:
    """A photo as a JPEG of one megapixel; without one a drawn face on noise."""
    if photo:
        image = Image.open(photo).convert("RGB")
        scale = (1e6 / (image.width * image.height)) ** 0.5
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    else:
        ground = np.random.default_rng(0).integers(90, 160, (866, 1155, 3), dtype=np.uint8)
        image = Image.fromarray(ground)
        image.paste(Image.fromarray(toyface(3, 512)), (300, 150))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


class Client(threading.Thread):
    """Sends its requests one after the other from an address of its own, as different people would."""

    def __init__(self, number: int, port: int, path: str, body: bytes, end: float) -> None:
        super().__init__()
        self.source, self.port, self.path, self.body, self.end = (
            f"127.0.0.{number + 2}",
            port,
            path,
            body,
            end,
        )
        self.seconds: list[float] = []
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        while time.monotonic() < self.end:
            start = time.monotonic()
            try:
                status, later = self._ask()
            except OSError as error:
                self.answers[type(error).__name__] += 1
                time.sleep(0.5)
                continue
            self.answers[str(status)] += 1
            if status == 200:
                self.seconds.append(time.monotonic() - start)
            elif status in BUSY:
                time.sleep(min(later, max(0.0, self.end - time.monotonic())))

    def _ask(self) -> tuple[int, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, 120, (self.source, 0))
        try:
            form = f"multipart/form-data; boundary={BOUNDARY}"
            connection.request("POST", self.path, self.body, {"Content-Type": form})
            answer = connection.getresponse()
            answer.read()
            return answer.status, float(answer.headers.get("Retry-After", 0))
        finally:
            connection.close()


@click.command(context_settings={"show_default": True})
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), required=True, multiple=True)
@click.option(
    "--photo", type=click.Path(path_type=Path, exists=True), help="Brought to 1 megapixel; else drawn."
)
@click.option("--clients", type=click.IntRange(1, 200), default=32)
@click.option("--seconds", type=click.IntRange(1, 600), default=60, help="No request starts later.")
@click.option("--concurrent", type=int, default=2, help="Analyses at once.")
@click.option("--full", is_flag=True, help="With explanation and stability.")
def main(
    bundle: tuple[Path, ...], photo: Path | None, clients: int, seconds: int, concurrent: int, full: bool
) -> None:
    """Latency and throughput, and that every answer is an analysis or says when to come again."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'.encode()
    body = head + megapixel(photo) + f"\r\n--{BOUNDARY}--\r\n".encode()
    path = PATH if full else f"{PATH}?explain=false&stability=false"
    command = [sys.executable, "-m", "crossfake.detect", "serve", "--no-page", "--port", "0"]
    command += [
        "--concurrent",
        str(concurrent),
        *(part for each in bundle for part in ("--bundle", str(each))),
    ]
    begun = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in server.stdout)))
        port = int(found[1])
        first, whole = Client(0, port, path, body, 0), Client(0, port, PATH, body, 0)
        print(f"healthy {time.monotonic() - begun:.2f} s after the start")
        print(f"first answer: {first._ask()[0]}, {time.monotonic() - begun:.2f} s after the start")
        for kind, client in (("verdict", first), ("whole analysis", whole)):
            client._ask()  # what it needs is loaded
            start = time.monotonic()
            alone = [client._ask()[0] for _ in range(5)]
            took = (time.monotonic() - start) / 5
            print(f"{kind}, alone: {alone.count(200)} of 5 answered, {took:.2f} s each")
        start = time.monotonic()
        threads = [Client(number, port, path, body, start + seconds) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.monotonic() - start
        status = Path(f"/proc/{server.pid}/status")
        peak = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(30)
    answers = sum((thread.answers for thread in threads), Counter[str]())
    times = [second for thread in threads for second in thread.seconds]
    print(f"{clients} clients, {wall:.0f} s, {os.cpu_count()} cores, {concurrent} at once: {dict(answers)}")
    if times:
        middle, high, most = np.quantile(times, [0.5, 0.95, 1.0])
        print(
            f"{len(times) / wall:.2f} analyses/s; median {middle:.2f} s, p95 {high:.2f} s, longest {most:.2f} s"
        )
    least, memory = (
        min(len(thread.seconds) for thread in threads),
        int(peak[1]) / 1024 if peak else float("nan"),
    )
    print(f"least served client: {least} analyses; server's peak memory {memory:,.0f} MiB; exit code {code}")
    wrong = set(answers) - {"200", *map(str, BUSY)}
    if wrong or code:
        raise SystemExit(f"errors: {sorted(wrong)}, exit code {code}")


if __name__ == "__main__":
    main()
