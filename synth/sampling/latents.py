"""Pictures by seed: sheets, truncation sweeps and tables of mixed styles.

Seed s stands for image 0 of ``synth generate --seed s``: the same vector, the same tile, the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfake.errors import UserError
from crossfake.images import Images, captioned_sheet, save_png, to_uint8
from crossfake.options import Precision
from crossfake.progress import tqdm
from crossfake.runs import newest_run
from crossfake.synth.families.styles import StyleGenerator
from crossfake.synth.sampling.models import Model, load_model, random_vectors
from crossfake.synth.settings import GridSettings, Move

# Karras et al. 2019, sec. 3.1: styles of 4² and 8², of 16² and 32², and of all finer layers
LAYERS = {"coarse": slice(0, 4), "middle": slice(4, 8), "fine": slice(8, None)}
_MOST_CELLS = 10_000
_LEAST_SIDE = 64  # pixels of a cell, so that there is room for its caption


def open_model(path: Path | None, device: str = "auto", precision: Precision = "auto") -> Model:
    """The model that is named, else that of the newest finished run."""
    source = path or newest_run("synth")
    if source is None:
        raise UserError("there is no finished run under runs/", hint="name one with --model")
    if path is None:
        tqdm.write(f"no --model given: taking the newest finished run, {source}")
    return load_model(source, device, precision)


def has_styles(model: Model) -> bool:
    """Whether it is a StyleGAN: w can be truncated, mixed and projected onto."""
    return isinstance(model.network, StyleGenerator)


def styled(model: Model) -> StyleGenerator:
    """The network of a model that has styles; ``UserError`` for one without."""
    if not isinstance(model.network, StyleGenerator):
        raise UserError(f"{model.path} is a {model.family}, which has no styles", hint="name a stylegan2")
    return model.network


def move(model: Model, how: Move) -> None:
    """Move and turn all that the model makes from now on; ``UserError`` for one that cannot."""
    network, (right, down) = model.network, how.translate
    if isinstance(network, StyleGenerator) and network.movable:
        network.move((right, down), how.rotate)
    elif how:
        raise UserError(
            f"{model.path} is a {model.family}, whose pictures cannot be moved", hint="name a stylegan3"
        )


def vectors_of(model: Model, seeds: Sequence[int]) -> Tensor:
    """Image 0's Gaussian vector of every seed, ``[S, latent_dim]``."""
    if model.needs_photos:
        raise UserError(
            f"{model.path} only works on photos", hint="name a model that makes images of its own"
        )
    return torch.cat([random_vectors(1, seed, 0, int(model.network.latent_dim)) for seed in seeds])  # type: ignore[arg-type]


def check_label(model: Model, label: int | None) -> int:
    """How many classes a model has; ``UserError`` when the one that is asked for is none of them."""
    classes = len(model.card.get("classes", ()))
    if label is not None and not 0 <= label < classes:
        raise UserError(
            f"there is no class {label}: {model.name} has {classes or 'none'}",
            hint=f"give --label from 0 to {classes - 1}" if classes else "leave --label out",
        )
    return classes


def label_of(model: Model, count: int, label: int | None) -> Tensor | None:
    """One-hot classes ``[count, classes]`` of the one chosen, else the first, as image 0 has; None without classes."""
    classes = check_label(model, label)
    chosen = torch.full((count,), label or 0, device=model.device)
    return F.one_hot(chosen, classes).float() if classes else None


def render(model: Model, vectors: Tensor, psi: float = 1.0, label: int | None = None) -> Images:
    """Images of vectors ``[B, latent_dim]``, uint8 ``[B, size, size, 3]``.

    They are computed in whole tiles, filled up with zeros: another batch size may round differently.
    """
    labels = label_of(model, model.tile, label)
    tiles = [F.pad(part, (0, 0, 0, model.tile - len(part))) for part in vectors.split(model.tile)]
    return np.concatenate([model.render(tile, psi, labels) for tile in tiles])[: len(vectors)]


@torch.inference_mode()
def styles_of(model: Model, seeds: Sequence[int], psi: float, label: int | None) -> tuple[Tensor, Tensor]:
    """w of every seed and layer ``[S, num_ws, w_dim]``, and the Gaussian vectors they are made of."""
    network, vectors = styled(model), vectors_of(model, seeds).to(model.device)
    return network.styles(vectors[:, : network.z_dim], label_of(model, len(seeds), label), psi), vectors


