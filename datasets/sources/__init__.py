"""Where images come from. A source is a function that yields records; adding one is one file here.

A source gets an :class:`Asked` and yields :class:`Record` lazily and in a fixed order: resuming relies on that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.shards import MANIFEST
from crossfake.errors import UserError
from crossfake.registry import Registry, unknown


@dataclass(frozen=True)
class Record:
    """One image on its way into shards.

    Attributes:
        image: a file's path, or pixels uint8 ``[H, W, 3]``.
        origin: a name that is unique within the source.
        source: the data set's name.
        group: identity, source photo or video; the hash of the image when empty, so that exact copies stay together.
        split: the source's own split, if it has one.
        label: 0 real, 1 fake; None when the user says.
        generator: what made a fake.
    """

    image: Path | Pixels
    origin: str
    source: str
    group: str = ""
    split: str = ""
    label: int | None = None
    generator: str = ""


@dataclass(frozen=True)
class Asked:
    """What the user asked a source for: the word typed (its name, or a path); seed and size for drawn images."""

    word: str
    seed: int = 0
    size: int = 64


Source = Callable[[Asked], Iterator[Record]]
SOURCES: Registry[Source] = Registry("source")


def open_source(asked: Asked) -> Iterator[Record]:
    """Records of a registered source, a shard folder or a folder of images.

    Raises:
        UserError: the word is neither, or the folder holds no image.
    """
    word, path = asked.word, Path(asked.word)
    if word in SOURCES:
        return SOURCES.get(word)(asked)
    if not path.exists():
        raise unknown("source or folder", word, SOURCES.names())
    records = SOURCES.get("shards" if (path / MANIFEST).exists() else "folder")(asked)
    first = next(records, None)
    if first is None:
        raise UserError(f"{word} holds no images", mend="name a folder of JPEG, PNG, WebP, … files")
    return itertools.chain([first], records)


from crossfake.datasets.sources import folder, scikit, shards, toyfaces  # noqa: E402, F401  (they register themselves)
