"""Tar shards of WebDataset: files of one name and several endings are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfake.datasets.sources.base import (
    ON_REQUEST,
    SOURCES,
    Record,
    Rejected,
    Source,
    SourceSpec,
    Stored,
)
from crossfake.datasets.sources.columns import NoClass, class_of, clean, group_of, open_binary
from crossfake.datasets.sources.folder import IMAGES, VIDEOS, is_clutter, is_hidden, slashed, walk
from crossfake.datasets.sources.naming import SKIP, label_of, split_of
from crossfake.datasets.sources.objects import ending_of, listing
from crossfake.errors import UserError
from crossfake.executor import map_in_order

_TAR = ".tar"
_FACTS = 1 << 20  # bytes of a sample's description at most
_NO_VIDEO = Rejected("video in an archive", "unpack it")


@dataclass
class Sample:
    """One sample of a shard.

    Attributes:
        name: of the picture in the shard.
        start, size: its bytes in the shard; those of a video are not asked for.
        facts: what its ``.cls`` and ``.json`` say.
    """

    name: str = ""
    start: int = 0
    size: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@SOURCES.register("webdataset")
class WebDataset(Source):
    """``train-000000.tar`` with ``0001.jpg``, ``0001.cls``, ``0001.json``, …; one file, or a folder of them.

    ``cls`` is a class: a number, 1 being fake, or a word. ``json`` is an object with the names that tables have for
    columns: label, generator, group, split. A sample without either has the label of its folder in the shard, if that
    has a name for it. Shards are listed where the work is done, some at a time; nothing is unpacked.
    """

    takes_labels = True
    is_table = True
    in_stores = True
    listed_once = True
    about = "tar shards of WebDataset"

    def recognises(self, root: Path) -> bool:
        if root.is_file():
            return root.suffix.lower() == _TAR
        return bool(_below(root)) and next(walk(root, IMAGES), None) is None

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        shards = _shards(spec)
        tasks = map_in_order(_index, (place for _, place in shards), workers=1, where=spec.where)
        source = spec.path.resolve().name.removesuffix(_TAR)
        for (shard, _), (place, samples) in zip(shards, tasks, strict=True):
            of_shard = next(
                filter(None, map(split_of, [Path(shard).name.split("-")[0], *shard.split("/")])), ""
            )
            for sample in samples:
                yield _record(spec, f"{shard}/{sample.name}", sample, place, source, of_shard)

    def fixture(self, out: Path) -> Path:
        """Two shards with three faces each."""
        import io

        from crossfake.datasets.sources.fixtures import face_bytes

        out.mkdir(parents=True, exist_ok=True)
        for shard in range(2):
            with tarfile.open(out / f"train-{shard:06d}.tar", "w") as tar:
                for number in range(3 * shard, 3 * shard + 3):
                    facts = {"label": ("real", "fake")[number % 2], "generator": ("", "mygan")[number % 2]}
                    for ending, content in (
                        ("png", face_bytes(number, "PNG")),
                        ("json", json.dumps(facts).encode()),
                    ):
                        item = tarfile.TarInfo(f"{number:06d}.{ending}")
                        item.size = len(content)
                        tar.addfile(item, io.BytesIO(content))
        return out


def _below(root: Path) -> list[Path]:
    """Shards up to two folders down."""
    if not root.is_dir():
        return []
    found = [path for depth in range(3) for path in root.glob("*/" * depth + f"*{_TAR}")]
    return sorted(path for path in found if not is_hidden(path.relative_to(root).as_posix()))


def _shards(spec: SourceSpec) -> list[tuple[str, str]]:
    """Names of the shards below the source, and where each is."""
    if spec.url and ending_of(spec.url) == _TAR:
        return [(spec.path.name, spec.url)]
    if spec.url:
        names = sorted(name for name in listing(spec.url) if ending_of(name) == _TAR and not is_hidden(name))
        return [(name, f"{spec.url}/{name}") for name in names]
    if spec.path.is_file():
        return [(spec.path.name, str(spec.path.absolute()))]
    return [(path.relative_to(spec.path).as_posix(), str(path.absolute())) for path in _below(spec.path)]


def _index(place: str) -> list[Sample]:
    """The samples of a shard in its order; of the pictures only the headers are read.

    Raises:
        UserError: it is damaged, compressed, or not there.
    """
    found: dict[str, Sample] = {}
    try:
        with open_binary(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for item in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
                _add(found, tar, item)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(
            f"{place} is not a whole tar archive without compression ({error})", hint="download or unpack it"
        ) from error
    return [sample for sample in found.values() if sample.name]


def _add(found: dict[str, Sample], tar: tarfile.TarFile, item: tarfile.TarInfo) -> None:
    """Take note of one file of a shard."""
    path = slashed(item.name).removeprefix("./")
    if not item.isfile() or is_hidden(path) or is_clutter(path):
        return
    folder, _, last = path.rpartition("/")
    sample = found.setdefault(f"{folder}/{last.partition('.')[0]}", Sample())
    ending = ending_of(path)
    if ending in IMAGES | VIDEOS and not sample.name:
        sample.name, sample.start, sample.size = path, item.offset_data, item.size
    elif ending in (".cls", ".json") and item.size <= _FACTS:
        file = tar.extractfile(item)
        text = file.read().decode("utf-8", "replace").strip() if file else ""
        said = {"label": text} if ending == ".cls" else json.loads(text)
        if isinstance(said, dict):
            sample.facts |= {clean(name): value for name, value in said.items()}


def _record(spec: SourceSpec, origin: str, sample: Sample, place: str, source: str, of_shard: str) -> Record:
    try:
        found = class_of(sample.facts, spec.labels)
    except NoClass as error:
        raise UserError(
            f"{place}: {sample.name}: {error}",
            hint="say what the words mean: --labels real=WORD,… fake=WORD,…",
        ) from error
    label = found.label
    if not found.stated:
        folders = reversed(sample.name.split("/")[:-1])
        labels = (spec.labels.get(folder, label_of(folder)) for folder in folders)
        label = next((each for each in labels if each is not None), None)
    image: Stored | Rejected = Stored(place, sample.start, sample.size)
    if label == SKIP:
        image = ON_REQUEST
    elif ending_of(sample.name) in VIDEOS:
        image = _NO_VIDEO
    group = group_of(sample.facts, sample.name)
    return Record(
        image,
        origin,
        source,
        group=f"{source}:{group}" if group and ":" not in group else group,
        split=split_of(str(sample.facts.get("split") or "")) or of_shard,
        label=None if label == SKIP else label,
        generator=found.generator,
    )
