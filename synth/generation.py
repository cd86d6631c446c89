"""Fakes in bulk: drawing, computing and writing overlap; any image can be made on its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from crossfake.datasets.shard_writer import ShardFile, adopt_finished
from crossfake.datasets.shards import Row
from crossfake.device import Precision, rank_world
from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.runs import newest_run, write_text
from crossfake.synth.models import Model, load_model

T = TypeVar("T")
SHARD_ROWS = 10_000
DONE = "generated.json"


@dataclass(frozen=True)
class GenerateSettings:
    """What to make.

    Attributes:
        n: number of images.
        model: run or model folder; the newest finished run when None.
        out: shard folder; named after n, psi and seed inside the run when None.
        trunc: truncation psi (Karras et al. 2019, sec. 2.1): 1 is all variety, less is fewer odd images.
        seed: image i depends on the model, this and i alone.
        split: what the rows' ``split`` column says.
    """

    n: int
    model: Path | None = None
    out: Path | None = None
    trunc: float = 1.0
    seed: int = 0
    split: str = "train"
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"{self.n} images cannot be made", mend="give --n 50000, say")
        if not 0 <= self.trunc <= 2:
            raise UserError(
                f"truncation psi {self.trunc} is out of range", mend="give --trunc between 0 and 1"
            )
        if self.seed < 0:
            raise UserError("a seed cannot be negative", mend="give --seed 0 or more")


def generate(settings: GenerateSettings) -> Path:
    """Make fakes and write them as shards; returns the folder.

    A killed call goes on where it stopped when it is repeated. Under torchrun each rank makes every
    world-size-th shard; the folder is the same as one process would have made.

    Raises:
        UserError: there is no model, or ``out`` holds something else.
    """
    source = settings.model or newest_run("synth")
    if source is None:
        raise UserError(
            "there is no finished run under runs/",
            mend="train one with 'synth train --data DIR', name one with --model, or let 'crossfake demo' make one",
        )
    if settings.model is None:
        tqdm.write(f"no --model given: taking the newest finished run, {source}")
    model = load_model(source, settings.device, settings.precision)
    out = settings.out or _default_out(Path(source), settings)
    rank, world = rank_world()
    attributes = _attributes(model, settings)
    done = _prepare_folder(out, attributes, settings.n)
    shards = [k for k in range(-(-settings.n // SHARD_ROWS)) if k not in done and k % world == rank]
    started, made = time.monotonic(), 0
    with (
        tqdm(
            total=settings.n, initial=sum(done.values()), unit="img", desc="generate", disable=rank > 0
        ) as bar,
        ThreadPoolExecutor(1) as drawer,
        ThreadPoolExecutor(1) as writer,
    ):
        for k in shards:
            shard = _open_shard(out, k, model, attributes)
            bar.update(shard.rows)
            last = min((k + 1) * SHARD_ROWS, settings.n)
            first = k * SHARD_ROWS + shard.rows
            written: Future[None] | None = None
            for begin, images in _tiles(model, settings, first, last, drawer):
                if written is not None:
                    written.result()  # at most one tile waits, so memory stays flat
                written = writer.submit(_write, shard, model, settings, begin, images)
                bar.update(len(images))
                made += len(images)
            if written is not None:
                written.result()
            shard.close()
    seconds = time.monotonic() - started
    if _count(out) == settings.n:
        facts = {**attributes, "n": settings.n, "made": made, "seconds": round(seconds, 2)}
        write_text(out / DONE, json.dumps(facts, indent=2) + "\n")
    return out


def _default_out(source: Path, settings: GenerateSettings) -> Path:
    run = source.parent if source.name == "model" else source
    return run / f"generated-n{settings.n}-psi{settings.trunc:g}-seed{settings.seed}"


def _attributes(model: Model, settings: GenerateSettings) -> dict[str, object]:
    return {
        "generator": model.name,
        "generator_hash": model.hash,
        "model": {key: model.card[key] for key in ("size", "channels", "kimg") if key in model.card},
        "psi": settings.trunc,
        "seed": settings.seed,
        "dtype": str(model.dtype).removeprefix("torch."),
        "crop": model.card.get("crop"),
    }


def _prepare_folder(out: Path, attributes: dict[str, object], n: int) -> dict[int, int]:
    """Finished shards and their counts; an ``out`` that holds other images is refused."""
    from crossfake.datasets.shards import ShardSet

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", mend="name another --out") from error
    listed = adopt_finished(out)
    if listed and ShardSet(out).attributes != json.loads(json.dumps(attributes)):
        raise UserError(f"{out} holds images of another model, seed or truncation", mend="name another --out")
    done = {int(Path(line["name"]).stem): int(line["count"]) for line in listed}
    if any(count != min(SHARD_ROWS, n - k * SHARD_ROWS) for k, count in done.items()):
        raise UserError(
            f"{out} holds {sum(done.values()):,} images of a run with another --n", mend="name another --out"
        )
    return done


def _count(out: Path) -> int:
    return sum(int(line["count"]) for line in adopt_finished(out))


def _open_shard(out: Path, index: int, model: Model, attributes: dict[str, object]) -> ShardFile:
    try:
        return ShardFile(out, index, model.size, "raw", attributes)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error})", mend="free some space and run it again") from error


def _tiles(
    model: Model, settings: GenerateSettings, first: int, last: int, drawer: ThreadPoolExecutor
) -> Iterator[tuple[int, Images]]:
    """Images ``first`` to ``last - 1`` with the number each tile begins at; the next tile's vectors are drawn
    while this one is computed."""
    numbers = range(first // model.tile, -(-last // model.tile))
    for tile, vectors in zip(
        numbers, _ahead(drawer, lambda t: model.draw(t, settings.seed), numbers), strict=True
    ):
        begin = max(first, tile * model.tile)
        images = model.render(vectors, settings.trunc)
        yield begin, images[begin - tile * model.tile : last - tile * model.tile]


def _ahead(pool: ThreadPoolExecutor, work: Callable[[int], T], items: Iterable[int]) -> Iterator[T]:
    """``map`` in a thread, one item ahead of the consumer."""
    waiting: Future[T] | None = None
    for item in items:
        submitted = pool.submit(work, item)
        if waiting is not None:
            yield waiting.result()
        waiting = submitted
    if waiting is not None:
        yield waiting.result()


def _write(shard: ShardFile, model: Model, settings: GenerateSettings, begin: int, images: Images) -> None:
    try:
        for number, image in enumerate(images, begin):
            shard.append(
                image,
                Row(
                    label=1,
                    source="synth",
                    generator=model.name,
                    split=settings.split,
                    own_split=True,  # fakes were made for one side, and stay there
                    group=f"{model.hash[:8]}:{settings.seed}:{number}",
                    seed=settings.seed,
                    origin=str(number),
                ),
            )
    except OSError as error:
        raise UserError(
            f"cannot write {shard.path} ({error})", mend="free some space and run it again"
        ) from error
