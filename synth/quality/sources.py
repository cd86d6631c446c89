"""What can be measured: shards, a folder of pictures, or a model, whose images are made for it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from crossfake.datasets.prepare import PrepareSettings, prepare
from crossfake.datasets.shards import MANIFEST, ShardSet
from crossfake.errors import UserError
from crossfake.synth.generation import GenerateSettings, generate
from crossfake.synth.models import CARD

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def is_model(path: Path) -> bool:
    """Whether it is a model folder or a run that has one."""
    return any((folder / CARD).is_file() for folder in (path, path / "model"))


def opened(path: Path, label: str, work: Path, n: int, psi: float, seed: int, device: str) -> ShardSet:
    """The images of a path as shards; those of a folder or a model are written below ``work``.

    Args:
        path: shards, a folder of square pictures of one size, or a model or run.
        label: ``real`` or ``fake``: what the pictures of a folder are.
        work: where there is room.
        n: images that a model makes.
        psi: its truncation.
        seed: of these.
        device: where they are made.

    Raises:
        UserError: it is none of these, or the pictures differ in size.
    """
    if (path / MANIFEST).is_file():
        return ShardSet(path)
    if is_model(path):
        return ShardSet(generate(GenerateSettings(n, path, work / label, psi, seed, device=device)))
    if not path.is_dir():
        raise UserError(f"{path} is not there", mend="name shards, a folder of pictures, or a model")
    side = _side(path)
    prepare(PrepareSettings(str(path), work / label, size=side, crop="none", label=label, workers=1))
    return ShardSet(work / label)


def _side(folder: Path) -> int:
    """The size that all pictures of a folder have."""
    first: tuple[Path, tuple[int, int]] | None = None
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in _PICTURES:
            continue
        try:
            with Image.open(file) as image:
                size = image.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            continue  # preparing lists it with the reason
        first = first or (file, size)
        mend = "bring both sides to one size with 'crossfake data prepare --size 64'"
        if size[0] != size[1]:
            raise UserError(f"{file} is not square ({size[0]}×{size[1]})", mend=mend)
        if size != first[1]:
            raise UserError(
                f"{file} has {size[0]}×{size[1]} pixels and {first[0].name} {first[1][0]}×{first[1][1]}",
                mend=mend,
            )
    if first is None:
        raise UserError(f"{folder} holds neither shards nor pictures nor a model", mend="check the path")
    return first[1][0]
