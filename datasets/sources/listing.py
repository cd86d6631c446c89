"""A table of files, for every data set that has no adapter here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.names import Names
from crossfake.datasets.sources.base import (
    ON_REQUEST,
    SOURCES,
    Record,
    Rejected,
    Source,
    SourceSpec,
    Stored,
    is_there,
    is_url,
)
from crossfake.datasets.sources.columns import FILES, LABELS, NoClass, class_of, file_of, group_of, rows
from crossfake.datasets.sources.folder import VIDEOS, slashed
from crossfake.datasets.sources.naming import SKIP, split_of
from crossfake.datasets.sources.objects import NO_VIDEOS, ending_of
from crossfake.datasets.sources.tallies import Classes
from crossfake.errors import UserError

_KNOWN = ("file", "label", "generator", "group", "split", "source", "seed")


@SOURCES.register("manifest")
class Manifest(Source):
    """A ``.csv`` with a header or a ``.jsonl``, on a disk or in an object store, streamed line by line.

    ``file`` is relative to the table's folder, or a URL. ``label`` is real or fake (or 0 or 1); ``generator``,
    ``group``, ``split``, ``source`` and ``seed`` may follow; other columns are left alone. Equal groups of one source
    belong together; a group with a colon in it, such as ``imagenet:n01440764_1``, is the same in every data
    set. Published tables have other names for some of these; see :mod:`~crossfake.datasets.sources.columns`.
    """

    has_videos = True
    takes_labels = True
    in_stores = True
    is_table = True
    about = "a CSV or JSONL table of files with what is known about each"

    def recognises(self, root: Path) -> bool:
        return root.suffix.lower() in (".csv", ".tsv", ".jsonl") and root.is_file()

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        table: Path | str = spec.url or spec.path
        base = spec.url.rpartition("/")[0] or spec.path.parent
        seen, folder = Names(), (Path(base) if spec.url else spec.path.resolve().parent).name
        for number, row in rows(table):
            name = file_of(row, base)
            if not name:
                raise UserError(
                    f"{table} line {number} names no file (its columns: {', '.join(filter(None, row))})",
                    hint=f"give it the columns {', '.join(_KNOWN)}; file may be called {', '.join(FILES[1:])}, too",
                )
            image = _image(name, base)
            if isinstance(image, Path) and not is_there(image):
                spec.missing.add("file", name)
                continue
            try:
                found = class_of(row, spec.labels)
            except NoClass as error:
                raise UserError(
                    f"{table} line {number}: {error}",
                    hint="write real or fake, or say what the words mean: --labels real=WORD,… fake=WORD,…",
                ) from error
            spec.matched.add(found.matched)
            label = found.label
            split = str(row.get("split") or "").strip()
            if split and not split_of(split):
                raise UserError(
                    f"{table} line {number}: {split!r} is no split", hint="write train, val or test"
                )
            source = str(row.get("source") or folder)
            group = group_of(row, name)
            yield Record(
                image if label != SKIP else ON_REQUEST,
                origin=name if seen.add(name) else f"{name}:{number}",
                source=source,
                group=f"{source}:{group}" if group and ":" not in group else group,
                split=split_of(split),
                label=label if label != SKIP else None,
                generator=found.generator,
                seed=_seed(row.get("seed")),
            )

    def classes(self, spec: SourceSpec) -> Classes | None:
        found = super().classes(spec)
        columns = next((row for _, row in rows(spec.url or spec.path)), {})
        if found and not set(LABELS).intersection(columns):
            found.columns = tuple(filter(None, columns))
        return found

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        lines = ["file,label,generator,group,split"]
        for number in range(6):
            write_face(out / "pictures" / f"{number}.png", number)
            lines.append(
                f"pictures/{number}.png,{('real', 'fake')[number % 2]},{('', 'mygan')[number % 2]},p{number // 2},train"
            )
        (out / "list.csv").write_text("\n".join(lines) + "\n")
        return out / "list.csv"


def _image(name: str, base: Path | str) -> Path | Stored | Rejected:
    """What a table's row is about, below the table's folder."""
    if isinstance(base, Path) and not is_url(name):
        return base / name
    url = name if is_url(name) else f"{base}/{slashed(name)}"
    return NO_VIDEOS if ending_of(url) in VIDEOS else Stored(url)


def _seed(value: object) -> int:
    try:
        seed = int(str(value))
    except ValueError:
        return -1
    return seed if -1 <= seed < 1 << 63 else -1
