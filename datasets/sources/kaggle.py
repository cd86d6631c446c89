"""Kaggle's "deepfake and real images" (manjilkarki)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import subfolders, walk

_SPLITS = {"Train": "train", "Validation": "val", "Test": "test"}


@SOURCES.register("kaggle-deepfake-real")
class KaggleDeepfakeReal(Source):
    """``[Dataset/]{Train,Validation,Test}/{Real,Fake}/{real,fake}_N.jpg``, 256×256.

    Cut from OpenForensics: no test of generalisation for a detector that was trained there. Several faces of one
    photo may be among them, and the files do not say which: look for near-duplicates with ``crossfake data split``.
    """

    about = "faces cut from OpenForensics, 256×256, three splits"
    derived_from = ("openforensics",)

    def recognises(self, root: Path) -> bool:
        top = _top(root)
        return all({"Real", "Fake"} <= set(subfolders(top / split)) for split in _SPLITS) and all(
            re.fullmatch(r"(real|fake)_\d+", path.stem) for path in itertools.islice(walk(top / "Train"), 1)
        )

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        top = _top(spec.path)
        for folder, split in _SPLITS.items():
            for label, kind in enumerate(("Real", "Fake")):
                if not (top / folder / kind).is_dir():
                    spec.missing.add("folder", f"{folder}/{kind}")
                    continue
                for path in walk(top / folder / kind):
                    yield Record(
                        path,
                        origin=path.relative_to(spec.path).as_posix(),
                        source="kaggle-deepfake-real",
                        split=split,
                        label=label,
                        generator="openforensics" if label else "",
                    )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        for number, folder in enumerate(_SPLITS):
            for label, kind in enumerate(("Real", "Fake")):
                for index in range(3):
                    name = f"{kind.lower()}_{index}.jpg"
                    write_face(out / "Dataset" / folder / kind / name, 100 * number + 10 * label + index, 256)
        return out


def _top(root: Path) -> Path:
    return root / "Dataset" if (root / "Dataset").is_dir() else root
