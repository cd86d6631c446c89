"""What can be measured: shards, a folder of pictures, or a model, whose images are made for it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import Class, PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import is_shards
from crossfake.datasets.sources.folder import is_video, walk
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import CARD
from crossfake.synth.settings import GenerateSettings

_HINT = "bring both sides to one size with 'crossfake data prepare --size 64'"


def is_model(path: Path) -> bool:
    """Whether it is a model folder or a run that has one."""
    return _card(path) is not None


def _card(path: Path) -> Path | None:
    return next((card for card in (path / CARD, path / "model" / CARD) if card.is_file()), None)


def check_reals(path: Path) -> None:
    """Whether reals can be there at all, before anything that takes long.

    Raises:
        UserError: there is no such folder, or it is a model.
    """
    _check_folder(path)
    if not is_shards(path) and is_model(path):
        raise UserError(f"{path} is a model", hint="name shards or pictures of reals with --real")


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise UserError(f"{path} {what}", hint="name shards, a folder of pictures, or a model")


def from_pictures(path: Path, label: Class, out: Path) -> tuple[ShardSet, str]:
    """A folder of square pictures of one size as shards.

    Args:
        path: the folder; pictures in folders below count too.
        label: ``real`` or ``fake``.
        out: where the shards go.

    Returns:
        The shards, and which pictures could not be read; empty if all could.

    Raises:
        UserError: there are none, they differ in size, or there are videos among them.
    """
    _check_folder(path)
    all_train = "1/0/0"  # pictures have no split: all are measured
    done = prepare(
        PrepareSettings(
            str(path), out, size=_side(path), crop="none", label=label, split=all_train, workers=1
        )
    )
    left_out = sum(done.skipped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done.skipped.items()))
    note = f"{left_out:,} of the pictures in {path} were left out: {reasons}" if left_out else ""
    return ShardSet(out), note


def from_model(
    path: Path,
    out: Path,
    n: int,
    psi: float,
    seed: int,
    device: str,
    size: int | None,
    where: ExecutorSettings = LOCAL,
) -> ShardSet:
    """``n`` images of a model or run, made for it.

    Raises:
        UserError: it makes images of another size.
    """
    card = _card(path)
    assert card is not None  # that is what makes it a model
    made = json.loads(card.read_text()).get("size")
    if size and made != size:
        raise UserError(f"{path} makes images of {made}², the reals have {size}²", hint=_HINT)
    return ShardSet(generate(GenerateSettings(n, path, out, psi, seed, device=device), where=where))


def _side(folder: Path) -> int:
    """The size that all pictures of a folder have."""
    first: tuple[Path, tuple[int, int]] | None = None
    for file in walk(folder):
        if is_video(file):
            raise UserError(f"{file} is a video", hint="make shards of it with 'crossfake data prepare'")
        try:
            with Image.open(file) as image:
                size = image.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            continue  # preparing says why
        first = first or (file, size)
        if size[0] != size[1]:
            raise UserError(f"{file} is not square ({size[0]}×{size[1]})", hint=_HINT)
        if size != first[1]:
            raise UserError(
                f"{file} has {size[0]}×{size[1]} pixels and {first[0].name} {first[1][0]}×{first[1][1]}",
                hint=_HINT,
            )
    if first is None:
        raise UserError(f"{folder} holds neither shards nor pictures nor a model", hint="check the path")
    return first[1][0]
