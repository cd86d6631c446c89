"""What a source of images is. Each is a class in this folder, one file each, registered and named in ``SOURCES``.

Sources yield :class:`Record` lazily and in a fixed order: resuming relies on that. They never insist that a data set
is complete; what its own lists name and the disk lacks goes into :class:`Missing` and ends as a table.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from crossfake.datasets.shards import read_manifest
from crossfake.datasets.sources.tallies import Classes, LeftOut, Missing
from crossfake.datasets.types import Box, Pixels, Polygons
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.registry import Registry, unknown


@dataclass(frozen=True)
class Member:
    """A file inside a zip archive, read without being unpacked."""

    archive: Path
    name: str

    @property
    def suffix(self) -> str:
        """Ending of its name, with the dot."""
        return os.path.splitext(self.name)[1]

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            OSError: the archive is damaged there, or it unpacks to more than its listing says.
        """
        from crossfake.datasets.sources.archive import read

        return read(self)


@dataclass(frozen=True)
class Stored:
    """A file, or a part of one, in an object store or on a disk, read by whoever decodes it.

    Attributes:
        url: as fsspec knows it; a path is one, too.
        start: first byte of the part.
        size: bytes of the part; None for all that follow.
    """

    url: str
    start: int = 0
    size: int | None = None

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            OSError: it is not there.
            UserError: the store does not work.
        """
        from crossfake.datasets.sources.objects import read

        return read(self)


@dataclass(frozen=True)
class Rejected:
    """Something in the source that must not be opened, and why; listed among the skipped."""

    reason: str
    detail: str = ""


ON_REQUEST = Rejected("left out", "as --labels says")


@dataclass(frozen=True)
class Record:
    """One image, or one video, on its way into shards.

    Attributes:
        image: a file (a video among them), where one is stored, the bytes of one, or pixels uint8 ``[H, W, 3]``.
        origin: a name that is unique within the source.
        source: the data set's name.
        group: identity, source photo or video; a hash of the pixels when empty, so that exact copies stay together.
        split: the source's own split, if it has one.
        dealt: the split was dealt by a hash when the images were prepared, so it is nobody's own.
        label: 0 real, 1 fake; None when the user says.
        generator: what made a fake.
        seed: the latent's seed for a fake made here, else -1.
        box: the face that is meant, where the picture may show several.
        mask: where it was manipulated: polygons, or a picture or video of the same frames that is bright there.
        parent: of a fake, the row of the photo that it was made from, see ``ShardSet.ids``.
    """

    image: Path | Member | Stored | Rejected | bytes | Pixels
    origin: str
    source: str
    group: str = ""
    split: str = ""
    label: int | None = None
    generator: str = ""
    seed: int = -1
    box: Box | None = None
    mask: Path | Polygons | None = None
    dealt: bool = False
    parent: str = ""


def absolute(record: Record) -> Record:
    """The same with whole paths: a worker elsewhere has another current directory."""
    image, mask = record.image, record.mask
    if isinstance(image, Member):
        image = Member(image.archive.absolute(), image.name)
    elif isinstance(image, Path):
        image = image.absolute()
    return replace(record, image=image, mask=mask.absolute() if isinstance(mask, Path) else mask)


@dataclass(frozen=True)
class SourceSpec:
    """What the user asked a source for.

    Attributes:
        word: ``toyfaces``; a folder, an archive, a video or a URL, whose layout is recognised; or ``NAME:PATH``.
        seed: for drawn images.
        size: for drawn images, in pixels.
        variant: of a data set that holds its files in several versions (``raw``, ``c23``, ``c40``).
        labels: of the user's: a folder's name, or a value in a table's column for the label, to 0 (real), 1 (fake) or
            :data:`~crossfake.datasets.sources.naming.SKIP`.
        missing: filled while the records are read.
        left_out: likewise.
        notes: what the user should know, one line each; likewise.
        matched: which names in ``labels`` a table has; likewise.
        where: what lists the inside of archives in a store.
    """

    word: str
    seed: int = 0
    size: int = 64
    variant: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    missing: Missing = field(default_factory=Missing, compare=False)
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)
    notes: list[str] = field(default_factory=list, compare=False)
    matched: set[str] = field(default_factory=set, compare=False)
    where: ExecutorSettings = field(default=LOCAL, compare=False)

    def again(self) -> SourceSpec:
        """The same, with nothing counted yet: what is missing is counted once."""
        return SourceSpec(self.word, self.seed, self.size, self.variant, self.labels, where=self.where)

    @cached_property
    def layout(self) -> str:
        """Name of the source that reads it: the one typed, or the one that recognises the path."""
        if not self.word.strip():
            raise UserError("no source is named", hint="name a folder, a data set or an archive")
        typed, colon, path = self.word.partition(":")
        if typed in SOURCES and (colon or not SOURCES.get(typed).needs_path):
            return typed
        if self.url:
            return _layout_there(self.url)
        if not is_there(self.path):
            if os.sep in self.word:  # nobody would name a data set so
                raise UserError(f"there is no source or folder {self.word!r}", hint="check the path")
            names = [name for name in SOURCES.names() if name not in ("folder", "shards")]
            raise unknown("source or folder", self.word, names)
        fitting = [name for name in SOURCES.names() if SOURCES.get(name)().recognises(self.path)]
        if len(fitting) > 1:
            named = " or ".join(f"{name}:{self.path}" for name in fitting)
            raise UserError(f"{self.path} looks like several data sets", hint=f"write {named}")
        if not fitting:
            self._look_below()
        return fitting[0] if fitting else "folder"

    def _look_below(self) -> None:
        """Published data sets say too much by their folders' names for one to be read as plain files by mistake."""
        with contextlib.suppress(OSError):
            for below in sorted(self.path.iterdir())[:100] if self.path.is_dir() else []:
                for name in _PUBLISHED:
                    if below.is_dir() and SOURCES.get(name)().recognises(below):
                        raise UserError(
                            f"{below} looks like {name}",
                            hint=f"name that, or folder:{self.path} for plain files",
                        )

    @property
    def place(self) -> str:
        """The word without the layout's name."""
        typed, colon, path = self.word.partition(":")
        return path if colon and typed in SOURCES else self.word

    @property
    def path(self) -> Path:
        """Of a URL no more than its last part is right."""
        return Path(self.place)

    @property
    def url(self) -> str:
        """Where it is in a store; empty on a disk."""
        return self.place.rstrip("/") if is_url(self.place) else ""

    @property
    def name(self) -> str:
        """What the source column says: the data set, or the folder without the way to it, nobody's business."""
        return self.layout if self.layout not in _NAMED_BY_FOLDER else self.path.resolve().name


