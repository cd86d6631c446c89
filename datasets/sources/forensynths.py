"""ForenSynths (Wang et al. 2020): ProGAN to train on and a dozen other generators to test on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import find_folders, subfolders, walk
from crossfake.datasets.sources.naming import split_of

_CLASSES = {"0_real": 0, "1_fake": 1}
_HOLDING = frozenset(_CLASSES)


@SOURCES.register("forensynths")
class ForenSynths(Source):
    """``[train|val|test/]GENERATOR/[CLASS/]{0_real,1_fake}/``; the training part names no generator: it is ProGAN's."""

    about = "13 CNN generators over many object classes"

    def recognises(self, root: Path) -> bool:
        return next(find_folders(root, _HOLDING, depth=3), None) is not None

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        for folder in find_folders(spec.path, _HOLDING):
            parts = list(folder.relative_to(spec.path).parts)
            at = next((place for place, part in enumerate(parts) if split_of(part)), None)
            split = split_of(parts[at]) if at is not None else ""
            rest = parts[at + 1 :] if at is not None else parts
            only_progan = split in ("train", "val") and len(rest) < 2
            generator = "progan" if only_progan else (rest or [spec.path.resolve().name])[0]
            for name, label in _CLASSES.items():
                if name not in subfolders(folder):
                    spec.missing.add("folder", (folder / name).relative_to(spec.path).as_posix())
                    continue
                for path in walk(folder / name):
                    yield Record(
                        path,
                        origin=path.relative_to(spec.path).as_posix(),
                        source="forensynths",
                        split=split,
                        label=label,
                        generator=generator if label else "",
                    )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        folders = (
            "train/airplane",
            "train/bird",
            "val/airplane",
            "test/biggan",
            "test/progan/cat",
            "test/progan/dog",
        )
        for number, folder in enumerate(folders):
            for name, label in _CLASSES.items():
                for index in range(2):
                    write_face(out / folder / name / f"{index:05d}.png", 100 * number + 10 * label + index)
        return out
