"""OpenForensics (Le et al. 2021): photos with several faces each, real and swapped side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.sources.base import (
    SOURCES,
    Record,
    Source,
    SourceSpec,
)
from crossfake.datasets.sources.folder import IMAGES, walk
from crossfake.datasets.sources.naming import label_of, split_of
from crossfake.datasets.types import Polygons
from crossfake.errors import UserError

_PARTS = ("Train", "Val", "Test-Dev", "Test-Challenge")


@SOURCES.register("openforensics")
class OpenForensics(Source):
    """``{Train,Val,Test-Dev,Test-Challenge}_poly.json`` in COCO style, and the images anywhere beside them.

    One record per annotated face. A photo can hold real and fake faces, so the photo is the group. An image is found
    by its file name alone: mirrors of the data set arrange the folders in different ways.
    """

    about = "115,325 faces in photos, real and swapped ones together, with outlines"
    has_masks = True

    def recognises(self, root: Path) -> bool:
        return any((root / f"{part}_poly.json").is_file() for part in _PARTS)

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        files: dict[str, list[Path]] = {}
        for path in walk(root, IMAGES):
            files.setdefault(path.name, []).append(path)
        for part in _PARTS:
            file = root / f"{part}_poly.json"
            if not file.is_file():
                spec.missing.add("annotations", file.name)
                continue
            try:
                yield from _part(spec, part, json.loads(file.read_text()), files)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{file} is not in COCO's format ({type(error).__name__}: {error})",
                    hint="download it again",
                ) from error

    def fixture(self, out: Path) -> Path:
        from PIL import Image

        from crossfake.datasets.sources.fixtures import write_json
        from crossfake.datasets.toyfaces import toyface

        for number, part in enumerate(_PARTS):
            images: list[Any] = []
            annotations: list[Any] = []
            for image in range(2):
                photo = np.full((120, 200, 3), 120, np.uint8)
                for index, (x, y) in enumerate(((10, 20), (110, 40))):
                    photo[y : y + 64, x : x + 64] = toyface((number, image, index), 64)
                    corners = [x, y, x + 64, y, x + 64, y + 64, x, y + 64]
                    annotations.append(
                        {
                            "id": len(annotations),
                            "image_id": image,
                            "category_id": index,
                            "bbox": [x, y, 64, 64],
                            "area": 4096,
                            "iscrowd": 0,
                            "segmentation": [corners],
                        }
                    )
                name = f"{part.lower()}{image:02d}.jpg"
                (out / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(photo).save(out / part / name)
                images.append(
                    {"id": image, "file_name": f"Images/{part}/{name}", "width": 200, "height": 120}
                )
            categories = [{"id": 0, "name": "Real"}, {"id": 1, "name": "Fake"}]
            write_json(
                out / f"{part}_poly.json",
                {"images": images, "annotations": annotations, "categories": categories},
            )
        return out


def _part(spec: SourceSpec, part: str, content: Any, files: dict[str, list[Path]]) -> Iterator[Record]:
    labels = {each["id"]: label_of(each["name"]) for each in content["categories"]}
    faces: dict[Any, list[Any]] = {}
    for annotation in content["annotations"]:
        faces.setdefault(annotation["image_id"], []).append(annotation)
    for image in content["images"]:
        name = str(image["file_name"]).replace("\\", "/").rsplit("/", 1)[-1]
        there = files.get(name, [])
        path = next((path for path in there if part in path.parts), there[0] if there else None)
        if path is None:
            spec.missing.add(f"image named by {part}_poly.json", name)
            continue
        for face in faces.get(image["id"], []):
            label = labels.get(face["category_id"])
            if label is None:
                spec.missing.add("category that is real or fake", str(face["category_id"]))
                continue
            x, y, width, height = (float(value) for value in face["bbox"])
            yield Record(
                path,
                origin=f"{part}/{name}:{face['id']}",
                source="openforensics",
                group=f"openforensics:{part}:{image['id']}",
                split=split_of(part),
                label=label,
                generator="openforensics" if label else "",
                box=(x, y, width, height),
                mask=_polygons(face.get("segmentation")),
            )


def _polygons(segmentation: Any) -> Polygons | None:
    if not isinstance(segmentation, list):
        return None
    return tuple(
        np.asarray(corners, np.float32).reshape(-1, 2) for corners in segmentation if len(corners) >= 6
    )
