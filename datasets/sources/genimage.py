"""GenImage (Zhu et al. 2023): ImageNet's classes drawn by eight generators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import find_folders, subfolders, walk
from crossfake.datasets.sources.naming import split_of

_CLASSES = {"nature": 0, "ai": 1}
_HOLDING = frozenset(_CLASSES)


@SOURCES.register("genimage")
class GenImage(Source):
    """``[…/]imagenet_ai_0508_adm/{train,val}/{ai,nature}/``.

    The published archives carry the date of their making in the name; the generator is what follows it. The same
    ImageNet photo stands under several generators as ``nature``: its file name is the group.
    """

    about = "ImageNet photos and eight generators' pictures of the same classes"

    def recognises(self, root: Path) -> bool:
        found = next(find_folders(root, _HOLDING, depth=4), None)
        return found is not None and found.name in ("train", "val")

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        for folder in find_folders(spec.path, _HOLDING):
            generator = generator_of(folder.parent.name)
            for name, label in _CLASSES.items():
                if name not in subfolders(folder):
                    spec.missing.add("folder", (folder / name).relative_to(spec.path).as_posix())
                    continue
                for path in walk(folder / name):
                    origin = path.relative_to(spec.path).as_posix()
                    yield Record(
                        path,
                        origin=origin,
                        source="genimage",
                        group=f"genimage:{origin}" if label else f"imagenet:{path.stem}",
                        split=split_of(folder.name),
                        label=label,
                        generator=generator if label else "",
                    )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        for number, name in enumerate(("ADM/imagenet_ai_0508_adm", "Midjourney/imagenet_midjourney")):
            for split, photo in (("train", "n01440764_{}.JPEG"), ("val", "ILSVRC2012_val_0000000{}.JPEG")):
                for index in range(2):
                    write_face(out / name / split / "nature" / photo.format(index), index)
                    write_face(
                        out / name / split / "ai" / f"{number}_{split}_{index}.png", 100 + 10 * number + index
                    )
        return out


def generator_of(folder: str) -> str:
    """
    Example:
        >>> generator_of("imagenet_ai_0508_adm"), generator_of("imagenet_midjourney"), generator_of("BigGAN")
        ('adm', 'midjourney', 'biggan')
    """
    return re.sub(r"^imagenet_(ai_)?(\d{4}_)?", "", folder.lower()) or folder.lower()
