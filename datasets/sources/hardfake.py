"""Kaggle's "hard fake vs real faces" (hamzaboulahia)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import subfolders, walk


@SOURCES.register("hardfakevsrealfaces")
class HardFakeVsRealFaces(Source):
    """``{real,fake}/*.jpg`` and ``data.csv``: portraits from Unsplash, StyleGAN2's from thispersondoesnotexist."""

    about = "589 Unsplash portraits and 700 StyleGAN2 faces, 300×300"

    def recognises(self, root: Path) -> bool:
        if {"real", "fake"} != set(subfolders(root)) or not (root / "data.csv").is_file():
            return False
        with open(root / "data.csv", encoding="utf-8", errors="replace") as file:
            return "images_id" in file.readline(1000)

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        for label, name in enumerate(("real", "fake")):
            if not (spec.path / name).is_dir():
                spec.missing.add("folder", name)
                continue
            for path in walk(spec.path / name):
                yield Record(
                    path,
                    origin=path.relative_to(spec.path).as_posix(),
                    source="hardfakevsrealfaces",
                    label=label,
                    generator="stylegan2-ffhq" if label else "",
                )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        rows = ["images_id,label"]
        for label, name in enumerate(("real", "fake")):
            for number in range(4):
                write_face(out / name / f"{name}_{number}.jpg", 10 * label + number, 300)
                rows.append(f"{name}_{number},{name}")
        (out / "data.csv").write_text("\n".join(rows) + "\n")
        return out
