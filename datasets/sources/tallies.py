"""What is counted while a source is read: what is missing, what is left out, and what says real or fake."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from crossfake.datasets.filetypes import is_archive
from crossfake.datasets.sources.naming import hints_at_fakes

_ARCHIVE = "an archive inside: unpack it"
_MOST_NAMES = 10_000  # of files that are left out: memory stays flat
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_LISTS = ("metadata", "labels", "label", "annotations", "dataset")


@dataclass
class Missing:
    """What a data set's own lists name and the disk lacks: how often, and the first few by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        """Count something that is missing, by kind and name."""
        self.counts[what] += 1
        examples = self.examples.setdefault(what, [])
        if len(examples) < 3:
            examples.append(name)

    def lines(self) -> list[str]:
        """A line for each kind: how many, and up to three by name."""
        return [
            f"{count:8,}  missing: {what} ({', '.join(self.examples[what])}{', …' if count > 3 else ''})"
            for what, count in sorted(self.counts.items())
        ]


@dataclass
class LeftOut:
    """Files beside the pictures that are none: how many of each kind, and the first few thousand by name.

    Attributes:
        counts: by reason.
        files: name below the source and reason.
        tables: names of those that may say what the pictures are.
    """

    counts: Counter[str] = field(default_factory=Counter)
    files: list[tuple[str, str]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def add_file(self, name: str, head: bytes) -> None:
        """Take note of a file by its name and first bytes."""
        reason = _ARCHIVE if is_archive(head) else "not a picture or video"
        self.counts[reason] += 1
        if len(self.files) < _MOST_NAMES:
            self.files.append((name, reason))
        stem, ending = os.path.splitext(name.rsplit("/", 1)[-1].lower())
        if ending in _TABLES or ending in (".json", ".txt") and stem in _LISTS:
            self.tables.append(name)

    @property
    def archives(self) -> list[str]:
        """Names of those that are archives."""
        return [name for name, reason in self.files if reason == _ARCHIVE]

    def lines(self) -> list[str]:
        """A line for each reason: how many, and up to three by name."""
        lines = []
        for reason, count in sorted(self.counts.items()):
            names = [name for name, why in self.files if why == reason][:3]
            lines.append(f"{count:8,}  left out: {reason} ({', '.join(names)}{', …' if count > 3 else ''})")
        return lines


@dataclass
class Classes:
    """What a source says of the classes of its files.

    Attributes:
        folders: files of each folder and label (None where nothing says it); those that are refused count nowhere.
        paths: folders of all files, refused or not.
        total: all of them, for the progress bar.
        hint: the first file without a label whose name or folder hints at a fake.
        tables: files beside the pictures that may say what they are.
        columns: of the table that is the source, where none of them is known to be the label.
        matched: which of the user's words for labels it has.
    """

    folders: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    paths: set[str] = field(default_factory=set)
    total: int = 0
    hint: str = ""
    tables: Sequence[str] = ()
    columns: Sequence[str] = ()
    matched: set[str] = field(default_factory=set)

    def add(self, origin: str, source: str, label: int | None, refused: bool) -> None:
        """Count a file of a source by its folder and label; one that is refused counts in the total alone."""
        folder, _, name = origin.rpartition("/")
        self.total += 1
        self.paths.add(folder)
        if refused:
            return
        self.folders[folder, label] += 1
        if (
            label is None
            and not self.hint
            and (hints_at_fakes(f"{source}/{folder}") or "fake" in name.lower())
        ):
            self.hint = f"{origin} of {source}"

    def count(self, label: int | None) -> int:
        """Files of a label, which may be None."""
        return sum(number for (_, of), number in self.folders.items() if of == label)
