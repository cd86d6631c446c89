"""Fakes in bulk: drawing, computing and writing overlap; any image can be made on its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from crossfake.datasets.firewall import OWN, Seen
from crossfake.datasets.locking import leave_folder, lock_folder
from crossfake.datasets.shard_writer import (
    WRITE_ERRORS,
    ShardFile,
    adopt_finished,
    listing,
)
from crossfake.datasets.shards import Row, ShardSet, read_manifest
from crossfake.datasets.types import Pixels
from crossfake.device import rank_world, team_name
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.files import write_json
from crossfake.progress import tqdm
from crossfake.runs import newest_run
from crossfake.synth.families.matching import match_spectrum
from crossfake.synth.sampling.latents import check_label, move
from crossfake.synth.sampling.models import Model, load_model, seen_by, untrained_model
from crossfake.synth.sampling.photos import Photos
from crossfake.synth.sampling.rejection import Rejection, Tile
from crossfake.synth.settings import GenerateSettings, Move
from crossfake.threads import Threads, choosing

T = TypeVar("T")
SHARD_ROWS = 10_000
DONE = "generated.json"


def generate(
    settings: GenerateSettings, ranks: tuple[int, int] | None = None, where: ExecutorSettings = LOCAL
) -> Path:
    """Make fakes and write them as shards; returns the folder.

    A killed call goes on where it stopped when it is repeated. Under torchrun each rank makes every
    world-size-th shard; the folder is the same as one process would have made. Who ends last writes ``generated.json``.

    Args:
        settings: what to make.
        ranks: number of this process and of those that make the images together; torchrun's when None.
        where: what makes the images: this process, or tasks of Ray; they are the same.

    Raises:
        UserError: there is no model, ``out`` holds something else, or another process writes there.
    """
    rank, world = ranks or rank_world()
    if where.is_ray and settings.reject:
        raise UserError("images are judged on one machine only", hint="leave --reject or Ray out")
    if where.is_ray and world > 1:
        raise UserError("Ray starts its workers itself", hint="start it without torchrun")
    with where.connected():
        make: Callable[..., int] = _make_shards
        if where.is_ray:  # this process only says what is to be made
            from crossfake.synth.sampling import cluster

            settings = cluster.settled(settings)
            make = partial(cluster.make_shards, asked=settings, where=where)
        generation = Generation(replace(settings, device="cpu") if where.is_ray else settings)
        with _writing(generation.out, team_name() if world > 1 else ""):
            _make(generation, rank, world, make)
    return generation.out


class Generation:
    """What one call of :func:`generate` makes: any of its images, with what is known of each.

    Attributes:
        settings: with the number of images and the split that were left open.
        model: makes them, moved as the settings say.
        photos: they are made of; None where they are made of vectors alone.
        rejection: which images are dropped; None where none are.
        out: folder of the shards.

    Raises:
        UserError: there is no model, or it cannot make what is asked for.
    """

    def __init__(self, settings: GenerateSettings) -> None:
        if settings.n and settings.split is None:
            settings = replace(settings, split="train")
        source, self.model = _model(settings)
        self.photos = _photos(self.model, settings)
        if self.photos and not settings.n:
            settings = replace(settings, n=len(self.photos.rows))
        self.settings = settings
        self.out = settings.out or _default_out(Path(source), settings)
        move(self.model, Move(settings.translate, settings.rotate))
        check_label(self.model, settings.label)
        self.rejection = Rejection.of(self.model, settings) if settings.reject else None
        if self.model.takes:  # too many are refused before any is written
            self.model.take(settings.n - 1, 1, settings.split or "")

    @cached_property
    def seen(self) -> Seen:
        """What the images come from: the rows that the model learned from, and the photos that it works on."""
        model, photos = self.model, self.photos
        has_learned = model.path != Path()  # a family with nothing to learn has no folder
        learned = (
            seen_by(model.path) if has_learned else Seen(by_name=model.card.get("learned_elsewhere", ()))
        )
        learned |= self.rejection.seen if self.rejection else Seen()
        return learned | photos.seen(self.settings.split) if photos else learned

    @property
    def attributes(self) -> dict[str, object]:
        """Of its shards: images of equal attributes and numbers are equal."""
        model, settings, photos = self.model, self.settings, self.photos
        made_of: dict[str, object] = {"photos": photos.shards.hash} if photos else {}
        if settings.compile:
            made_of["compiled"] = True
        if Move(settings.translate, settings.rotate):
            made_of |= {"translate": list(settings.translate), "rotate": settings.rotate}
        if settings.match_spectrum:
            made_of["spectrum"] = "photo"
        if self.rejection:
            made_of["reject"] = self.rejection.attributes
        return made_of | {
            "generator": model.name,
            "generator_hash": model.hash,
            "model": {key: model.card[key] for key in ("size", "channels", "kimg") if key in model.card},
            "psi": settings.trunc,
            "seed": settings.seed,
            "dtype": str(model.dtype).removeprefix("torch."),
            "crop": photos.shards.attributes.get("crop") if photos else model.card.get("crop"),
            "label": settings.label,
            "seen": self.seen.digest,
        }

    @property
    def size(self) -> int | None:
        """Side of all images in pixels; None where each has its own."""
        return self.photos.shards.size if self.photos else self.model.size

    def bytes_from(self, first: int) -> int:
        """How much image ``first`` and all after it take."""
        n = self.settings.n
        return self.photos.bytes_of(first, n) if self.photos else 3 * self.model.size**2 * (n - first)

    def tiles(self, first: int, last: int, drawer: ThreadPoolExecutor) -> Iterator[Tile]:
        """Images ``first`` to ``last - 1``; the next tile's vectors are drawn, and its photos read, in ``drawer`` while
        this one is computed."""
        if self.rejection:
            begin, end = self.rejection.drawn(first, last)
            tiles = self._drawn(begin, end, drawer)
            yield from self.rejection.kept(tiles, first, last, self.settings.label)
            return
        for begin, images in self._drawn(first, last, drawer):
            yield Tile(begin, images, [(begin + k, 0.0) for k in range(len(images))])

    def _drawn(self, first: int, last: int, drawer: ThreadPoolExecutor) -> Iterator[tuple[int, list[Pixels]]]:
        model, settings, photos = self.model, self.settings, self.photos

        def draw(tile: int) -> tuple[Tensor, tuple[list[Pixels], list[Pixels]] | None]:
            numbers = range(tile * model.tile, (tile + 1) * model.tile)
            return model.draw(tile, settings.seed), photos.read(numbers, settings.seed) if photos else None

        if model.takes:
            for begin in range(first, last, model.tile):
                yield begin, list(model.take(begin, min(model.tile, last - begin), settings.split or ""))
            return
        tiles = range(first // model.tile, -(-last // model.tile))
        for tile, (vectors, pairs) in zip(tiles, _ahead(drawer, draw, tiles), strict=True):
            begin = max(first, tile * model.tile)
            if pairs:
                images = model.edit(*pairs, vectors)
                if settings.match_spectrum:
                    images = [
                        match_spectrum(image, photo) for image, photo in zip(images, pairs[0], strict=True)
                    ]
            else:
                images = list(model.render(vectors, settings.trunc, model.labels(tile, settings.label)))
            yield begin, images[begin - tile * model.tile : last - tile * model.tile]

    def row(self, number: int, score: float = 0.0) -> Row:
        """What is known of the image of these latents; it was made for one side, and stays there."""
        model, settings = self.model, self.settings
        facts: dict[str, Any] = {
            "group": f"{model.hash[:8]}:{settings.seed}:{number}",
            "origin": str(number),
            "split": settings.split or "",
        }
        if self.photos:
            facts = self.photos.facts(number)
        if model.takes:  # those of its own pool: one video's frames stay together
            network: Any = model.network
            row, columns = int(network.rows(facts["split"])[number]), network.pool.columns
            facts["group"] = str(columns["group"][row]) or facts["group"]
            facts["origin"] = f"{number} of {columns['origin'][row]}"
        return Row(
            label=1,
            source=OWN,
            generator=model.name,
            seed=settings.seed,
            own_split=True,
            score=score,
            **facts,
        )


def _make(generation: Generation, rank: int, world: int, make: Callable[..., int]) -> None:
    """Write this process's shards, and ``generated.json`` where they are the last."""
    out, n, attributes = generation.out, generation.settings.n, generation.attributes
    done = _prepare_folder(out, attributes, n)
    if rank == 0:
        generation.seen.save(out)
    made_before = sum(done.values())
    _check_space(out, n - made_before, generation.bytes_from(made_before))
    shards = [k for k in range(-(-n // SHARD_ROWS)) if k not in done and k % world == rank]
    if rank == 0 and made_before < n:
        (out / DONE).unlink(missing_ok=True)  # of shards that were lost since
    started = time.monotonic()
    with tqdm(total=n, initial=made_before, unit="img", desc="generate", disable=rank > 0) as bar:
        made = make(generation, shards, bar)
    facts = {
        **attributes,
        "n": n,
        "made": made,
        "seconds": round(time.monotonic() - started, 2),
        "rank": rank,
        "processes": world,
    }
    with listing(out):  # one at a time looks whether it is the last
        whole = sum(int(line["count"]) for line in read_manifest(out)) == n
        if whole and (world == 1 or not (out / DONE).exists() or (rank == 0 and not shards)):
            write_json(out / DONE, facts)


def _make_shards(generation: Generation, shards: list[int], bar: tqdm) -> int:
    """Make the shards with these numbers here, one after the other; returns how many images were made."""
    made, attributes = 0, generation.attributes
    with (
        ThreadPoolExecutor(1) as drawer,
        ThreadPoolExecutor(1) as writer,
        _threads(generation, len(shards) * SHARD_ROWS) as threads,
    ):
        for k in shards:
            shard = _open_shard(generation.out, k, generation.size, attributes)
            bar.update(shard.rows)
            last = min((k + 1) * SHARD_ROWS, generation.settings.n)
            written: Future[None] | None = None
            for tile in threads.each(generation.tiles(k * SHARD_ROWS + shard.rows, last, drawer)):
                if written is not None:
                    written.result()  # at most one tile waits, so memory stays flat
                rows = [generation.row(number, score) for number, score in tile.drawn]
                written = writer.submit(_write, shard, tile.images, rows)
                bar.update(len(rows))
                made += len(rows)
            if written is not None:
                written.result()
            shard.close()
    return made


def _threads(generation: Generation, most: int) -> AbstractContextManager[Threads]:
    settings, model = generation.settings, generation.model
    computes = next(model.network.parameters(), None) is not None  # else there is nothing to choose
    tiles = min(most, settings.n) // model.tile if computes else 0
    return choosing(settings.threads, tiles, model.device, lambda _, words: tqdm.write(words))


def _model(settings: GenerateSettings) -> tuple[Path, Model]:
    """What makes the images, and where it is."""
    if settings.family:
        if settings.photos is None or settings.out is None:
            raise UserError(f"{settings.family} makes fakes of photos", hint="name --photos and --out")
        size = ShardSet(settings.photos).size or 0
        return settings.out, untrained_model(
            settings.family, size, str(settings.model or ""), settings.device, settings.precision
        )
    source = settings.model or newest_run("synth")
    if source is None:
        raise UserError(
            "there is no finished run under runs/",
            hint="train one with 'synth train --data DIR', name one with --model, or let 'crossfake demo' make one",
        )
    if settings.model is None:
        tqdm.write(f"no --model given: taking the newest finished run, {source}")
    model = load_model(source, settings.device, settings.precision)
    if settings.compile:
        _compile(model)
    return source, model


def _compile(model: Model) -> None:
    if model.takes or model.edits:
        raise UserError(f"{model.name} has no network to compile", hint="leave --compile out")
    model.network.compile(dynamic=False)  # tiles are all of one size
    try:
        model.images(0, 1)
    except Exception as error:  # a missing compiler shows in many ways
        raise UserError(
            f"the network cannot be compiled here ({str(error).strip().splitlines()[0]})",
            hint="install a C++ compiler, or leave --compile out",
        ) from error


def _default_out(source: Path, settings: GenerateSettings) -> Path:
    run = source.parent if source.name == "model" else source
    reject = f"-reject{settings.reject:g}" if settings.reject else ""
    return run / f"generated-n{settings.n}-psi{settings.trunc:g}-seed{settings.seed}{reject}"


def _photos(model: Model, settings: GenerateSettings) -> Photos | None:
    if settings.photos is None:
        if model.needs_photos:
            raise UserError(
                f"{model.family} makes fakes of photos", hint="name shards of real ones with --photos"
            )
        return None
    if not model.edits:
        raise UserError(f"{model.family} cannot work on photos", hint="leave --photos out")
    return Photos(settings.photos, settings.split, 0 if model.any_size else model.size, model.partnered)


@contextmanager
def _writing(out: Path, team: str) -> Iterator[None]:
    """A folder that no process of another team writes to meanwhile."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(out, team)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", hint="name another --out") from error
    try:
        yield
    finally:
        leave_folder(out, lock)


def _prepare_folder(out: Path, attributes: dict[str, object], n: int) -> dict[int, int]:
    """Finished shards and their counts; an ``out`` that holds other images is refused."""
    listed = adopt_finished(out)
    # what was begun before there was a record of what the generator learned from names none
    if listed and {"seen": attributes["seen"], **ShardSet(out).attributes} != json.loads(
        json.dumps(attributes)
    ):
        raise UserError(
            f"{out} holds images of another model or of other settings", hint="name another --out"
        )
    done = {int(Path(line["name"]).stem): int(line["count"]) for line in listed}
    if any(count != min(SHARD_ROWS, n - k * SHARD_ROWS) for k, count in done.items()):
        raise UserError(
            f"{out} holds {sum(done.values()):,} images of a run with another --n", hint="name another --out"
        )
    return done


def _check_space(out: Path, n: int, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{n:,} images take {needed / 1e9:,.3f} GB, and {out} has {free / 1e9:,.3f} GB free",
            hint="give a smaller number, or another folder",
        )


def _open_shard(out: Path, index: int, size: int | None, attributes: dict[str, object]) -> ShardFile:
    try:
        return ShardFile(out, index, size, "raw", attributes)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error})", hint="free some space and run it again") from error


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


def _write(shard: ShardFile, images: list[Pixels], rows: list[Row]) -> None:
    try:
        for image, row in zip(images, rows, strict=True):
            shard.append(image, row)
    except WRITE_ERRORS as error:
        raise UserError(
            f"cannot write {shard.path} ({error})", hint="free some space and run it again"
        ) from error
