"""One processing history for both classes, so that a detector can learn the forgery and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.audit.files import jpeg_quality
from crossfake.datasets.crops import Cropper, crop_words
from crossfake.datasets.decode import Unreadable, decode_image, file_bytes, open_image
from crossfake.datasets.faces import Face
from crossfake.datasets.geometry import Skip
from crossfake.datasets.leaks import SplitReport, split
from crossfake.datasets.prepare import Prepared, prepare
from crossfake.datasets.settings import Class, LaunderSettings, PrepareSettings, SplitSettings
from crossfake.datasets.shards import MANIFEST, SPLITS, ShardSet
from crossfake.datasets.sources.base import SOURCES, Member, Record, SourceSpec, open_source
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.sources.labelling import check_one_side
from crossfake.datasets.types import Pixels
from crossfake.datasets.video import read_frames
from crossfake.errors import UserError
from crossfake.progress import tqdm

_SAMPLE = 300  # pictures of each source that are measured
_SHRINK = (
    1.5  # every picture is made at least this much smaller: it wipes out the grid of an earlier compression
)
_SIZES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_QUALITIES = (50, 90)
_MARGINS = (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_ROOM = 0.9  # share of each source's pictures that must have room for the margin

_Measured = tuple[
    Pixels, Face | None, float
]  # blank pixels of the picture's size, the face, the JPEG quality


@dataclass(frozen=True)
class Laundered:
    """What came of it: what both classes share, each source's outcome, and the splits; size 0 for native pixels."""

    size: int
    quality: int
    margin: float
    sources: dict[str, Prepared]
    splits: SplitReport

    def folders(self, label: str) -> list[Path]:
        """The shard folders of ``real`` or ``fake``."""
        return [done.out for word, done in self.sources.items() if word.startswith(f"{label}: ")]

    def table(self) -> str:
        """What was done to each source, for a terminal."""
        size = f"{self.size}×{self.size}" if self.size else "native pixels"
        history = f"{size}, then JPEG of quality {self.quality} (4:2:0)"
        lines = [f"all pictures: margin {self.margin:g}, {history}"]
        for word, done in self.sources.items():
            lines += [f"\n{word}", done.table()]
        return "\n".join([*lines, "", self.splits.text()])


def launder(settings: LaunderSettings) -> Laundered:
    """Give both classes the same crop, resampling and compression, and splits that do not leak.

    Every picture is cropped alike, shrunk by at least half as much again to one size (one that would not shrink is
    left out: enlarging is a mark, too), and compressed once as JPEG. Margin, size and quality are chosen from the
    pictures, without looking at the label: the widest margin that nine of ten pictures of every source have room
    for, the largest size that nineteen of twenty shrink to, the lowest tenth of the qualities. In the end all are
    split together, near-duplicates on one side. What was done to a picture before leaves fewer traces, though not
    none: run the audit on the result.

    With ``like``, all three are those of an earlier laundering, so that what comes later (a new generator's fakes, to
    test on) has the same history. It is split together with what was laundered then, which stays where it is.

    Native pixels are not resized: they share the crop and the compression, and traces of what came before it stay.

    Raises:
        UserError: a source is not there or holds nothing usable, or ``like`` holds no laundered shards.
    """
    earlier: list[Path] = []
    if settings.like is not None:
        earlier, cropper, size, quality = _as_before(settings.like, settings.face_model)
    else:
        cropper, size, quality = _chosen(settings, [*settings.real, *settings.fake])
    crop: dict[str, Any] = {
        "crop": cropper.policy,
        "margin": cropper.margin,
        "edge": cropper.edge or None,
        "pixels": cropper.pixels,
        "min_size": cropper.min_size,
        **({} if cropper.native else {"size": size, "enlarge": 1.0}),
    }
    sides: tuple[tuple[Class, tuple[str, ...]], ...] = (("real", settings.real), ("fake", settings.fake))
    done, folders = {}, []
    for label, sources in sides:
        for word in sources:
            spec = SourceSpec(word)
            knows = check_one_side(spec)
            folder = settings.out / label / (spec.name if len(sources) > 1 else "")
            taken = itertools.count(2)  # two folders may be called the same
            while folder in folders:
                folder = settings.out / label / f"{spec.name}-{next(taken)}"
            folders.append(folder)
            done[f"{label}: {word}"] = prepare(
                PrepareSettings(
                    source=word,
                    out=folder,
                    generator=settings.generator if label == "fake" else "",
                    split=settings.split,
                    label=label,
                    only=label if knows else None,
                    limit=settings.limit,
                    history=quality,
                    workers=settings.workers,
                    face_model=settings.face_model,
                    seed=settings.seed,
                    **crop,
                )
            )
    together = tuple([*earlier, *folders])
    # what has just been prepared nothing has learned from: near-duplicates go together, and none need be set aside
    fresh = tuple(folder for folder in folders if not (folder / SPLITS).exists())
    splits = split(
        SplitSettings(together, settings.split, settings.seed, fresh=fresh, workers=settings.workers)
    )
    return Laundered(size, quality, cropper.margin, done, splits)


