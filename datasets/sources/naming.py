"""What the names of folders say of the files in them: real or fake, which split, which generator."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from crossfake.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REAL = _words("real reals nature natural genuine authentic original originals human pristine bonafide")
_FAKE = _words("fake fakes ai synthetic generated artificial deepfake deepfakes manipulated forged")
# words that no class is called by, and that a folder of reals hardly has
_FORGED = _words(
    "forgery forgeries tampered tampering tp spliced splicing spoof spoofs spoofed swap swapped inpainted"
)
_GENERATORS = _words(
    "gan stylegan progan biggan cyclegan stargan gaugan diffusion midjourney dalle faceswap simswap faceshifter"
    " deepfacelab dcgan sd sdxl ldm"
)
# words that may stand beside those and say nothing: a folder real_esrgan is not one of real pictures
_NEUTRAL = _words(
    "train training test testing val valid validation dev image images img imgs picture pictures photo photos face"
    " faces video videos frame frames crop crops sequence sequences data dataset set class samples deep"
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
SKIP = -1  # the label of what the user wants left out
_CLASSES = {"real": 0, "fake": 1, "skip": SKIP}
LOOSE = "."  # the folder of files that lie in none
_MOST_GENERATORS = 40  # more folders among the fakes than that are people or videos


def words_of(name: str) -> list[str]:
    """
    Example:
        >>> words_of("training_real"), words_of("FakeFaces"), words_of("0_real"), words_of("SD1.5")
        (['training', 'real'], ['fake', 'faces'], ['real'], ['sd'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


@functools.lru_cache(maxsize=4096)
def label_of(name: str) -> int | None:
    """0 for a class called real, 1 for one called fake, in the words that published sets use; None for others.

    Example:
        >>> label_of("0_real"), label_of("training_fake"), label_of("real_esrgan"), label_of("real_vs_fake")
        (0, 1, None, None)
    """
    words = set(words_of(name)) - _NEUTRAL
    return 0 if words and words <= _REAL else 1 if words and words <= _FAKE else None


def hints_at_fakes(name: str) -> bool:
    """Whether a name has a word for fakes in it, be there other words or not, be they joined or not.

    Example:
        >>> [hints_at_fakes(name) for name in ("fake_sd", "stylegan2-faces", "fakeimgs", "holiday")]
        [True, True, True, False]
    """
    return "fake" in name.lower() or bool((_FAKE | _FORGED | _GENERATORS).intersection(words_of(name)))


def parse_labels(texts: Sequence[str]) -> dict[str, int]:
    """Names to 0 (real), 1 (fake) or :data:`SKIP` from ``real=A,B``, ``fake=C`` and ``skip=D``, several a text or not.

    Raises:
        UserError: a text is none of these, or a name stands in two classes.

    Example:
        >>> parse_labels(["real=ffhq,my photos fake=stylegan2", "skip=masks"])
        {'ffhq': 0, 'my photos': 0, 'stylegan2': 1, 'masks': -1}
    """
    labels: dict[str, int] = {}
    for text in texts:
        for part in re.split(r"\s+(?=\w+=)", text.strip()):
            kind, _, names = part.partition("=")
            found = [
                name.strip().removeprefix("./").strip("/") or name
                for name in names.split(",")
                if name.strip()
            ]
            if kind not in _CLASSES or not found:
                raise UserError(
                    f"--labels {part!r} names no class and its folders",
                    hint="write --labels real=FOLDER,FOLDER fake=FOLDER, and skip=FOLDER for what is neither",
                )
            for name in found:
                if labels.setdefault(name, _CLASSES[kind]) != _CLASSES[kind]:
                    raise UserError(f"--labels puts {name!r} into two classes", hint="name it once")
    return labels


def differing(folders: Iterable[str]) -> dict[str, str]:
    """Each folder to the name by which it differs from the others, the words of splits left aside.

    Names that all share are passed over, and what is below the first that differs counts as part of it.

    Example:
        >>> differing(["set/train/ffhq/00", "set/test/ffhq/01", "set/train/gan"])
        {'set/train/ffhq/00': 'ffhq', 'set/test/ffhq/01': 'ffhq', 'set/train/gan': 'gan'}
        >>> differing(["train", "test"]), differing(["", "more"])
        ({'train': '.', 'test': '.'}, {'': '.', 'more': 'more'})
    """
    paths = {
        folder: [name for name in folder.split("/") if name and not _is_split(name)] for folder in folders
    }
    shared = 0
    while len({tuple(parts[: shared + 1]) for parts in paths.values()}) == 1 and any(
        len(parts) > shared for parts in paths.values()
    ):
        shared += 1
    return {
        folder: parts[shared] if len(parts) > shared else parts[-1] if parts else LOOSE
        for folder, parts in paths.items()
    }


def _is_split(name: str) -> bool:
    return bool(split_of(name)) and not set(words_of(name)) - _NEUTRAL


def generator_below(origin: str) -> str:
    """The first folder on the way to a fake that says more than its class or split; empty where there is none.

    Example:
        >>> generator_below("train/fake/stylegan3/7.png"), generator_below("sd1.5/a/b.png"), generator_below("b.png")
        ('stylegan3', 'sd1.5', '')
    """
    parts = origin.split("/")[:-1]
    return next((name for name in parts if label_of(name) is None and set(words_of(name)) - _NEUTRAL), "")


def split_of(name: str) -> str:
    """``train``, ``val`` or ``test`` for what published sets call them; empty for anything else.

    Example:
        >>> split_of("Validation"), split_of("Test-Dev"), split_of("progan_train"), split_of("cat")
        ('val', 'test', 'train', '')
    """
    return next((_SPLITS[word] for word in words_of(name) if word in _SPLITS), "")


class ByFolders:
    """Labels, splits and generators of files by the folders that they are in.

    Splits count where train and another are named: a lone folder ``test`` may hold anything. Of several names on the
    way to a file the nearest label counts, and the first split. Folders directly below the fakes are generators, unless
    there are so many that they must be videos or people; so are folders that the user names as fakes.

    Args:
        folders: their paths below the root, with ``/``.
        labels: of folders, by name or by the last names of their path; they count more than what a name says.

    Example:
        >>> by = ByFolders(["train/real", "train/fake", "train/fake/sd", "test/real", "test/fake"])
        >>> by.label("train/fake/sd/1.png"), by.split("train/fake/sd/1.png"), by.generator("train/fake/sd/1.png")
        (1, 'train', 'sd')
        >>> ByFolders(["ffhq", "sd"], {"ffhq": 0, "sd": 1}).label("sd/1.png")
        1
    """

    def __init__(self, folders: Iterable[str], labels: Mapping[str, int] | None = None) -> None:
        paths = [folder.split("/") for folder in folders]
        names = {name for parts in paths for name in parts}
        given = {tuple(name.split("/")): label for name, label in (labels or {}).items()}
        self._given = dict(sorted(given.items(), key=lambda pair: -len(pair[0])))  # a/sd says more than sd
        self._splits = len({split_of(name) for name in names if name} - {""}) > 1 and any(
            split_of(name) == "train" for name in names
        )
        labelled = {tuple(parts): label for parts in paths if (label := self._label(parts)) is not None}
        both = set(labelled.values()) >= {0, 1}
        # folders that hold both classes: what lies loose in them, in neither, is a preview or a note
        self._holders = {parts[:end] for parts in labelled for end in range(len(parts))} if both else set()
        generators = {self._generator(parts) for parts in paths} - {""}
        self._generators = generators if len(generators) <= _MOST_GENERATORS else set()

    def label(self, origin: str) -> int | None:
        """0 for a real, 1 for a fake, None where no folder on the way says it."""
        return self._label(origin.split("/")[:-1])

    def _label(self, parts: Sequence[str]) -> int | None:
        for end in range(len(parts), 0, -1):
            for names, given in self._given.items():
                if self._ends(parts[:end], names):
                    return given
        if not parts and (LOOSE,) in self._given:
            return self._given[LOOSE,]
        return next((label for name in reversed(parts) if (label := label_of(name)) is not None), None)

    @staticmethod
    def _ends(parts: Sequence[str], names: tuple[str, ...]) -> bool:
        return tuple(parts[-len(names) :]) == names

    def is_beside_classes(self, origin: str) -> bool:
        """Whether a file without a label lies loose where folders of both classes are."""
        return tuple(origin.split("/")[:-1]) in self._holders

    def split(self, origin: str) -> str:
        """``train``, ``val`` or ``test``; empty where no folder says it, or splits do not count."""
        return next(filter(None, map(split_of, origin.split("/")[:-1])), "") if self._splits else ""

    def generator(self, origin: str) -> str:
        """Name of the folder below the fakes' own; empty for reals, and where there are too many such folders."""
        found = self._generator(origin.split("/")[:-1]) if self.label(origin) == 1 else ""
        return found if found in self._generators else ""

    def _generator(self, parts: Sequence[str]) -> str:
        """What the user named as fakes, if that says more than that; else the folder below the fakes' own."""
        fakes = [names for names, label in self._given.items() if label == 1]
        ends = (end for end in range(len(parts)) for names in fakes if self._ends(parts[: end + 1], names))
        given = max(ends, default=-1)
        if given >= 0 and set(words_of(parts[given])) - _NEUTRAL - _FAKE - _FORGED:
            return parts[given]
        last = max((place for place, name in enumerate(parts) if label_of(name) == 1), default=given)
        below = parts[last + 1] if 0 <= last < len(parts) - 1 else ""
        return below if set(words_of(below)) - _NEUTRAL else ""
