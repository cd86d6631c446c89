"""The firewall: what a generator or a detector has seen, and whether other images are apart from it.

Whoever trains writes down the rows that were seen: hashes of their groups and of their pixels, in ``seen.safetensors``
beside the weights. Fakes carry the record of the generator that made them. So overlap is found wherever the images
turn up later, when the folders that were trained on have moved, changed or gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.files import replacing

FILE = "seen.safetensors"  # beside weights, and beside fakes
OWN = "synth"  # the source of fakes that were made here

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


def group_keys(shards: ShardSet, rows: Rows) -> Keys:
    """Hashes of the rows' groups, as decided by ``data split`` and as stored: uint64 ``[N, 2]``, 0 for none."""
    decided, given = shards.columns["group"][rows], shards.columns.stored("group")[rows]
    return np.stack([_hashes(decided), _hashes(given)], axis=1)


def _hashes(names: npt.NDArray[Any]) -> Keys:
    unique, of = np.unique(names, return_inverse=True)
    keys = [_key(str(name).encode("utf-8", "surrogateescape")) if name else 0 for name in unique]
    return np.array(keys, np.uint64)[of.ravel()]


def pixel_keys(shards: ShardSet, rows: Rows) -> Keys:
    """Hashes of the rows' pixels, whatever the codec: uint64 ``[N]``, 0 for damaged ones."""
    found = np.zeros(len(rows), np.uint64)
    for place, row in enumerate(rows.tolist()):
        try:
            image = shards.read(row)
        except UserError:  # damaged, and listed as such where images are read to be scored
            continue
        found[place] = _key(repr(image.shape).encode(), np.ascontiguousarray(image).data)
    return found


def _key(*content: bytes | memoryview) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in content:
        digest.update(part)
    return int.from_bytes(digest.digest()) or 1  # 0 stands for nothing