class Source:
    """Base of all sources.

    Attributes:
        about: what it is, in one line.
        needs_path: whether it reads something on this disk.
        derived_from: data sets whose pictures it contains in another form.
        has_masks: whether it marks what was manipulated.
        has_videos: whether its records may be videos.
        endless: whether it draws as many images as anyone wants.
        takes_labels: whether the user may say which of its folders or values are real and fake.
        is_table: whether a table says what its files are.
        in_stores: whether it can be read from a URL.
        listed_once: whether all files are read to list them, so that nobody knows their classes beforehand.
        variants: the versions in which it holds its files, the preferred one first.
    """

    about: ClassVar[str] = ""
    needs_path: ClassVar[bool] = True
    derived_from: ClassVar[tuple[str, ...]] = ()
    has_masks: ClassVar[bool] = False
    has_videos: ClassVar[bool] = False
    endless: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    is_table: ClassVar[bool] = False
    in_stores: ClassVar[bool] = False
    listed_once: ClassVar[bool] = False
    variants: ClassVar[tuple[str, ...]] = ()

    def recognises(self, root: Path) -> bool:
        """Whether the folder, by its names alone, is laid out as this data set is published."""
        return False

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        """Every image of it; ``UserError`` when a list that it cannot do without is not there or damaged."""
        raise NotImplementedError

    def count(self, spec: SourceSpec) -> int | None:
        """How many records there will be, for the progress bar; None where nobody knows."""
        known = self.needs_path and not self.listed_once
        return sum(1 for _ in self.records(spec.again())) if known else None

    def classes(self, spec: SourceSpec) -> Classes | None:
        """How many files of each class it says it has, without opening any; None where it draws or fetches them."""
        if not self.needs_path or self.listed_once:
            return None
        found, again = Classes(), spec.again()
        for record in self.records(again):
            found.add(record.origin, record.source, record.label, isinstance(record.image, Rejected))
        found.tables, found.matched = again.left_out.tables, again.matched
        return found

    def fixture(self, out: Path) -> Path:
        """Write a miniature of the layout with drawn faces, for tests and tutorials; returns what to read."""
        raise UserError("there is no miniature of this source", hint="choose another")


