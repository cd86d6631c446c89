"""CelebA, aligned and cropped (Liu et al. 2015)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import IMAGES, walk
from crossfake.errors import UserError

_SPLITS = {"0": "train", "1": "val", "2": "test"}
_LISTS = ("list_eval_partition", "identity_CelebA")


@SOURCES.register("celeba")
class CelebA(Source):
    """``img_align_celeba/000001.jpg``, ``list_eval_partition.txt`` (0 train, 1 val, 2 test), ``identity_CelebA.txt``.

    The lists may lie in a folder of their own (``Eval``, ``Anno``) and may be Kaggle's CSV. The person is the group.
    """

    about = "202,599 aligned faces of 10,177 celebrities, real"

    def recognises(self, root: Path) -> bool:
        return (root / "img_align_celeba").is_dir() or _list(root, "list_eval_partition") is not None

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        found = {name: _list(root, name) for name in _LISTS}
        for name, file in found.items():
            if file is None:
                spec.missing.add("list", f"{name}.txt")
        split, person = (_column(file) if (file := found[name]) else {} for name in _LISTS)
        folder = next(
            (root / f for f in ("img_align_celeba", "Img/img_align_celeba") if (root / f).is_dir()), root
        )
        seen = 0
        for path in walk(folder, IMAGES):
            seen += path.name in split
            yield Record(
                path,
                origin=path.relative_to(root).as_posix(),
                source="celeba",
                group=f"celeba:{person[path.name]}" if path.name in person else "",
                split=_SPLITS.get(split.get(path.name, ""), ""),
                label=0,
            )
        if len(split) > seen:
            spec.missing.add(
                f"of the images that {_LISTS[0]} names", f"{len(split) - seen:,} of {len(split):,}"
            )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        names = [f"{number:06d}.jpg" for number in range(1, 9)]
        for number, name in enumerate(names):
            write_face(out / "img_align_celeba" / name, number // 2, 128)
        splits = "00001122"
        (out / "list_eval_partition.txt").write_text(
            "".join(f"{n} {s}\n" for n, s in zip(names, splits, strict=True))
        )
        (out / "identity_CelebA.txt").write_text(
            "".join(f"{n} {2880 + i // 2}\n" for i, n in enumerate(names))
        )
        return out


def _list(root: Path, name: str) -> Path | None:
    places = (
        root / folder / f"{name}{suffix}" for folder in ("", "Eval", "Anno") for suffix in (".txt", ".csv")
    )
    return next((file for file in places if file.is_file()), None)


def _column(file: Path) -> dict[str, str]:
    """File name to the value beside it."""
    with open(file, newline="", errors="replace") as lines:
        rows = csv.reader(lines) if file.suffix == ".csv" else (line.split() for line in lines)
        values = {}
        for number, row in enumerate(rows, 1):
            if row and len(row) < 2:
                raise UserError(f"{file} line {number} has no value", hint="download it again")
            if row and row[1].lstrip("-").isdecimal():  # Kaggle's file has a header
                values[row[0]] = row[1]
    return values
