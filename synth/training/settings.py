"""What can be set about the training of a generator, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from crossfake.bounds import MOST, Bounds, LongSeed, Minutes, Share, StepSize, Weight, check_bounds
from crossfake.device import compute_dtype, pick_device, stored_device
from crossfake.errors import UserError
from crossfake.options import Precision
from crossfake.runs import Run
from crossfake.synth.families.base import FAMILIES, log2_size
from crossfake.synth.families.windows import FACTOR, UPSAMPLES
from crossfake.synth.training.learner import Plan

AUGMENTS = ("none", "ada", "ada-all", "diffaugment")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run. Zero or None means: chosen from the resolution and the device.

    Attributes:
        data: shard folder of real images, or several.
        out: run folder.
        family: a name from ``crossfake.synth.families.base.FAMILIES``.
        kimg: length in thousands of real images shown.
        minutes: stop after so many minutes if that comes first.
        split: rows to train on: ``train``. What a generator learned from is no test, and chooses no threshold, of a
            detector that learns from its fakes.
        condition: column of the shards (``source``, ``generator``, ``label``) whose values are classes.
        batch: images per step, over all processes.
        channels: width of the networks.
        gamma: weight of the gradient penalty.
        lr: Adam's step size; the family's own by default.
        path_weight: of path-length regularisation; the family's own by default.
        mixing: share of images made of two styles; the family's own by default.
        noise: whether the layers of a style generator get noise; the family's own by default.
        augment: what is done to all that the discriminator sees: ``none``, ``ada`` (Karras et al. 2020b),
            ``ada-all`` (its filters, noise and cutout, too) or ``diffaugment`` (Zhao et al. 2020).
        window: side of the windows of native photos that it learns from; 0 is whole images of one size.
        upsample: how a decoder that learns from windows enlarges: ``nearest``, ``transposed``, ``pixelshuffle`` or
            ``bilinear``.
        adversarial: weight of a discriminator of patches beside the distance of a reconstruction.
        freeze: parts of the discriminator, from the image on, that keep their weights.
        init: a run or model to start from.
        snapshot_kimg: distance between checkpoints and sample sheets.
        watch: images whose quality is measured at every snapshot; 0 is none.
        resume: go on from the newest checkpoint in ``out``.
    """

    data: Path | tuple[Path, ...]
    out: Path
    family: str = "stylegan2"
    kimg: Annotated[float, Bounds(0, MOST, above=True)] = 200.0
    minutes: Minutes | None = None
    split: str = "train"
    condition: str = ""
    batch: Annotated[int, Bounds(2, 65_536, zero=True)] = 0
    channels: Annotated[int, Bounds(1, 65_536, zero=True)] = 0
    gamma: Weight | None = None
    lr: StepSize | None = None
    path_weight: Weight | None = None
    mixing: Share | None = None
    noise: bool | None = None
    augment: str = "none"
    window: Annotated[int, Bounds(32, 1024, zero=True)] = 0
    upsample: str = ""
    adversarial: Weight = 0.0
    freeze: Annotated[int, Bounds(0, 100)] = 0
    init: Path | None = None
    snapshot_kimg: Annotated[float, Bounds(0, MOST, above=True)] = 10.0
    watch: Annotated[int, Bounds(100, MOST, zero=True)] = 0  # fewer say nothing
    seed: LongSeed = 0
    resume: bool = False
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_bounds(self)
        family = FAMILIES.get(self.family)
        if family.learner is None:
            raise UserError(
                f"{self.family} has nothing to learn", mend="use it with 'synth generate --family'"
            )
        if self.split != "train":
            raise UserError(
                f"a generator that learns from {self.split!r} rows would carry them into its detectors' training",
                mend="leave --split out: the train rows are taken",
            )
        if self.augment not in AUGMENTS:
            raise UserError(f"there is no augmentation {self.augment!r}", mend=f"use {', '.join(AUGMENTS)}")
        if self.window and not family.windows:
            raise UserError(f"{self.family} does not learn from windows", mend="leave --window out")
        if self.window % FACTOR:
            raise UserError(f"a window of {self.window} has no quarter", mend=f"give a multiple of {FACTOR}")
        if (self.upsample or self.adversarial) and not self.window:
            raise UserError(
                "--upsample and --adversarial are for an autoencoder of windows", mend="give --window 96, too"
            )
        if self.upsample and self.upsample not in UPSAMPLES:
            raise UserError(f"there is no upsampling {self.upsample!r}", mend=f"use {', '.join(UPSAMPLES)}")
        if self.window and self.watch:
            raise UserError(
                "a model that only works on photos has no images to watch", mend="leave --watch out"
            )
        if self.condition and not family.conditional:
            raise UserError(f"{self.family} knows no classes", mend="leave --condition out")
        if self.freeze and not hasattr(family.discriminator, "freeze"):
            raise UserError(f"{self.family} has no parts that can be frozen", mend="leave --freeze out")
        if self.freeze and self.init is None and not self.resume:
            raise UserError("frozen parts would stay random", mend="give --freeze together with --init")

    @classmethod
    def resumed(cls, out: Path, **changed: Any) -> TrainSettings:
        """The settings that the run in ``out`` had, with some of them changed: a longer ``kimg``, say."""
        try:
            config = Run(out).config
        except OSError as error:
            raise UserError(f"{out} holds no run to resume", mend="start it without --resume") from error
        if config.get("kind") != "synth" or "family" not in config:
            raise UserError(f"{out} holds no training of a generator", mend="name a run of 'synth train'")
        for name in ("family", "channels", "condition", "freeze", "window", "upsample"):
            Run(out).refuse_other(name, changed.get(name))
        # what was chosen for the resolution and device then is kept, so that the run goes on as it began
        kept = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        init = Path(kept["init"]) if kept.get("init") else None
        paths = {"data": tuple(folders_of(kept["data"])), "init": init, "out": Path(out)}
        kept["device"] = stored_device(kept.get("device", "auto"))
        return cls(**{**kept, **paths, **changed, "freeze": kept.get("freeze", 0), "resume": True})