SOURCES: Registry[type[Source]] = Registry(
    "source",
    {
        "celeba": "crossfake.datasets.sources.celeba",
        "celebdf": "crossfake.datasets.sources.celebdf",
        "df40": "crossfake.datasets.sources.df40",
        "dfdc": "crossfake.datasets.sources.dfdc",
        "faceforensics": "crossfake.datasets.sources.faceforensics",
        "ffhq": "crossfake.datasets.sources.ffhq",
        "folder": "crossfake.datasets.sources.folder",
        "forensynths": "crossfake.datasets.sources.forensynths",
        "genimage": "crossfake.datasets.sources.genimage",
        "hardfakevsrealfaces": "crossfake.datasets.sources.hardfake",
        "huggingface": "crossfake.datasets.sources.huggingface",
        "kaggle-deepfake-real": "crossfake.datasets.sources.kaggle",
        "lfw": "crossfake.datasets.sources.scikit",
        "manifest": "crossfake.datasets.sources.listing",
        "objects": "crossfake.datasets.sources.objects",
        "olivetti": "crossfake.datasets.sources.scikit",
        "openforensics": "crossfake.datasets.sources.openforensics",
        "shards": "crossfake.datasets.sources.shards",
        "toyfaces": "crossfake.datasets.sources.toyfaces",
        "webdataset": "crossfake.datasets.sources.webdataset",
        "zip": "crossfake.datasets.sources.archive",
    },
)
_PUBLISHED = (
    "celeba",
    "celebdf",
    "dfdc",
    "df40",
    "faceforensics",
    "genimage",
    "hardfakevsrealfaces",
    "kaggle-deepfake-real",
    "openforensics",
)
_NAMED_BY_FOLDER = ("folder", "shards", "manifest", "huggingface", "objects", "webdataset")
_IN_STORES = {
    "manifest": (".csv", ".tsv", ".jsonl"),
    "huggingface": (".parquet",),
    "webdataset": (".tar",),
    "zip": (".zip",),
}
_PEEK = 100  # names that show what a folder in a store holds


def open_source(spec: SourceSpec) -> Iterator[Record]:
    """Records of a data set, a shard folder, an archive or a folder of images and videos.

    Raises:
        UserError: the word is none of them, or there is no image.
    """
    source = SOURCES.get(spec.layout)()
    if spec.url and not source.in_stores:
        names = " or ".join(name for name in SOURCES.names() if SOURCES.get(name).in_stores)
        raise UserError(f"{spec.layout} is not read from a URL", hint=f"copy it to a disk, or name {names}")
    if source.needs_path and not spec.url and not is_there(spec.path):
        raise UserError(f"{spec.path} is not there", hint="check the path")
    if spec.variant and not source.variants:
        raise UserError(f"{spec.layout} has one version only", hint="leave --variant out")
    if spec.labels and not source.takes_labels:
        raise UserError(
            f"{spec.layout} knows its own labels",
            hint=f"leave --labels out, or read it as plain files: folder:{spec.path}",
        )
    records = source.records(spec)
    first = next(records, None)
    if first is None:
        lines = [*spec.missing.lines(), *spec.left_out.lines()]
        gone = f" ({'; '.join(line.strip() for line in lines)})" if lines else ""
        raise UserError(
            f"{spec.word} holds no images{gone}", hint="name a folder of JPEG, PNG, WebP, … files"
        )
    return itertools.chain([first], records)


def related(one: str, other: str) -> str:
    """Why training on one data set and testing on the other is no cross-data-set test; empty when it is one.

    Example:
        >>> related("kaggle-deepfake-real", "openforensics")
        'kaggle-deepfake-real is made from openforensics'
        >>> related("celeba", "openforensics")
        ''
    """
    if one == other:
        return f"both are {one}"
    for derived, base in ((one, other), (other, one)):
        if base in _ancestors(derived):
            return f"{derived} is made from {base}"
    shared = sorted(_ancestors(one) & _ancestors(other))
    return f"{one} and {other} are both made from {shared[0]}" if shared else ""


def _ancestors(name: str) -> set[str]:
    direct = SOURCES.get(name).derived_from if name in SOURCES else ()
    return set(direct).union(*(_ancestors(parent) for parent in direct))


def is_url(word: str) -> bool:
    """Whether a word names a place that fsspec reads.

    Example:
        >>> is_url("s3://bucket/faces"), is_url("data/faces"), is_url("kaggle:data")
        (True, False, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+://", word) is not None


def _layout_there(url: str) -> str:
    """The layout at a URL, by its ending, or by the endings of the first files below it."""
    from crossfake.datasets.sources.folder import IMAGES
    from crossfake.datasets.sources.objects import ending_of, listing

    def named(ending: str) -> str:
        return next((name for name, endings in _IN_STORES.items() if ending in endings), "")

    if found := named(ending_of(url)):
        return found
    first = [ending_of(name) for name in itertools.islice(listing(url), _PEEK)]
    archives = {named(ending) for ending in first} & {"huggingface", "webdataset"}
    return archives.pop() if len(archives) == 1 and not IMAGES.intersection(first) else "objects"


def is_there(path: Path) -> bool:
    """Whether a path exists; a name that no file system takes does not."""
    try:
        return path.exists()
    except OSError:  # a name that is too long for any file
        return False


def is_shards(path: Path) -> bool:
    """Whether a folder's manifest lists shards; a user's own file may have the same name."""
    return bool(read_manifest(path))