@torch.inference_mode()
def synthesise(model: Model, ws: Tensor, noise: Sequence[Tensor]) -> Images:
    """Images of w per layer ``[B, num_ws, w_dim]`` and noise planes ``[B or 1, 1, r, r]``, in tiles."""
    images = []
    for k in range(0, len(ws), model.tile):
        part = slice(k, k + model.tile)
        planes = [plane if len(plane) == 1 else plane[part] for plane in noise]
        images.append(to_uint8(styled(model).synthesis(ws[part], planes, model.dtype)))
    return np.concatenate(images)


def draw_grid(settings: GridSettings) -> Path:
    """Write the sheet of ``synth grid``, a PNG; returns its path.

    Raises:
        UserError: there is no such model, or it cannot do what is asked of it.
    """
    model = open_model(settings.model, settings.device, settings.precision)
    move(model, Move(settings.translate, settings.rotate))
    rows, psis = settings.seeds, settings.trunc
    if settings.mix:
        sheet = mixing_table(model, rows, settings.columns or rows, settings.mix, psis[0], settings.label)
    else:
        sheet = grid(model, rows, psis, settings.label)
    save_png(sheet, settings.out)
    return settings.out


def grid(
    model: Model, seeds: Sequence[int], psis: Sequence[float] = (1.0,), label: int | None = None
) -> Images:
    """A sheet of numbered images, uint8 ``[H, W, 3]``; with several truncations a row a seed and a column each.

    Truncation: Karras et al. 2019, sec. 2.1.
    """
    _check_cells(len(seeds) * len(psis))
    vectors = vectors_of(model, seeds)
    cells = np.stack([render(model, vectors, psi, label) for psi in psis], axis=1)  # [S, P, size, size, 3]
    sweep = len(psis) > 1
    captions = [f"{seed} psi={psi:g}" if sweep else str(seed) for seed in seeds for psi in psis]
    return _sheet(cells.reshape(-1, *cells.shape[2:]), captions, len(psis) if sweep else None)


def mixing_table(
    model: Model,
    rows: Sequence[int],
    columns: Sequence[int],
    layers: str = "coarse",
    psi: float = 1.0,
    label: int | None = None,
) -> Images:
    """Every row's image with some layers' styles of every column's: a sheet uint8 ``[H, W, 3]`` (Karras et al. 2019).

    The images themselves are in the first column and the first row. Noise stays the row's.

    Args:
        model: one with styles.
        rows: seeds of the images that are changed.
        columns: seeds that styles are taken from.
        layers: ``coarse``, ``middle`` or ``fine``: which styles.
        psi: truncation of both.
        label: class of both.
    """
    _check_cells((len(rows) + 1) * (len(columns) + 1))
    network = styled(model)
    if layers not in LAYERS:
        raise UserError(f"there are no {layers!r} layers", hint=f"choose one of {', '.join(LAYERS)}")
    taken = range(network.num_ws)[LAYERS[layers]]
    if not taken:
        raise UserError(f"a generator of {model.size} pixels has no {layers} layers", hint="mix coarser ones")
    ws, vectors = styles_of(model, [*rows, *columns], psi, label)
    noise = network.split_noise(vectors)
    own, others = ws[: len(rows)], ws[len(rows) :]
    mixed = own.repeat_interleave(len(columns), dim=0)  # row by row
    mixed[:, taken.start : taken.stop] = others[:, taken.start : taken.stop].repeat(len(rows), 1, 1)
    sources = synthesise(model, ws, noise)
    planes = [plane[: len(rows)].repeat_interleave(len(columns), dim=0) for plane in noise]
    size, wide = model.size, len(columns)
    table = np.full((len(rows) + 1, wide + 1, size, size, 3), 255, np.uint8)
    table[1:, 0], table[0, 1:] = sources[: len(rows)], sources[len(rows) :]
    table[1:, 1:] = synthesise(model, mixed, planes).reshape(len(rows), wide, size, size, 3)
    captions = [layers, *map(str, columns)]
    for row in rows:
        captions += [str(row), *(f"{row} + {column}" for column in columns)]
    return _sheet(table.reshape(-1, size, size, 3), captions, wide + 1)


def _check_cells(count: int) -> None:
    if count > _MOST_CELLS:
        raise UserError(f"{count:,} images are too many for a sheet", hint="name fewer seeds")


def _sheet(images: Images, captions: list[str], columns: int | None) -> Images:
    times = math.ceil(_LEAST_SIDE / images.shape[1])
    return captioned_sheet(images.repeat(times, axis=1).repeat(times, axis=2), captions, columns)