def _as_before(like: Path, face_model: Path | None) -> tuple[list[Path], Cropper, int, int]:
    """The shard folders of an earlier laundering, and the crop, size and quality that they all have."""
    folders = sorted(
        {file.parent for depth in ("", "*/", "*/*/") for file in like.glob(f"{depth}{MANIFEST}")}
    )
    hint = "name the --out of an earlier 'crossfake data launder'"
    if not folders:
        raise UserError(f"{like} holds no shards", hint=hint)
    sets = [ShardSet(folder) for folder in folders]
    for each in sets:
        treated = [(s.size, s.attributes.get("crop"), s.attributes.get("history")) for s in (sets[0], each)]
        if treated[0] != treated[1]:
            raise UserError(f"{sets[0].path} and {each.path} were treated in different ways", hint=hint)
    size, crop = sets[0].size, sets[0].attributes.get("crop")
    history = sets[0].attributes.get("history") or []
    steps = [re.fullmatch(r"jpeg (\d+) 4:2:0", str(step)) for step in history]
    if not (size or sets[0].native) or not isinstance(crop, dict) or len(steps) != 1 or steps[0] is None:
        was = ", ".join(map(str, history)) or "no common compression"
        raise UserError(f"{sets[0].path} was not laundered ({was})", hint=hint)
    cropper = Cropper.from_description(size or 0, crop, face_model)
    if (here := cropper.description()) != crop:
        raise UserError(
            f"{like} was cropped as {crop_words(crop)}, which is {crop_words(here)} here",
            hint="name the YuNet that it was cropped with as --face-model",
        )
    return folders, cropper, cropper.size, int(steps[0][1])


def _chosen(settings: LaunderSettings, words: list[str]) -> tuple[Cropper, int, int]:
    """The crop, size and quality of everything."""
    kind = {"pixels": settings.pixels, "min_size": settings.min_size}
    croppers = [Cropper(64, settings.crop, settings.margin, settings.face_model, **kind)]  # type: ignore[arg-type]
    if croppers[0].finds_faces:
        croppers[0].description()  # a missing face model is said before anything is read
        if not settings.margin and not croppers[0].native:
            croppers = [dataclasses.replace(croppers[0], margin=margin) for margin in _MARGINS]
    measured = {word: _measure(word, croppers[0]) for word in dict.fromkeys(words)}
    for word, pictures in measured.items():
        if not pictures:
            raise UserError(f"no picture of {word} could be cropped", hint="look at --crop")

    qualities = [quality for pictures in measured.values() for _, _, quality in pictures]
    quality = settings.quality or int(np.clip(np.quantile(qualities, 0.1), *_QUALITIES))
    if croppers[0].native:
        return croppers[0], 0, quality

    def sides(cropper: Cropper) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for word, pictures in measured.items():
            found[word] = []
            for image, face, _ in pictures:
                with contextlib.suppress(Skip):
                    found[word].append(cropper.side(image, face))
        return found

    for cropper in croppers:
        fitting = sides(cropper)
        if all(len(fitting[word]) >= _ROOM * len(measured[word]) for word in measured):
            break
    every = [side for found in fitting.values() for side in found]
    if not every:
        raise UserError(f"no picture could be cropped ({', '.join(words)})", hint="give a smaller --margin")
    limit = float(np.quantile(every, 0.05)) / _SHRINK
    size = settings.size or max((each for each in _SIZES if each <= limit), default=_SIZES[0])
    return cropper, size, quality


def _measure(word: str, cropper: Cropper) -> list[_Measured]:
    """What the choice rests on, of a sample of one source."""
    found = []
    for record in tqdm(_spread(SourceSpec(word)), desc=f"measure {word}", unit="img", leave=False):
        with contextlib.suppress(Skip, Unreadable, OSError):
            for image, quality in _pictures(record):
                (face, *_) = cropper.choose(image, None, None)
                # the face's surroundings are known from the size alone: pixels need not be kept
                found.append((np.broadcast_to(np.uint8(0), image.shape), face, quality))
    return found


def _spread(spec: SourceSpec) -> Iterator[Record]:
    """Records at even distances over the whole source."""
    total = SOURCES.get(spec.layout)().count(spec) or _SAMPLE
    wanted = {int((k + 0.5) * total / _SAMPLE) for k in range(_SAMPLE)}
    return (
        record for number, record in enumerate(itertools.islice(open_source(spec), total)) if number in wanted
    )


def _pictures(record: Record) -> Iterator[tuple[Pixels, float]]:
    """A record's picture, or two frames of its video, and the JPEG quality, 100 for what is no JPEG."""
    image = record.image
    if is_video(image) and isinstance(image, Path):
        yield from ((frame, 100.0) for _, frame in read_frames(image, 2))
    elif isinstance(image, np.ndarray):
        yield image, 100.0
    elif isinstance(image, Path | Member | bytes):
        content = file_bytes(image)
        yield decode_image(content, record.origin), _quality(content)


def _quality(content: bytes) -> float:
    with open_image(content) as image:
        tables = getattr(image, "quantization", None)
        return float(jpeg_quality(tables[min(tables)])[0]) if tables else 100.0
