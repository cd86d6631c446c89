"""Explaining a user's own pictures: one PNG per face, and a JSON file with the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossfake.datasets.animation import is_animated
from crossfake.datasets.crops import GLANCE
from crossfake.datasets.decode import decode_image, file_bytes
from crossfake.datasets.geometry import Skip
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.folder import IMAGES, is_video, walk
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle
from crossfake.detect.explain.checks import check
from crossfake.detect.explain.methods import METHODS, Method, pick
from crossfake.detect.explain.networks import home
from crossfake.detect.explain.pixels import path_error
from crossfake.detect.explain.references import open_sets
from crossfake.detect.explain.windows import maps_of, middle
from crossfake.detect.prediction.output import printable
from crossfake.detect.settings import ExplainSettings
from crossfake.detect.verdict import Verdict
from crossfake.detect.wording import state
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.progress import tqdm

FIGURES, CHECK, CHECK_PICTURE = "explanations.json", "check.json", "check.png"
_NEAREST = 6


@dataclass(frozen=True)
class Explained:
    """One face or picture.

    Attributes:
        path: the file; control characters and broken bytes as escapes.
        face: its number in the file, from 1 for the largest.
        score: calibrated probability of being fake.
        picture: the PNG, None when the file could not be explained.
        reason: why not.
        figures: what the method says in numbers.
    """

    path: str
    face: int = 1
    score: float | None = None
    verdict: str = "not judged"
    picture: str | None = None
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def explain(settings: ExplainSettings) -> dict[str, Any]:
    """Write a PNG per face and ``explanations.json``; with ``check`` also ``check.json`` and ``check.png``.

    Returns:
        ``method``, ``explained`` (one :class:`Explained` per face, and per file that has none), ``check`` or None, and
        ``out``.

    Raises:
        UserError: the method does not work for the model, or nothing could be explained.
        MissingDependency: the method's package is not installed.
    """
    detector = bundle.load(settings.bundle, settings.device, face_model=settings.face_model)
    name = pick(detector.network, detector.size, settings.method)
    out = settings.out or detector.path.parent / "explanations"
    sets: list[ShardSet] = []
    if settings.check or METHODS.get(name).maps is None:
        sets = open_sets(settings.data, detector)
    explained = list(_explained(settings.photos, detector, name, sets, out))
    if explained and not any(one.picture for one in explained):
        first = explained[0]
        raise UserError(f"nothing could be explained: {first.path}: {first.reason}", hint="name other images")
    facts = {
        "bundle": str(settings.bundle),
        "model": detector.card["model"],
        "model_hash": detector.hash,
        "method": name,
        "threshold": detector.threshold,
    }
    found = None
    if settings.check:
        found = check(detector, sets, name, settings.images, settings.seed)
        hashes = {str(shards.path): shards.hash for shards in sets}
        _write(out / CHECK, {**facts, "data_hashes": hashes, **found})
        from crossfake.detect.explain.pictures import check_picture

        check_picture(found, out / CHECK_PICTURE)
    if explained:
        _write(out / FIGURES, {**facts, "explained": [vars(one) for one in explained]})
    return {"method": name, "explained": explained, "check": found, "out": str(out)}


def _explained(
    photos: Sequence[Path], detector: Any, name: str, sets: Sequence[ShardSet], out: Path
) -> Iterator[Explained]:
    files = list(_files(photos))
    if not files:
        if photos:
            raise UserError(
                f"there is no image in {photos[0]}", hint="name images, or folders that hold some"
            )
        return
    draw = _artist(detector, name, sets)
    taken: set[str] = set()
    for file in tqdm(files, unit="file", desc=f"explain {name}", disable=len(files) < 2):
        shown = printable(str(file))
        try:
            found = _crops(file, detector)
        except (UserError, Skip) as error:
            yield Explained(shown, reason=printable(getattr(error, "message", str(error))))
            continue
        for number, crop in enumerate(found, 1):
            if isinstance(crop, Skip):
                yield Explained(shown, number, reason=str(crop))
                continue
            (judged,) = detector.say(detector.judge([crop]))
            face = f", face {number}" if len(found) > 1 else ""
            title = f"{printable(file.name)}{face}: {_said(judged)}\n{name}"
            path = out / _free(file.stem + (f"-face{number}" if len(found) > 1 else ""), taken)
            figures = draw(crop, title, path)
            yield Explained(shown, number, judged.probability, judged.verdict, path.name, figures=figures)


def _said(found: Verdict) -> str:
    says = state(found)
    return says.headline + (f": {found.probability:.3f} for fake" if found.probability is not None else "")


def _crops(file: Path, detector: Any) -> list[Pixels | Skip]:
    """What the detector sees of a file: each face, the largest first, or the one square of another crop policy."""
    if is_video(file):
        raise UserError("not an image", hint="of a video, explain single frames")
    content = file_bytes(file)
    if is_animated(content):
        raise UserError("an animation", hint="explain single frames")
    if not detector.crop.finds_faces:
        return [detector.crop.open(content)]
    faces = detector.crop.each_face(content, decode_image(content, str(file), at_least=GLANCE))
    if not faces:
        raise Skip("no face")
    return [crop if isinstance(crop, Skip) else crop.image for _, crop in faces]


def _artist(
    detector: Any, name: str, sets: Sequence[ShardSet]
) -> Callable[[Pixels, str, Path], dict[str, Any]]:
    """What draws the picture of a crop and returns its figures."""
    from crossfake.detect.explain import pictures

    method: Method = METHODS.get(name)
    reference: Any = method.reference(detector, sets) if method.reference else None

    def overlay(crop: Pixels, title: str, path: Path) -> dict[str, Any]:
        if detector.view.whole:  # shown as the network sees it
            crop = middle(detector.view, crop)
        chart = maps_of(detector.network, detector.view, [crop], name)[0]
        pictures.overlay_picture(crop, chart, method.kind, title, path)
        row, column = np.unravel_index(int(chart.argmax()), chart.shape)
        figures = {
            "maximum": float(chart.max()),
            "at": [int(column), int(row)],
            "for_fake": float(np.maximum(chart, 0).sum()),
            "for_real": float(np.maximum(-chart, 0).sum()),
        }
        if name == "integrated-gradients" and (detector.view.whole or not detector.view.native):
            batch = torch.tensor(crop[None]).to(home(detector.network)).permute(0, 3, 1, 2).float() / 255
            error = path_error(detector.network, batch, torch.from_numpy(chart[None]).to(batch.device))
            figures["completeness_error"] = float(error)
        return figures

    def spectrum(crop: Pixels, title: str, path: Path) -> dict[str, Any]:
        crop = middle(detector.view, crop)
        found = reference.explain(crop)
        pictures.spectrum_picture(crop, found, reference, title, path)
        kept = {key: found[key].round(3).tolist() for key in ("profile", "profile_difference")}
        return {"high_frequency": found["high_frequency"], "reals": reference.count, **kept}

    def prototypes(crop: Pixels, title: str, path: Path) -> dict[str, Any]:
        found = reference.explain(crop, _NEAREST)
        pictures.prototypes_picture(crop, found, reference.images[found["nearest"]], title, path)
        pairs = zip(found["names"], found["labels"], found["similarity"], strict=True)
        nearest = [{"of": of, "label": int(label), "similarity": float(like)} for of, label, like in pairs]
        return {"nearest": nearest, "searched": len(reference.labels)}

    return {"spectrum": spectrum, "prototypes": prototypes}.get(name, overlay)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is not there", hint="check the path")
        if path.is_dir():
            yield from walk(path, IMAGES)
        else:
            yield path


def _free(stem: str, taken: set[str]) -> str:
    """A file name that any system can show, and that no other picture of this call has."""
    stem = "".join(c if c.isprintable() else "_" for c in stem)
    name, number = f"{stem}.png", 2
    while name in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name)
    return name


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --out") from error
