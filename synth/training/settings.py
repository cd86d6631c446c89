"""What can be set about the training of a generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from crossfake.bounds import (
    MOST,
    Bounds,
    LongSeed,
    Minutes,
    Share,
    StepSize,
    ThreadCount,
    Weight,
    check_bounds,
)
from crossfake.errors import UserError
from crossfake.options import Folder, Option, Precision, Shards
from crossfake.synth.settings import FACTOR, Model, Upsample

Augment = Literal["none", "ada", "ada-all", "diffaugment"]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run. Zero or None means: chosen from the resolution and the device.

    Attributes:
        data: shards of real images, from 'crossfake data prepare'. One folder or several.
        out: run folder [default: runs/FAMILY].
        family: kind of generator: 'synth families' lists them. See ``crossfake.synth.families.base.FAMILIES``.
        kimg: length in thousands of images. They are real images shown.
        minutes: stop after so many minutes if that comes first.
        split: rows to train on: ``train``. What a generator learned from is no test, and chooses no threshold, of a
            detector that learns from its fakes.
        condition: column whose values are classes, such as source. It is ``source``, ``generator`` or ``label``.
        batch: images per step; 0 chooses. They are those of all processes together.
        channels: width of the networks; 0 chooses.
        gamma: weight of the gradient penalty [default: the family's].
        lr: Adam's step size [default: the family's].
        path_weight: of path-length regularisation [default: the family's].
        mixing: share of images made of two styles [default: the family's].
        noise: whether the layers of a style generator get noise [default: the family's].
        augment: what is done to images before the discriminator sees them. ``ada`` is Karras et al. 2020b, ``ada-all``
            adds its filters, noise and cutout, ``diffaugment`` is Zhao et al. 2020.
        window: side of windows of native photos to learn from; 0 is whole images. Those are of one size.
        upsample: how a decoder of windows enlarges [default: nearest].
        adversarial: weight of a discriminator of patches. It stands beside the distance of a reconstruction.
        init: run or model to start from.
        freeze: parts of the discriminator that keep its weights. They are counted from the image on.
        watch: images whose quality is measured at every snapshot. 0 is none.
        snapshot_kimg: distance between checkpoints and sample sheets.
        seed: of the weights and of everything drawn.
        resume: go on from the newest checkpoint in --out, with its settings.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
        threads: of torch, on a CPU [default: one or all, whichever a few steps are quicker with]. A variable
            OMP_NUM_THREADS counts as chosen. A resumed run keeps to what it began with.
    """

    data: Path | tuple[Shards, ...]
    out: Folder
    family: str = "stylegan2"
    kimg: Annotated[float, Bounds(0, MOST, above=True)] = 200.0
    minutes: Minutes | None = None
    split: Annotated[str, Option(hidden=True)] = "train"
    condition: str = ""
    batch: Annotated[int, Bounds(2, 65_536, zero=True)] = 0
    channels: Annotated[int, Bounds(1, 65_536, zero=True)] = 0
    gamma: Weight | None = None
    lr: StepSize | None = None
    path_weight: Weight | None = None
    mixing: Share | None = None
    noise: bool | None = None
    augment: Augment = "none"
    window: Annotated[int, Bounds(32, 1024, zero=True)] = 0
    upsample: Upsample = ""
    adversarial: Weight = 0.0
    freeze: Annotated[int, Bounds(0, 100)] = 0
    init: Model | None = None
    snapshot_kimg: Annotated[float, Bounds(0, MOST, above=True)] = 10.0
    watch: Annotated[int, Bounds(100, MOST, zero=True)] = 0  # fewer say nothing
    seed: LongSeed = 0
    resume: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    threads: ThreadCount = 0

    def __post_init__(self) -> None:
        from crossfake.synth.families.base import FAMILIES  # brings torch

        check_bounds(self)
        family = FAMILIES.get(self.family)
        if family.learner is None:
            raise UserError(
                f"{self.family} has nothing to learn", hint="use it with 'synth generate --family'"
            )
        if self.split != "train":
            raise UserError(
                f"a generator that learns from {self.split!r} rows would carry them into its detectors' training",
                hint="leave --split out: the train rows are taken",
            )
        if self.window and not family.windows:
            raise UserError(f"{self.family} does not learn from windows", hint="leave --window out")
        if self.window % FACTOR:
            raise UserError(f"a window of {self.window} has no quarter", hint=f"give a multiple of {FACTOR}")
        if (self.upsample or self.adversarial) and not self.window:
            raise UserError(
                "--upsample and --adversarial are for an autoencoder of windows", hint="give --window 96, too"
            )
        if self.window and self.watch:
            raise UserError(
                "a model that only works on photos has no images to watch", hint="leave --watch out"
            )
        if self.condition and not family.conditional:
            raise UserError(f"{self.family} knows no classes", hint="leave --condition out")
        if self.freeze and not hasattr(family.discriminator, "freeze"):
            raise UserError(f"{self.family} has no parts that can be frozen", hint="leave --freeze out")
        if self.freeze and self.init is None and not self.resume:
            raise UserError("frozen parts would stay random", hint="give --freeze together with --init")
