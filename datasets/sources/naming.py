"""What the names of folders say of the files in them: real or fake, which split, which generator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REAL = _words("real reals nature natural genuine authentic original originals human pristine bonafide")
_FAKE = _words("fake fakes ai synthetic generated artificial deepfake deepfakes manipulated forged")
# words that may stand beside those and say nothing: a folder real_esrgan is not one of real pictures
_NEUTRAL = _words(
    "train training test testing val valid validation dev image images img imgs picture pictures photo photos face"
    " faces video videos frame frames crop crops sequence sequences data dataset set class samples"
)
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_MOST_GENERATORS = 40  # more folders among the fakes than that are people or videos


def words_of(name: str) -> list[str]:
    """
    Example:
        >>> words_of("training_real"), words_of("FakeFaces"), words_of("0_real"), words_of("SD1.5")
        (['training', 'real'], ['fake', 'faces'], ['real'], ['sd'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def label_of(name: str) -> int | None:
    """0 for a class called real, 1 for one called fake, in the words that published sets use; None for others.

    Example:
        >>> label_of("0_real"), label_of("training_fake"), label_of("real_esrgan"), label_of("real_vs_fake")
        (0, 1, None, None)
    """
    words = set(words_of(name)) - _NEUTRAL
    return 0 if words and words <= _REAL else 1 if words and words <= _FAKE else None


def hints_at_fakes(name: str) -> bool:
    """Whether a name has a word for fakes in it, be there other words or not."""
    return bool(_FAKE.intersection(words_of(name)))


def generator_below(origin: str) -> str:
    """The first folder on the way to a fake that says more than its class or split; empty where there is none.

    Example:
        >>> generator_below("train/fake/stylegan3/7.png"), generator_below("sd1.5/a/b.png"), generator_below("b.png")
        ('stylegan3', 'sd1.5', '')
    """
    ways = origin.split("/")[:-1]
    return next((name for name in ways if label_of(name) is None and set(words_of(name)) - _NEUTRAL), "")


def split_of(name: str) -> str:
    """``train``, ``val`` or ``test`` for what published sets call them; empty for anything else.

    Example:
        >>> split_of("Validation"), split_of("Test-Dev"), split_of("progan_train"), split_of("cat")
        ('val', 'test', 'train', '')
    """
    return next((_SPLITS[word] for word in words_of(name) if word in _SPLITS), "")


class ByFolders:
    """Labels, splits and generators of files by the folders that they are in.

    Labels count where both classes are named, splits where train and another are: a lone folder ``test`` may hold
    anything. Of several names on the way to a file the nearest label counts, and the first split. Folders directly
    below the fakes are generators, unless there are so many that they must be videos or people.

    Args:
        folders: their paths below the root, with ``/``.

    Example:
        >>> by = ByFolders(["train/real", "train/fake", "train/fake/sd", "test/real", "test/fake"])
        >>> by.label("train/fake/sd/1.png"), by.split("train/fake/sd/1.png"), by.generator("train/fake/sd/1.png")
        (1, 'train', 'sd')
    """

    def __init__(self, folders: Iterable[str]) -> None:
        ways = [folder.split("/") for folder in folders]
        names = {name for way in ways for name in way}
        self.labelled = {label_of(name) for name in names} >= {0, 1}
        self._splits = len({split_of(name) for name in names if name} - {""}) > 1 and any(
            split_of(name) == "train" for name in names
        )
        generators = {_generator(way) for way in ways} - {""}
        self._generators = generators if self.labelled and len(generators) <= _MOST_GENERATORS else set()

    def label(self, origin: str) -> int | None:
        if not self.labelled:
            return None
        labels = [label_of(name) for name in reversed(origin.split("/")[:-1])]
        return next((label for label in labels if label is not None), None)

    def split(self, origin: str) -> str:
        return next(filter(None, map(split_of, origin.split("/")[:-1])), "") if self._splits else ""

    def generator(self, origin: str) -> str:
        found = _generator(origin.split("/")[:-1]) if self.label(origin) else ""
        return found if found in self._generators else ""


def _generator(way: Sequence[str]) -> str:
    """The folder below the fakes' own, if its name says anything."""
    last = max((place for place, name in enumerate(way) if label_of(name) == 1), default=-1)
    name = way[last + 1] if 0 <= last < len(way) - 1 else ""
    return name if set(words_of(name)) - _NEUTRAL else ""
