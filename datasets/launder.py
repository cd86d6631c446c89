"""One processing history for both classes, so that a detector can learn the forgery and nothing else."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from crossfake.datasets.audit.files import jpeg_quality
from crossfake.datasets.crops import Cropper, Skip
from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.datasets.prepare import Prepared, PrepareSettings, prepare
from crossfake.datasets.sources import Asked, Member, Record, count, open_source
from crossfake.datasets.video import is_video, read_frames
from crossfake.errors import UserError

_SAMPLE = 300  # pictures of each source that are measured
_SHRINK = (
    1.5  # every picture is made at least this much smaller: it wipes out the grid of an earlier compression
)
_SIZES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_QUALITIES = (50, 90)


@dataclass(frozen=True)
class LaunderSettings:
    """Settings of :func:`launder`.

    Attributes:
        real: sources of real pictures, as :func:`~crossfake.datasets.prepare.prepare` takes them.
        fake: sources of fakes.
        out: folder for the shards of each source, below ``real/`` and ``fake/``.
        size: height and width; 0 chooses the largest at which nearly every picture shrinks.
        quality: JPEG quality that everything goes through; 0 chooses the lowest tenth of what the pictures had.
        crop: the crop policy.
        margin: side of the crop; 0 is the policy's own.
        limit: pictures of each source.
        split: shares of train, val and test.
        workers: processes; one per core when 0.
        face_model: YuNet's ONNX file.
        seed: for splits.
    """

    real: tuple[str, ...]
    fake: tuple[str, ...]
    out: Path
    size: int = 0
    quality: int = 0
    crop: str = "face"
    margin: float = 0.0
    limit: int | None = None
    split: str = "0.8/0.1/0.1"
    workers: int = 0
    face_model: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.real or not self.fake:
            raise UserError("laundering needs both classes", mend="give --real and --fake")
        if self.quality and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality} is out of range", mend="give one from 1 to 100")


@dataclass(frozen=True)
class Laundered:
    """What came of it: size and quality that both classes share, and each source's outcome."""

    size: int
    quality: int
    sources: dict[str, Prepared]

    def table(self) -> str:
        lines = [f"all pictures: {self.size}×{self.size}, then JPEG of quality {self.quality} (4:2:0)"]
        for word, done in self.sources.items():
            lines += [f"\n{word}", done.table()]
        return "\n".join(lines)


def launder(settings: LaunderSettings) -> Laundered:
    """Give both classes the same crop, resampling and compression.

    Every picture is cropped alike, shrunk by at least half as much again to one size (one that would not shrink is
    left out: enlarging is a mark, too), and compressed once as JPEG. Size and quality are chosen from all pictures
    together, without looking at the label. What was done to a picture before leaves fewer traces, though not none:
    run the audit on the result.

    Raises:
        UserError: a source is not there or holds nothing usable.
    """
    cropper = Cropper(64, settings.crop, settings.margin, settings.face_model)
    if cropper.finds_faces:
        cropper.description()  # a missing face model is said before anything is read
    words = [*settings.real, *settings.fake]
    size, quality = settings.size, settings.quality
    if not size or not quality:
        sides, qualities = _measure(words, cropper)
        if not sides:
            raise UserError(f"no picture could be cropped ({', '.join(words)})", mend="look at --crop")
        fitting = float(np.quantile(sides, 0.05)) / _SHRINK
        size = size or max((each for each in _SIZES if each <= fitting), default=_SIZES[0])
        quality = quality or int(np.clip(np.quantile(qualities, 0.1), *_QUALITIES))
    done = {}
    for label, sources in (("real", settings.real), ("fake", settings.fake)):
        for word in sources:
            asked = Asked(word)
            knows = next(open_source(asked)).label is not None
            done[f"{label}: {word}"] = prepare(
                PrepareSettings(
                    source=word,
                    out=settings.out / label / (asked.name if len(sources) > 1 else ""),
                    size=size,
                    crop=settings.crop,
                    margin=settings.margin,
                    split=settings.split,
                    label=label,
                    only=label if knows else None,
                    limit=settings.limit,
                    history=quality,
                    enlarge=1.0,
                    workers=settings.workers,
                    face_model=settings.face_model,
                    seed=settings.seed,
                )
            )
    return Laundered(size, quality, done)


def _measure(words: list[str], cropper: Cropper) -> tuple[list[float], list[float]]:
    """Sides of the crops and JPEG qualities (100 for what is no JPEG) of a sample of all sources."""
    sides: list[float] = []
    qualities: list[float] = []
    for word in words:
        for record in tqdm(_spread(Asked(word)), desc=f"measure {word}", unit="img", leave=False):
            try:
                for side, quality in _facts(record, cropper):
                    sides.append(side)
                    qualities.append(quality)
            except (Skip, Unreadable, OSError):
                continue
    return sides, qualities


def _spread(asked: Asked) -> Iterator[Record]:
    """Records at even distances over the whole source."""
    total = count(asked) or _SAMPLE
    wanted = {int((k + 0.5) * total / _SAMPLE) for k in range(_SAMPLE)}
    return (
        record
        for number, record in enumerate(itertools.islice(open_source(asked), total))
        if number in wanted
    )


def _facts(record: Record, cropper: Cropper) -> Iterator[tuple[float, float]]:
    image = record.image
    if is_video(image) and isinstance(image, Path):
        for _, frame in itertools.islice(read_frames(image, 2), 2):
            yield cropper.side(frame), 100.0
    elif isinstance(image, np.ndarray):
        yield cropper.side(image), 100.0
    elif isinstance(image, Path | Member | bytes):
        content = image if isinstance(image, bytes) else image.read_bytes()
        yield cropper.side(decode_image(content, record.origin)), _quality(content)


def _quality(content: bytes) -> float:
    with Image.open(io.BytesIO(content)) as image:
        tables = getattr(image, "quantization", None)
        return float(jpeg_quality(tables[min(tables)])[0]) if tables else 100.0
