"""What can be set about the training of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from crossfake.bounds import (
    Bounds,
    Count,
    CountOrNone,
    Seed,
    Share,
    StepSize,
    ThreadCount,
    WindowSide,
    check_bounds,
)
from crossfake.cli import Existing
from crossfake.errors import UserError
from crossfake.options import Folder, Option, PixelKind, Precision, Shards, There

Tune = Literal["scratch", "full", "probe", "gradual"]
Loss = Literal["bce", "contrastive"]
Schedule = Literal["constant", "warmup", "curriculum"]
Balance = Literal["source", "none"]

RECIPE_NAMES = (
    *("wang2020", "robust", "sbi", "plain"),
    *("native", "native-compression", "native-rescaling", "native-strong"),
)
_MATCHED = Existing("config.yaml", wrong="holds no training to match", hint="name a run of 'detect train'")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one detector training.

    Attributes:
        real: shards of reals; several may follow.
        fake: shards of given fakes; several may follow.
        synthetic: your own fakes; alone: the newest generated. Steps, batch and class balance stay the same with and
            without them, so a comparison of the two changes one thing.
        out: run folder [default: runs/detect-MODEL].
        model: a detector's name, or any timm model: resnet18 or vgg16, say. See
            :func:`crossfake.detect.models.create_model`.
        options: an option of the model's own: head=nearest, say.
        pretrained: start from published weights.
        weights: start from this weight file.
        view: see images resampled to one size, or windows of native ones. Windows are at random places in training.
        window: side of a native view's windows.
        pair: put each fake beside the real that it was made of, changed alike. Both are seen in the same window.
        tune: what is trained: all; the head (probe); stage after stage (gradual)
            [default: scratch, or full with weights]. ``scratch`` is all of a network that starts from nothing,
            ``full`` all of one that starts from weights; ``gradual`` is the head, and then one stage after another.
        layer_decay: step size of a stage relative to the next: 0.75, say. The next is the one nearer to the head.
        recipe: what is done to the images; sbi makes its fakes from the reals; native… are for windows. It is a name
            from :data:`crossfake.detect.training.recipes.RECIPES`. ``sbi`` trains on reals alone; fakes that are
            given to it serve for validation only.
        augment: probability of each of the recipe's changes.
        benign: retouch a quarter of the reals: such photos are no fakes. The partner of each, where they are paired,
            is retouched alike.
        mixup: alpha of mixup: 0.2, say. 0 is none.
        label_smoothing: take so much certainty from the labels.
        loss: ``contrastive``: also draw the features of a class together. To binary cross entropy (``bce``) it adds a
            tenth of the supervised contrastive loss (Khosla et al. 2020) of the features.
        steps: optimiser steps at most.
        batch: images per step, half of them real. They are those of all processes together.
        lr: AdamW's largest step size. Cosine decay to 0 after a short warm-up.
        weight_decay: AdamW's.
        ema: average the weights with this decay: 0.999, say. The average is what is validated and kept; 0 is none.
        eval_every: steps between validations.
        patience: validations without a better AP before stopping.
        balance: draw the sources and generators of a class equally often, or as many as there are.
        synthetic_ratio: share of synthetic among the fakes of a batch. It counts when there are both kinds.
        synthetic_schedule: ``warmup``: the ratio rises from 0; ``curriculum``: easily detected fakes come first. See
            :class:`~crossfake.detect.training.sampling.Sampler`.
        synthetic_per_generator: draw your generators equally often, or in proportion to their images.
        synthetic_limit: train on so many of your fakes; 0: all. They are spread evenly over the generators; the images
            of a smaller limit are among those of a larger one.
        match_steps: control of RUN: its settings, its data without its synthetic fakes, and as many steps. Class
            balance, validations and seed are also its own; early stopping is off, so both are trained equally long.
        stop_after: train exactly so many steps, whatever the validations say; 0 lets ``patience`` decide.
        seed: of the weights and of everything drawn.
        resume: go on from the last checkpoint in --out, with its settings.
        force: train although crops differ, or what a generator learned from is unknown.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
        threads: of torch, on a CPU [default: one or all, whichever a few steps are quicker with]. A variable
            OMP_NUM_THREADS counts as chosen. A resumed run keeps to what it began with.
    """

    real: tuple[Shards, ...]
    out: Folder
    fake: tuple[Shards, ...] = ()
    synthetic: Annotated[tuple[Shards, ...], Option("--with-synthetic")] = ()
    model: str = "cnn"
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    weights: There | None = None
    view: PixelKind = "aligned"
    window: WindowSide = 128
    pair: bool = False
    tune: Tune | None = None
    layer_decay: Annotated[float, Bounds(0, 1, above=True)] = 1.0
    steps: Count = 1500
    batch: Annotated[int, Bounds(4, 65_536)] = 64
    lr: StepSize = 1e-3
    weight_decay: Annotated[float, Bounds(0, 1000)] = 0.01
    recipe: Annotated[str, click.Choice(RECIPE_NAMES)] = "wang2020"
    augment: Share = 0.5
    benign: bool = False
    loss: Loss = "bce"
    mixup: Annotated[float, Bounds(0, 1000)] = 0.0
    label_smoothing: Share = 0.0
    ema: Annotated[float, Bounds(0, 1, below=True)] = 0.0
    balance: Balance = "source"
    synthetic_ratio: Share = 0.5
    synthetic_schedule: Schedule = "constant"
    synthetic_per_generator: Annotated[bool, Option("--synthetic-per-generator/--synthetic-per-image")] = True
    synthetic_limit: CountOrNone = 0
    eval_every: Count = 100
    patience: Count = 5
    match_steps: Annotated[Path, _MATCHED, Option(metavar="RUN")] | None = None
    stop_after: CountOrNone = 0
    seed: Seed = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: ThreadCount = 0
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        from crossfake.detect.training.recipes import RECIPES  # brings torch

        check_bounds(self)
        if self.synthetic_limit and not self.synthetic:
            raise UserError(
                f"{self.synthetic_limit} synthetic fakes cannot be chosen of none",
                hint="name them with --with-synthetic DIR",
            )
        if self.synthetic_schedule != "constant" and not self.synthetic:
            raise UserError(
                f"a {self.synthetic_schedule} of synthetic fakes needs some",
                hint="name them with --with-synthetic DIR, or leave --synthetic-schedule out",
            )
        starts = self.pretrained or self.weights is not None
        if self.tune == "scratch" and starts:
            raise UserError("training from scratch takes no weights", hint="leave them or --tune scratch out")
        if self.tune in ("full", "probe", "gradual") and not starts:
            raise UserError(
                f"--tune {self.tune} needs a network that has learnt something",
                hint="give --pretrained or --weights FILE",
            )
        if RECIPES.get(self.recipe).reals_only:
            if self.synthetic:
                raise UserError(
                    f"{self.recipe} makes its fakes from the reals",
                    hint="leave --with-synthetic out, or choose another --recipe",
                )
            if self.batch % 2:
                raise UserError(f"{self.recipe} pairs images", hint="give --batch an even number")
            if self.pair:
                raise UserError(f"{self.recipe} pairs images itself", hint="leave --pair out")
        if self.pair and self.batch % 2:
            raise UserError("pairs need a batch of an even number", hint="give --batch an even number")
        if self.loss == "contrastive" and self.mixup:
            raise UserError(
                "mixed images have no class to contrast", hint="leave --mixup or --loss contrastive out"
            )
