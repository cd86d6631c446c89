"""Flickr-Faces-HQ (Karras et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import IMAGES, walk

_FOLDERS = ("images1024x1024", "thumbnails128x128")  # in the order of preference
_VALIDATION = 60_000  # the authors' split: the last 10,000 are for validation


@SOURCES.register("ffhq")
class FFHQ(Source):
    """``images1024x1024/00000/00000.png`` or ``thumbnails128x128/…``; the aligned faces of 70,000 photos."""

    about = "70,000 aligned faces from Flickr, real"

    def recognises(self, root: Path) -> bool:
        return any((root / name).is_dir() for name in _FOLDERS)

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root)
        for path in walk(folder, IMAGES):
            number = int(path.stem) if path.stem.isdecimal() else None
            yield Record(
                path,
                origin=path.relative_to(root).as_posix(),
                source="ffhq",
                group=f"ffhq:{path.stem}",
                split="" if number is None else "val" if number >= _VALIDATION else "train",
                label=0,
            )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        for number in (0, 1, 999, 1000, 69_999):
            write_face(
                out / "images1024x1024" / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png", number, 128
            )
        return out