@dataclass(frozen=True)
class Block:
    """Rows of one folder that were seen.

    Attributes:
        folder: where they were, for messages.
        how: ``trained on`` or ``validated on``: what the validation rows chose is flattered on them, too.
        by: the generator that learned from them, for fakes that trained a detector; empty for the detector itself.
        codec: of the folder; checksums of two folders can be compared where both are ``raw``.
        groups: hashes of the groups, uint64 ``[G]``.
        rows: their numbers, int64 ``[N]``.
        crc32: their checksums, uint32 ``[N]``.
        pixels: hashes of their pixels, uint64 ``[N]``; None while the folder is at hand to ask.
        shards: the folder.
    """

    folder: str
    how: str
    by: str
    codec: str
    groups: Keys
    rows: Rows
    crc32: npt.NDArray[np.uint32]
    pixels: Keys | None = None
    shards: ShardSet | None = None

    def facts(self) -> dict[str, str]:
        """What is known of the folder, in words."""
        return {name: getattr(self, name) for name in ("folder", "how", "by", "codec")}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows, whoever has seen them."""
        digest = hashlib.sha256(self.how.encode())
        for values in (self.groups, self.rows, self.keys):
            digest.update(values.tobytes())
        return digest.hexdigest()

    @cached_property
    def keys(self) -> Keys:
        """Hashes of the pixels of all rows."""
        return self._keys_of(np.arange(len(self.rows)))

    def _keys_of(self, places: Rows) -> Keys:
        """Of some rows: where few have a suspicious checksum, the others are not read."""
        if self.pixels is not None:
            return self.pixels[places]
        assert self.shards is not None
        return pixel_keys(self.shards, self.rows[places])

    def shares(self, groups: Keys) -> npt.NDArray[np.bool_]:
        """Which of some rows have a group that was seen: bool ``[N]`` for :func:`group_keys` of them."""
        known: npt.NDArray[np.bool_] = np.isin(groups, self.groups)
        return known[:, 0] | known[:, 1]

    def twins(self, shards: ShardSet, rows: Rows) -> Rows:
        """The row with the same pixels as each of ``rows``, or -1. Equal checksums alone may be chance."""
        found = np.full(len(rows), -1, np.int64)
        mine, theirs = np.arange(len(self.rows)), np.arange(len(rows))
        if self.codec == shards.codec == "raw":
            sums = shards.columns["crc32"][rows]
            theirs = np.flatnonzero(np.isin(sums, self.crc32))
            mine = np.flatnonzero(np.isin(self.crc32, sums[theirs]))
        if not len(mine) or not len(theirs):
            return found
        known = dict(zip(self._keys_of(mine).tolist(), self.rows[mine].tolist(), strict=True))
        known.pop(0, None)
        for place, key in zip(theirs.tolist(), pixel_keys(shards, rows[theirs]).tolist(), strict=True):
            found[place] = known.get(key, -1)
        return found


@dataclass(frozen=True)
class Seen:
    """All that something has seen.

    Attributes:
        blocks: rows that are known.
        by_name: generators or weights made elsewhere: of what they learned from only the name is known.
        unknown: what else was learned from and cannot be looked at, in words.
    """

    blocks: tuple[Block, ...] = ()
    by_name: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, shards: ShardSet, rows: Rows, how: str = "trained on", by: str = "") -> Seen:
        """These rows of a folder; their pixels are only hashed when that is needed."""
        if not len(rows):
            return cls()
        groups = np.unique(group_keys(shards, rows))
        sums = shards.columns["crc32"][rows]
        block = Block(str(shards.path), how, by, shards.codec, groups[groups != 0], rows, sums, None, shards)
        return cls((block,))

    def __or__(self, other: Seen) -> Seen:
        have = {_identity(block) for block in self.blocks}
        more = tuple(block for block in other.blocks if _identity(block) not in have)
        names, unknown = (
            tuple(dict.fromkeys((*one, *two)))
            for one, two in ((self.by_name, other.by_name), (self.unknown, other.unknown))
        )
        return Seen(self.blocks + more, names, unknown)

    def only(self, how: str) -> Seen:
        """The rows that were ``trained on``, or ``validated on``."""
        return replace(self, blocks=tuple(block for block in self.blocks if block.how == how))

    def as_validation(self) -> Seen:
        """The same, of fakes that only validate."""
        return replace(self, blocks=tuple(replace(block, how="validated on") for block in self.blocks))

    @property
    def notes(self) -> list[str]:
        """What can only be said of what was made elsewhere."""
        return [f"what {name} learned from is known by name only" for name in self.by_name]

    @property
    def digest(self) -> str:
        """SHA-256 of the record: cards and shards name it."""
        blocks = [block.digest for block in self.blocks]
        return hashlib.sha256(json.dumps([self.by_name, self.unknown, blocks]).encode()).hexdigest()

    def save(self, folder: Path) -> str:
        """Write ``seen.safetensors`` into a folder; returns the record's hash."""
        arrays = {
            f"{number}.{name}": np.ascontiguousarray(value)
            for number, block in enumerate(self.blocks)
            for name, value in (
                ("groups", block.groups),
                ("rows", block.rows),
                ("crc32", block.crc32),
                ("pixels", block.keys),
            )
        }
        facts = {
            # the folder's name alone: records travel with fakes, and paths are nobody's business
            "blocks": [{**block.facts(), "folder": Path(block.folder).name} for block in self.blocks],
            "by_name": self.by_name,
            "unknown": self.unknown,
            "hash": (digest := self.digest),
        }
        with replacing(folder / FILE) as temporary:
            save_file(arrays, temporary, {"seen": json.dumps(facts)})
        return digest

    @classmethod
    def load(cls, folder: Path) -> Seen | None:
        """The record in a folder, or None.

        Raises:
            UserError: it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "numpy") as file:
                record = json.loads(file.metadata()["seen"])
                blocks = tuple(
                    Block(
                        str(facts["folder"]),
                        str(facts["how"]),
                        str(facts["by"]),
                        str(facts["codec"]),
                        *(
                            file.get_tensor(f"{number}.{name}")
                            for name in ("groups", "rows", "crc32", "pixels")
                        ),
                    )
                    for number, facts in enumerate(record["blocks"])
                )
            found = cls(blocks, tuple(map(str, record["by_name"])), tuple(map(str, record["unknown"])))
            if found.digest != record["hash"]:
                raise ValueError("its hash differs")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error})", hint="copy it again from where the model was trained"
            ) from error
        return found


def _identity(block: Block) -> tuple[str, ...]:
    folder = Path(block.folder).name  # all that a record keeps of it
    return (
        folder,
        block.how,
        block.by,
        block.codec,
        hashlib.sha256(block.rows.tobytes() + block.crc32.tobytes()).hexdigest(),
    )


def seen_by_makers(shards: ShardSet) -> Seen:
    """What the generators of a folder's own fakes learned from; nothing where the fakes were made elsewhere.

    Raises:
        UserError: the record is damaged.
    """
    found = Seen.load(shards.path)
    if found is not None:
        if shards.attributes.get("seen", found.digest) != found.digest:
            raise UserError(
                f"{shards.path / FILE} is not of these shards",
                hint="copy the whole folder again",
            )
        named = ", ".join(name for name in np.unique(shards.columns["generator"]).tolist() if name)
        return replace(found, blocks=tuple(replace(each, by=each.by or named) for each in found.blocks))
    if not (shards.columns["source"] == OWN).any():
        return Seen()
    return Seen(unknown=(f"{shards.path} holds own fakes, and what their generator learned from is unknown",))


def refuse_overlap(
    seen: Seen, sets: Sequence[ShardSet], rows: Sequence[Rows], hint: str, by: str = "", now: str = ""
) -> None:
    """Raise :class:`UserError` if one of the rows, or another image of its group, was seen.

    Args:
        seen: by what is going to be measured, or trained.
        sets: folders of the rows.
        rows: of each.
        hint: what the user can do.
        by: who has seen it, where that is not clear, as ``" by runs/one"``.
        now: what it is now, where that is not clear, as ``"is held out, and "``.
    """
    for shards, chosen in zip(sets, rows, strict=True):
        groups = group_keys(shards, chosen)
        for block in seen.blocks:
            who = f" by generator {block.by}" if block.by else by
            shared = block.shares(groups)
            if shared.any():
                names = np.unique(shards.columns["group"][chosen[shared]])
                others = f", and so were {len(names) - 1:,} others" if len(names) > 1 else ""
                raise UserError(
                    f"group {str(names[0])!r} of {shards.path} {now}was {block.how}{who}{others}", hint=hint
                )
            twins = block.twins(shards, chosen)
            if (twins >= 0).any():
                place = int(np.argmax(twins >= 0))
                raise UserError(
                    f"image {chosen[place]} of {shards.path} {now}was {block.how}{who}: "
                    f"it is image {twins[place]} of {block.folder}",
                    hint=hint,
                )


def count_overlap(seen: Seen, shards: ShardSet, rows: Rows) -> tuple[int, int]:
    """How many of the rows share a group with what was seen, and how many of the others are images that were."""
    grouped, groups = np.zeros(len(rows), bool), group_keys(shards, rows)
    for block in seen.blocks:
        grouped |= block.shares(groups)
    others = rows[~grouped]
    twin = np.zeros(len(others), bool)
    for block in seen.blocks:
        twin |= block.twins(shards, others) >= 0
    return int(grouped.sum()), int(twin.sum())


def refuse_unknown(seen: Seen, force: bool, hint: str) -> list[str]:
    """What cannot be looked at, as notes for a report where the user insists.

    Raises:
        UserError: there is something, and the user does not insist.
    """
    if seen.unknown and not force:
        raise UserError(seen.unknown[0], hint=hint)
    return [f"{text}: overlap with it is unchecked" for text in seen.unknown]


def union(parts: Iterable[Seen]) -> Seen:
    """All that several have seen."""
    found = Seen()
    for part in parts:
        found |= part
    return found
