"""Where images come from. A source is a function that yields records; adding one is one file here.

A source gets an :class:`Asked` and yields :class:`Record` lazily and in a fixed order: resuming relies on that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.shards import MANIFEST, ShardSet
from crossfake.errors import UserError
from crossfake.registry import Registry, unknown


@dataclass(frozen=True)
class Record:
    """One image on its way into shards.

    Attributes:
        image: a file's path, or pixels uint8 ``[H, W, 3]``.
        origin: a name that is unique within the source.
        source: the data set's name.
        group: identity, source photo or video; a hash of the pixels when empty, so that exact copies stay together.
        split: the source's own split, if it has one.
        label: 0 real, 1 fake; None when the user says.
        generator: what made a fake.
        seed: the latent's seed for a fake made here, else -1.
    """

    image: Path | Pixels
    origin: str
    source: str
    group: str = ""
    split: str = ""
    label: int | None = None
    generator: str = ""
    seed: int = -1


@dataclass(frozen=True)
class Asked:
    """What the user asked a source for: the word typed (its name, or a path); seed and size for drawn images."""

    word: str
    seed: int = 0
    size: int = 64

    @property
    def name(self) -> str:
        """The word without the way to it: a folder's place on this machine is nobody else's business."""
        return self.word if self.word in SOURCES else Path(self.word).resolve().name


Source = Callable[[Asked], Iterator[Record]]
SOURCES: Registry[Source] = Registry("source")
_NEED_A_PATH = ("folder", "shards")  # chosen by looking at the path


def open_source(asked: Asked) -> Iterator[Record]:
    """Records of a registered source, a shard folder or a folder of images.

    Raises:
        UserError: the word is neither, or the folder holds no image.
    """
    word, path = asked.word, Path(asked.word)
    if word in SOURCES and word not in _NEED_A_PATH:
        return SOURCES.get(word)(asked)
    if not path.exists():
        raise unknown("source or folder", word, [n for n in SOURCES.names() if n not in _NEED_A_PATH])
    records = SOURCES.get("shards" if is_shards(path) else "folder")(asked)
    first = next(records, None)
    if first is None:
        raise UserError(f"{word} holds no images", mend="name a folder of JPEG, PNG, WebP, … files")
    return itertools.chain([first], records)


def count(asked: Asked) -> int | None:
    """How many records a folder or a shard folder yields, for the progress bar; None where nobody knows."""
    path = Path(asked.word)
    if asked.word in SOURCES or not path.is_dir():
        return None
    return len(ShardSet(path)) if is_shards(path) else sum(1 for _ in folder.walk_images(path))


def is_shards(path: Path) -> bool:
    return (path / MANIFEST).exists()


from crossfake.datasets.sources import folder, scikit, shards, toyfaces  # noqa: E402, F401  (they register themselves)