def folders_of(data: Path | str | Sequence[Path | str]) -> list[Path]:
    """One folder or several, as a list."""
    return [Path(data)] if isinstance(data, Path | str) else [Path(folder) for folder in data]


def make_plan(settings: TrainSettings, size: int, classes: int = 0) -> Plan:
    """What was not said is the family's own, or follows Karras et al. 2020b's ``auto`` configuration, with a smaller
    batch on a CPU: early on, steps count for more."""
    if not settings.window:
        log2_size(size)
    family, device = FAMILIES.get(settings.family), pick_device(settings.device)
    on_gpu = device.type == "cuda"
    recipe = family.recipe if on_gpu else family.recipe_cpu or family.recipe
    batch = settings.batch or (max(4, min(64, 4096 * 32 // size**2)) if on_gpu else family.batch_cpu)

    def chosen(name: str) -> Any:
        asked = getattr(settings, name)
        return getattr(recipe, name) if asked is None else asked

    gamma = chosen("gamma")
    return Plan(
        size=size,
        batch=batch,
        channels=settings.channels or (family.channels_gpu if on_gpu else family.channels_cpu),
        classes=classes,
        gamma=0.0002 * size**2 / batch if gamma is None else gamma,
        lr=settings.lr or recipe.lr,
        path_weight=chosen("path_weight"),
        mixing=chosen("mixing"),
        noise=chosen("noise"),
        augment=settings.augment,
        upsample=settings.upsample or ("nearest" if settings.window else ""),
        adversarial=settings.adversarial,
        freeze=settings.freeze,
        family=family,
        recipe=recipe,
        device=device,
        dtype=compute_dtype(device, settings.precision),
    )
