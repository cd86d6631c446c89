"""What a detector trains on: pools of images, held apart by split and group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.crops import crop_words
from crossfake.datasets.firewall import Seen, refuse_overlap, refuse_unknown, seen_by_makers, union
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.splits import Fractions
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import CARD
from crossfake.detect.training.recipes import Recipe
from crossfake.detect.view import ALIGNED, View, Windows, joined
from crossfake.errors import UserError
from crossfake.progress import tqdm

Indices = npt.NDArray[np.int64]
Part = tuple["Pool", int, Indices]  # a pool, its label, and some of its rows
# For sets that come without a validation part (fakes made in bulk): a tenth of the groups, by hash
_CARVES = [Fractions(0.9, 0.1, 0.0, seed) for seed in (0, 1)]
_SPLIT_TOGETHER = (
    "prepare all folders with one --split and --seed; 'crossfake data split' them before anything is trained, "
    "generators too"
)
_GENERATE_AGAIN = (
    "repeat its 'synth generate' with a model that says so, or --force, which reports will mention"
)
VALIDATED = 2000  # held-out images of each class, at most: thresholds belong to these very rows
VALIDATION_WINDOWS = (
    2  # of a native image in validations during training; the bundle takes as many as it judges with
)


KindName = Literal["real", "fake", "synthetic", "made"]


class Kind(NamedTuple):
    """What sort of image a row is: what batches are balanced over.

    Attributes:
        kind: ``real``; ``fake``, a given one; ``synthetic``, one's own; ``made`` of a real by the recipe.
        source, generator: as the shards have them.
    """

    kind: KindName
    source: str = ""
    generator: str = ""


@dataclass(frozen=True)
class Validation:
    """What a training validates on.

    Attributes:
        images: uint8 ``[N, H, W, 3]``, or windows of N native ones; without damaged ones.
        labels: ``[N]``, 0 real and 1 fake.
        groups: ``[N]``, what belongs together; an image without a group is its own, a made fake its real's.
        kinds: of each image.
        digest: SHA-256 of the rows' checksums.
    """

    images: Pixels | Windows
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    kinds: list[Kind]
    digest: str


@dataclass(frozen=True)
class Pool:
    """Rows of one shard folder that share a label, and which of them train and which validate."""

    shards: ShardSet
    train: Indices
    val: Indices

    @classmethod
    def open(cls, folder: Path, label: int) -> Pool:
        """Rows of split ``test`` are left alone. Without ``val`` rows a tenth of the groups is held out; a folder may
        also have nothing but ``val`` rows.

        Raises:
            UserError: the folder has no rows of that label to train on.
        """
        shards = ShardSet(folder)
        train = shards.select(split=["train", ""], label=label)
        val = shards.select(split="val", label=label)
        if not len(val) and len(train):
            for carve in _CARVES:
                held_out = np.array(
                    [carve.split_of(group) == "val" for group in shards.columns["group"][train]]
                )
                if held_out.any() and not held_out.all():  # else the split was dealt by the same hash
                    break
            train, val = train[~held_out], train[held_out]
        if not len(train) and not len(val):
            kind = "fake" if label else "real"
            raise UserError(f"{folder} has no {kind} images to train on", hint="check its labels and splits")
        return cls(shards, train, val)

    def seen(self) -> Seen:
        """What a detector sees of these rows, for the firewall."""
        return Seen.of(self.shards, self.train) | Seen.of(self.shards, self.val, "validated on")

    def makers(self) -> Seen:
        """What the generators of own fakes among these rows have seen, which validates where no row trains."""
        found = seen_by_makers(self.shards)
        return found if len(self.train) else found.as_validation()

    def by_generator(self) -> list[Indices]:
        """Training rows, one list per source and generator."""
        columns = [self.shards.columns[name][self.train] for name in ("source", "generator")]
        made = np.stack(columns, axis=1)
        names, which = np.unique(made, axis=0, return_inverse=True)
        return [self.train[which.ravel() == number] for number in range(len(names))]


@dataclass(frozen=True)
class TrainingData:
    """Reals, published or otherwise given fakes, and one's own synthetic fakes.

    Attributes:
        size: of the images, or of a native view's windows.
        crop: how they were cut.
        view: what the network sees of them.
        makers: what the generators of own fakes, and the weights that it starts from, learned from.
        notes: what of that is unknown.
    """

    real: list[Pool]
    fake: list[Pool]
    synthetic: list[Pool]
    size: int
    crop: dict[str, object] | None
    makers: Seen = Seen()
    notes: tuple[str, ...] = ()
    view: View = ALIGNED

    @classmethod
    def open(
        cls,
        real: Sequence[Path],
        fake: Sequence[Path],
        synthetic: Sequence[Path],
        force: bool,
        reals_only: bool = False,
        limit: int = 0,
        view: View = ALIGNED,
    ) -> TrainingData:
        """Open all folders and hold them against each other.

        Args:
            real: folders of reals.
            fake: of given fakes.
            synthetic: of one's own.
            force: let the folders be cropped differently, and own fakes be of a generator whose rows are unknown.
            reals_only: fakes are made from reals, so none need be given.
            limit: at most so many synthetic ones train, evenly over their generators; 0 is all.
            view: what the network is to see of the images.

        Raises:
            UserError: a class is missing, sizes or crops differ, images do not suit the view, a group or a picture is
                both held out and trained on, by the detector or by a generator of own fakes, or what such a generator
                learned from is unknown.
        """
        if not real:
            raise UserError("a detector needs reals", hint="name them with --real DIR")
        if not fake and not synthetic and not reals_only:
            raise UserError(
                "a detector needs fakes", hint="name them with --fake DIR or --with-synthetic DIR"
            )
        pools = [
            [Pool.open(folder, label) for folder in folders]
            for folders, label in ((real, 0), (fake, 1), (synthetic, 1))
        ]
        for kind, part in (("real", pools[0]), ("fake", pools[1] + pools[2])):
            if part and not any(len(pool.train) for pool in part):
                named = " and ".join(str(pool.shards.path) for pool in part)
                raise UserError(f"{named} has no {kind} images to train on", hint="check its splits")
        if reals_only:  # what is given besides validates
            pools[1] = [replace(pool, train=pool.train[:0]) for pool in pools[1]]
        refuse_twice([pool.shards for pool in pools[0]])
        refuse_twice([pool.shards for pool in pools[1] + pools[2]])
        every = [pool for part in pools for pool in part]
        for pool in every:
            view.check(pool.shards, np.concatenate([pool.train, pool.val]))
        sizes = {view.window if view.native else pool.shards.size for pool in every}
        if len(sizes) > 1 or None in sizes:
            named = ", ".join(f"{pool.shards.path} {pool.shards.size or 'any size'}" for pool in every)
            raise UserError(
                f"images of one size are needed, found {named}", hint="prepare all with the same --size"
            )
        crops = {crop_words(crop): crop for pool in every if (crop := pool.shards.attributes.get("crop"))}
        if len(crops) > 1 and not force:
            raise UserError(
                f"the folders were cropped differently ({' and '.join(crops)})",
                hint="prepare all with the same --crop, --margin and --edge, or --force if that is the point",
            )
        makers = union(pool.makers() for pool in pools[1] + pools[2])
        notes = refuse_unknown(makers, force, _GENERATE_AGAIN)
        _check_firewall(every, makers)
        if limit:
            pools[2] = _limited(pools[2], limit)
        crop = next(iter(crops.values()), None)
        return cls(pools[0], pools[1], pools[2], int(sizes.pop() or 0), crop, makers, tuple(notes), view)

    def starting_from(self, weights: Path, force: bool) -> TrainingData:
        """The same for a network that begins with the weights of another training, which carry what that has seen.

        Raises:
            UserError: that is held out here, or is not known; with ``force`` the latter is a note.
        """
        seen = Seen.load(weights.parent) or Seen()
        if not seen.blocks and (weights.parent / CARD).is_file():
            seen |= Seen(unknown=(f"what {weights} learned from is unknown",))
        notes = refuse_unknown(seen, force, "start from a bundle of a new training, or --force")
        pools = self.real + self.fake + self.synthetic
        _refuse_held_out(seen.only("trained on"), pools, f" by {weights}")
        return replace(self, makers=self.makers | seen, notes=(*self.notes, *notes))

    def pools(self) -> dict[KindName, list[Pool]]:
        """By what their rows are."""
        return {"real": self.real, "fake": self.fake, "synthetic": self.synthetic}

    def validation_rows(self, most: int | None = None, made: bool = False) -> list[Part]:
        """The held-out rows that a training validates on, reals first: pool, label, and rows in the order drawn.

        Args:
            most: of each class, evenly over its pools; always the same ones. None is :data:`VALIDATED`, of native
                images half as many, since two windows of each are judged.
            made: fakes are made of the reals where none are given, so none need be held out.

        Raises:
            UserError: nothing is held out of a class.
        """
        most = most or (VALIDATED // VALIDATION_WINDOWS if self.view.native else VALIDATED)
        parts: list[Part] = []
        for label, pools in ((0, self.real), (1, self.fake + self.synthetic)):
            if label and made and not pools:
                continue
            if not any(len(pool.val) for pool in pools):
                raise UserError(
                    f"there are no {'fakes' if label else 'reals'} to validate on",
                    hint="prepare with --split; of photos, 'synth generate --split val' makes them",
                )
            for pool in pools:
                rows = np.random.default_rng(0).permutation(pool.val)[: most // len(pools)]
                if len(rows):
                    parts.append((pool, label, rows))
        return parts

    def validation(
        self, most: int | None = None, recipe: Recipe | None = None, windows: int | None = None
    ) -> Validation:
        """At most ``most`` held-out images of each class, evenly over the pools. Damaged ones are told and left out.

        Args:
            most: of each class; see :meth:`validation_rows`.
            recipe: what makes fakes of the held-out reals where none are given.
            windows: of each native image; as many as the view has when None.

        Raises:
            UserError: nothing is held out of a class, or nothing of it can be read.
        """
        images: list[Pixels | Windows] = []
        labels: list[npt.NDArray[np.int64]] = []
        groups: list[npt.NDArray[np.str_]] = []
        kinds: list[Kind] = []
        parts = self.validation_rows(most, made=recipe is not None)
        for pool, label, rows in parts:
            pixels, whole = read_told(pool.shards, rows, self.view, windows)
            images.append(pixels)
            labels.append(np.full(len(whole), label))
            groups.append(_groups(pool.shards, whole))
            kinds += self._kinds(pool, whole)
        digest = digest_of(parts)
        if recipe is not None and not self.fake + self.synthetic:
            reals = joined(images)
            pixels = reals.images if isinstance(reals, Windows) else reals
            made = recipe.fakes(pixels, recipe.draw(np.random.default_rng(0), len(pixels)))
            images.append(replace(reals, images=made) if isinstance(reals, Windows) else made)
            labels.append(np.ones(len(reals), np.int64))
            groups += groups
            kinds += [Kind("made")] * len(reals)
            digest.update(f"{type(recipe).__name__} of them".encode())
        return Validation(
            joined(images), np.concatenate(labels), np.concatenate(groups), kinds, digest.hexdigest()
        )

    def _kinds(self, pool: Pool, rows: Indices) -> list[Kind]:
        kind = next(name for name, pools in self.pools().items() if any(pool is one for one in pools))
        columns = (pool.shards.columns[name][rows].tolist() for name in ("source", "generator"))
        return [Kind(kind, str(source), str(generator)) for source, generator in zip(*columns, strict=True)]

    def sources(self) -> list[str]:
        """Data sets that the training rows come from."""
        pools = self.real + self.fake + self.synthetic
        return sorted(
            {str(name) for pool in pools for name in np.unique(pool.shards.columns["source"][pool.train])}
        )

    def generators(self) -> list[str]:
        """Names of those whose fakes are among the training rows, where they have one."""
        pools = self.fake + self.synthetic
        found = {str(name) for p in pools for name in np.unique(p.shards.columns["generator"][p.train])}
        return sorted(found - {""})

    def audit(self) -> dict[str, Any]:
        """What gives the classes away besides forgery; see :mod:`crossfake.datasets.audit.audit`."""
        fakes = [pool.shards.path for pool in self.fake + self.synthetic if len(pool.train)]
        if not fakes:
            summary = "audit: not run: the fakes are made from the reals, so both have one history"
            return {"verdict": "not run", "summary": summary, "probes": {}}
        return audit_training([pool.shards.path for pool in self.real], fakes)

    def seen(self) -> Seen:
        """What a detector that is trained on this sees, its generators included."""
        return union(pool.seen() for pool in self.real + self.fake + self.synthetic) | self.makers

    def hashes(self) -> dict[str, str]:
        """Of every folder, by its absolute path: a bundle may be used from anywhere."""
        pools = self.real + self.fake + self.synthetic
        return {str(pool.shards.path.resolve()): pool.shards.hash for pool in pools}


def refuse_twice(sets: Sequence[ShardSet]) -> None:
    """Raise ``UserError`` if two folders hold the same images, which would count twice."""
    seen: dict[str, Path] = {}
    for shards in sets:
        if shards.hash in seen:
            other = seen[shards.hash]
            what = "is named twice" if other == shards.path else f"holds the same images as {other}"
            raise UserError(f"{shards.path} {what}", hint="name it once")
        seen[shards.hash] = shards.path


def _limited(pools: Sequence[Pool], most: int) -> list[Pool]:
    """At most ``most`` training rows in all, evenly over generators, those of a smaller limit among them."""
    parts = [(pool, rows) for pool in pools for rows in pool.by_generator()]
    if most < len(parts):
        raise UserError(
            f"{most} synthetic fakes are fewer than their {len(parts)} generators", hint=f"take {len(parts)}"
        )
    shares, left = {}, most
    for waiting, number in enumerate(sorted(range(len(parts)), key=lambda k: len(parts[k][1]))):
        shares[number] = min(len(parts[number][1]), left // (len(parts) - waiting))
        left -= shares[number]
    kept = [np.random.default_rng(0).permutation(rows)[: shares[k]] for k, (_, rows) in enumerate(parts)]
    chosen: dict[int, list[Indices]] = {}
    for (pool, _), rows in zip(parts, kept, strict=True):
        chosen.setdefault(id(pool), []).append(rows)
    return [
        replace(pool, train=np.sort(np.concatenate(chosen[id(pool)]))) if id(pool) in chosen else pool
        for pool in pools  # those without rows to train on validate as they do without a limit
    ]


def read_told(
    shards: ShardSet, rows: Indices, view: View = ALIGNED, windows: int | None = None
) -> tuple[Pixels | Windows, Indices]:
    """What a view shows of those images that are not damaged, and their rows; the others are told.

    Raises:
        UserError: all are damaged.
    """
    pixels, whole, damaged = view.read(shards, rows, windows)
    for text in damaged:
        tqdm.write(f"left out: {text}")
    if len(rows) and not len(whole):
        raise UserError(f"no image of {shards.path} can be read", hint="see 'crossfake data verify'")
    return pixels, whole


def _groups(shards: ShardSet, rows: Indices) -> npt.NDArray[np.str_]:
    named = shards.columns["group"][rows]
    return np.where(named == "", [f"{shards.path}:{row}" for row in rows], named).astype(str)


def digest_of(parts: Sequence[Part]) -> Any:
    """SHA-256 of the images of these rows, by their checksums; more may be added to it."""
    digest = hashlib.sha256()
    for pool, _, rows in parts:
        digest.update(pool.shards.columns["crc32"][rows].tobytes())
    return digest


def _check_firewall(pools: Sequence[Pool], makers: Seen) -> None:
    """No group and no picture may be trained on and also validate or test, in whichever folder it turns up."""
    trained = union(Seen.of(pool.shards, pool.train) for pool in pools)
    _refuse_held_out(trained | makers.only("trained on"), pools)


def _refuse_held_out(trained: Seen, pools: Sequence[Pool], by: str = "") -> None:
    held_out = [np.concatenate([pool.val, pool.shards.select(split="test")]) for pool in pools]
    refuse_overlap(
        trained, [pool.shards for pool in pools], held_out, _SPLIT_TOGETHER, by, now="is held out, and "
    )
