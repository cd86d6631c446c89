"""Projected photos on disk: one photo with its figures, or a shard folder of hard fakes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.datasets.geometry import Skip
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import MANIFEST, Row, ShardSet
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.images import Images, contact_sheet, save_png
from crossfake.progress import tqdm
from crossfake.stopping import Stopper
from crossfake.synth.sampling.latents import open_model, styled
from crossfake.synth.sampling.models import Model, seen_by
from crossfake.synth.sampling.perception import Perception, choose_perception
from crossfake.synth.sampling.projection import Projection, project
from crossfake.synth.settings import ProjectSettings

PICTURE, LATENTS, FIGURES = "projected.png", "projected.safetensors", "projected.json"
_FACE_POLICIES = ("face", "square")


def _open(settings: ProjectSettings) -> tuple[Model, Perception]:
    model = open_model(settings.model, settings.device, settings.precision)
    styled(model)  # a model without styles is refused before any photo is read
    perception = choose_perception(model, settings.lpips_net, settings.lpips_weights)
    tqdm.write(f"distance: {perception.name}")
    return model, perception


def project_photo(settings: ProjectSettings) -> dict[str, Any]:
    """Project one picture; a square of the model's own size is taken as it is, any other cropped as its training was.

    Writes ``projected.png`` (the crop and its projection), ``projected.safetensors`` (``ws [num_ws, w_dim]`` and the
    layers' noise) and ``projected.json``, whose content is returned.

    Raises:
        UserError: the picture cannot be read, shows no face where one is needed, or the model has no styles.
    """
    model, perception = _open(settings)
    photo = _crop(settings.photos, model)[None]
    started = time.monotonic()
    found = project(model, photo, settings.space, settings.steps, perception)
    figures = {
        "photo": settings.photos.name,
        "generator": model.name,
        "space": settings.space,
        "steps": settings.steps,
        "perception": found.perception,
        "distance": found.distance[0],
        "distance_of_mean": found.start[0],
        "psnr": found.psnr[0],
        "seconds": round(time.monotonic() - started, 2),
    }
    save_png(contact_sheet(np.concatenate([photo, found.images]), columns=2, pad=0), settings.out / PICTURE)
    planes = {f"noise{k}": plane[0].contiguous().cpu() for k, plane in enumerate(found.noise)}
    save_file({"ws": found.ws[0].contiguous().cpu(), **planes}, settings.out / LATENTS)
    write_json(settings.out / FIGURES, figures)
    return figures


def project_set(settings: ProjectSettings) -> dict[str, Any]:
    """Project every real of a shard folder into shards of fakes that keep the photo's group and split.

    A folder of photos is prepared first, into ``OUT-photos``: cropped as the model's training images were, grouped and
    split, so the reals stand beside their fakes. A killed call goes on where it stopped when it is repeated. Besides
    the shards it writes ``projected.json``, one line of figures per image, and a sheet of photos over projections.

    Raises:
        UserError: the photos are of another size or crop than the model's, or ``out`` holds something else.
    """
    model, perception = _open(settings)
    photos = _photos(settings, model)
    rows = photos.select(label=0)
    if not len(rows):
        raise UserError(f"{photos.path} holds no reals", hint="name shards of real photos")
    seen = seen_by(model.path)
    facts = {
        "photos": photos.hash,
        "generator": model.name,
        "generator_hash": model.hash,
        "crop": photos.attributes.get("crop"),
        "projection": {"space": settings.space, "steps": settings.steps, "perception": perception.name},
    }
    lines = _Figures(settings.out / FIGURES)
    with (
        Stopper() as stopper,
        ShardWriter(settings.out, model.size, attributes=facts) as writer,
        tqdm(total=len(rows), initial=writer.rows_done, desc="photos", unit="img", position=1) as bar,
    ):
        seen.save(settings.out)
        for k in range(writer.rows_done, len(rows), model.tile):
            part = rows[k : k + model.tile]
            images = photos.read_many(part)
            found = project(model, images, settings.space, settings.steps, perception)
            made = [_row(photos, int(row), model) for row in part]
            writer.extend(found.images, made)
            lines.add(made, found)
            if k == 0:
                save_png(_pairs(images, found.images), settings.out / PICTURE)
            bar.update(len(part))
            if stopper.asked and k + len(part) < len(rows):
                raise UserError(f"stopped after {k + len(part)} photos", hint="repeat the command to go on")
    return {"images": len(rows), "generator": facts["generator"], **lines.means()}


def _crop(path: Path, model: Model) -> Images:
    image = decode_image(path)
    if image.shape[:2] == (model.size, model.size):
        return image
    cropper = Cropper.from_description(model.size, model.card.get("crop") or {})
    try:
        return cropper(image)
    except Skip as reason:
        raise UserError(
            f"{path} cannot be cropped ({reason})",
            hint=f"name another, or a crop of {model.size}×{model.size} pixels",
        ) from reason


def _photos(settings: ProjectSettings, model: Model) -> ShardSet:
    """The shards to project, made from a folder where it is none."""
    crop: dict[str, Any] = model.card.get("crop") or {}
    policy, edge = crop.get("policy", "none"), crop.get("edge", "skip")
    margin = float(crop.get("margin", 0.0))
    folder = settings.photos
    if not (folder / MANIFEST).is_file():
        folder = settings.out.with_name(settings.out.name + "-photos")
        prepare(
            PrepareSettings(
                str(settings.photos),
                folder,
                model.size,
                policy,
                float(margin),
                edge=edge,
                label="real",
                workers=1,
            )
        )
    photos = ShardSet(folder)
    given = photos.attributes.get("crop") or {}
    alike = [
        (c.get("policy"), round(float(c.get("margin", 1)), 3), c.get("edge", "skip")) for c in (crop, given)
    ]
    if photos.size != model.size or (crop and given and alike[0] != alike[1]):
        wanted = f"--size {model.size} --crop {policy}" + (f" --margin {margin:g}" if margin else "")
        wanted += f" --edge {edge}" if edge != "skip" else ""
        raise UserError(
            f"{folder} is not cropped as the model's images were", hint=f"prepare it with {wanted}"
        )
    return photos


def _row(photos: ShardSet, row: int, model: Model) -> Row:
    """The photo's person is in it, so it stays with the photo."""
    columns = photos.columns
    return Row(
        label=1,
        source="synth",
        generator=f"{model.name}:projected",
        split=str(columns["split"][row]),
        group=str(columns["group"][row]),
        origin=str(columns["origin"][row]),
        own_split=True,
    )


def _pairs(photos: Images, images: Images, most: int = 16) -> Images:
    """Photos over their projections."""
    shown = min(most, len(photos))
    return contact_sheet(np.concatenate([photos[:shown], images[:shown]]), columns=shown)


class _Figures:
    """Figures by the photo's origin, kept in a file from call to call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.by_origin: dict[str, dict[str, float]] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.by_origin = {}

    def add(self, rows: list[Row], found: Projection) -> None:
        for row, distance, start, psnr in zip(rows, found.distance, found.start, found.psnr, strict=True):
            self.by_origin[row.origin] = {"distance": distance, "distance_of_mean": start, "psnr": psnr}
        write_json(self.path, self.by_origin)

    def means(self) -> dict[str, float]:
        rows = list(self.by_origin.values())
        return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}
