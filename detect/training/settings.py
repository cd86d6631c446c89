"""What can be set about the training of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from crossfake.bounds import Bounds, Count, CountOrNone, Seed, Share, StepSize, check_bounds
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.sampling import Balance, Schedule
from crossfake.detect.view import PixelKind, View, WindowSide
from crossfake.device import Precision, stored_device
from crossfake.errors import UserError
from crossfake.runs import Run

Tune = Literal["scratch", "full", "probe", "gradual"]
Loss = Literal["bce", "contrastive"]

MATCHED = ("steps", "batch", "eval_every", "seed", "balance", "synthetic_per_generator")
_WHERE = ("real", "fake", "synthetic", "out", "device", "resume", "force", "match_steps", "stop_after")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one detector training.

    Attributes:
        real: shard folders of reals.
        fake: shard folders of given fakes.
        synthetic: shard folders of one's own fakes. Steps, batch and class balance stay the same with and without
            them, so a comparison of the two changes one thing.
        out: run folder.
        model: a name that :func:`crossfake.detect.models.create_model` knows.
        options: the model's own, such as ``{"head": "nearest"}``.
        view: what the network sees: images resampled to one size (``aligned``), or windows of ``native`` ones, at
            random places in training.
        window: side of these windows.
        pair: put each fake that was made of one of the reals beside that real, in the same window and changed alike.
        pretrained: start from published weights.
        weights: start from this file instead.
        tune: what is trained: all of a network that starts from nothing (``scratch``) or from weights (``full``); the
            head alone (``probe``); or the head, and then one stage after another (``gradual``). By default ``scratch``
            without weights and ``full`` with them.
        layer_decay: step size of a stage relative to the next one on the way to the head.
        steps: optimiser steps at most.
        batch: images per step over all processes, half of them real.
        lr: AdamW's largest step size; cosine decay to 0 after a short warm-up.
        weight_decay: AdamW's.
        recipe: a name from :data:`crossfake.detect.training.recipes.RECIPES`. ``sbi`` trains on reals alone;
            fakes that are given to it serve for validation only.
        augment: probability of each change that the recipe makes to an image.
        benign: edit a quarter of the reals as people retouch photos, and the partner of each alike when paired.
        mixup: alpha of mixup; 0 is none.
        loss: ``bce``, binary cross entropy; ``contrastive`` adds a tenth of the supervised contrastive loss (Khosla et
            al. 2020) of the features.
        label_smoothing: share of certainty that is taken from the labels.
        ema: decay of the weights' moving average, which is what is validated and kept; 0 is none.
        balance: whether the sources and generators of a class are drawn equally often (``source``) or in proportion
            to their images (``none``).
        synthetic_ratio: share of the fakes in a batch that is synthetic when there are both kinds.
        synthetic_schedule: ``constant``, ``warmup`` or ``curriculum``; see
            :class:`~crossfake.detect.training.sampling.Sampler`.
        synthetic_per_generator: draw one's own generators equally often rather than in proportion.
        synthetic_limit: train on at most so many of one's own fakes, evenly over their generators; 0 is all. The
            images of a smaller limit are among those of a larger one.
        eval_every: steps between validations.
        patience: validations without a better AP after which training stops.
        match_steps: a run whose steps, batch, class balance, validations and seed are taken; early stopping is off, so
            both are trained equally long.
        stop_after: train exactly so many steps, whatever the validations say; 0 lets ``patience`` decide.
        resume: go on from the last checkpoint in ``out``.
        force: train although the folders were cropped differently, or what a generator learned from is unknown.
    """

    real: tuple[Path, ...]
    out: Path
    fake: tuple[Path, ...] = ()
    synthetic: tuple[Path, ...] = ()
    model: str = "cnn"
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    weights: Path | None = None
    view: PixelKind = "aligned"
    window: WindowSide = 128
    pair: bool = False
    tune: Tune | None = None
    layer_decay: Annotated[float, Bounds(0, 1, above=True)] = 1.0
    steps: Count = 1500
    batch: Annotated[int, Bounds(4, 65_536)] = 64
    lr: StepSize = 1e-3
    weight_decay: Annotated[float, Bounds(0, 1000)] = 0.01
    recipe: str = "wang2020"
    augment: Share = 0.5
    benign: bool = False
    loss: Loss = "bce"
    mixup: Annotated[float, Bounds(0, 1000)] = 0.0
    label_smoothing: Share = 0.0
    ema: Annotated[float, Bounds(0, 1, below=True)] = 0.0
    balance: Balance = "source"
    synthetic_ratio: Share = 0.5
    synthetic_schedule: Schedule = "constant"
    synthetic_per_generator: bool = True
    synthetic_limit: CountOrNone = 0
    eval_every: Count = 100
    patience: Count = 5
    match_steps: Path | None = None
    stop_after: CountOrNone = 0
    seed: Seed = 0
    device: str = "auto"
    precision: Precision = "auto"
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.match_steps is not None and not self.stop_after:
            self._match(self.match_steps)
        check_bounds(self)
        known = {
            "tune": Tune, "balance": Balance, "synthetic_schedule": Schedule, "view": PixelKind, "loss": Loss,
        }  # fmt: skip
        for name, choice in known.items():
            if getattr(self, name) not in (*get_args(choice), *([None] if name == "tune" else [])):
                raise UserError(
                    f"there is no {name} {getattr(self, name)!r}",
                    mend=f"choose one of {', '.join(get_args(choice))}",
                )
        if self.synthetic_limit and not self.synthetic:
            raise UserError(
                f"{self.synthetic_limit} synthetic fakes cannot be chosen of none",
                mend="name them with --with-synthetic DIR",
            )
        if self.synthetic_schedule != "constant" and not self.synthetic:
            raise UserError(
                f"a {self.synthetic_schedule} of synthetic fakes needs some",
                mend="name them with --with-synthetic DIR, or leave --synthetic-schedule out",
            )
        starts = self.pretrained or self.weights is not None
        if self.tune == "scratch" and starts:
            raise UserError("training from scratch takes no weights", mend="leave them or --tune scratch out")
        if self.tune in ("full", "probe", "gradual") and not starts:
            raise UserError(
                f"--tune {self.tune} needs a network that has learnt something",
                mend="give --pretrained or --weights FILE",
            )
        if RECIPES.get(self.recipe).reals_only:
            if self.synthetic:
                raise UserError(
                    f"{self.recipe} makes its fakes from the reals",
                    mend="leave --with-synthetic out, or choose another --recipe",
                )
            if self.batch % 2:
                raise UserError(f"{self.recipe} pairs images", mend="give --batch an even number")
            if self.pair:
                raise UserError(f"{self.recipe} pairs images itself", mend="leave --pair out")
        if self.pair and self.batch % 2:
            raise UserError("pairs need a batch of an even number", mend="give --batch an even number")
        if self.loss == "contrastive" and self.mixup:
            raise UserError(
                "mixed images have no class to contrast", mend="leave --mixup or --loss contrastive out"
            )

    @property
    def seen_as(self) -> View:
        """The view that the detector will have."""
        return View(self.view, self.window)

    def _match(self, path: Path) -> None:
        other, lines = Run(path), Run(path).log_lines()
        if not other.config_file.exists() or not lines:
            raise UserError(f"{path} holds no training to match", mend="name a run of 'detect train'")
        config = other.config
        _check_training(other, config)
        if not other.finished:
            raise UserError(
                f"{path} has not finished: its control would make fewer steps",
                mend=f"finish it first with 'detect train --out {path} --resume'",
            )
        for name in MATCHED:
            if name in config:
                object.__setattr__(self, name, config[name])
        object.__setattr__(self, "stop_after", lines[-1]["step"])

    def differences(self) -> list[str]:
        """What besides the data is not as in the run that is matched: such a comparison changes several things."""
        if self.match_steps is None or not (other := Run(self.match_steps)).config_file.exists():
            return []
        config, own = other.config, asdict(self)
        unlike = (
            *_WHERE,
            *MATCHED,
            "patience",
            *(() if self.synthetic else ("synthetic_schedule", "synthetic_limit", "pair")),
        )
        names = [f.name for f in fields(self) if f.name not in unlike]
        return [
            f"{name} {own[name]} instead of {config[name]}"
            for name in names
            if name in config
            and config[name] != (str(own[name]) if isinstance(own[name], Path) else own[name])
        ]

    @classmethod
    def resumed(cls, out: Path, **changed: Any) -> TrainSettings:
        """The settings that the run in ``out`` had, with some of them changed."""
        try:
            kept = cls._kept(Run(out))
        except OSError as error:
            raise UserError(f"{out} holds no run to resume", mend="start it without --resume") from error
        for name in ("model", "tune", "recipe"):
            Run(out).refuse_other(name, changed.get(name))
        return cls(**{**kept, **changed, "out": Path(out), "resume": True})

    @classmethod
    def matched(cls, run: Path, **changed: Any) -> TrainSettings:
        """The control of a run: its settings and data without its synthetic fakes, with some of them changed."""
        try:
            kept = cls._kept(Run(run))
        except OSError as error:
            raise UserError(
                f"{run} holds no training to match", mend="name a run of 'detect train'"
            ) from error
        fixed = {
            "synthetic": (),
            "synthetic_limit": 0,
            "stop_after": 0,
            "match_steps": run,
            "resume": False,
            "force": False,
        }
        if not changed.get("synthetic"):
            fixed |= {"synthetic_schedule": "constant", "pair": False}
        return cls(**{**kept, **fixed, **changed})

    @classmethod
    def _kept(cls, run: Run) -> dict[str, Any]:
        config = run.config
        _check_training(run, config)
        kept = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        for name in ("real", "fake", "synthetic"):
            kept[name] = tuple(Path(folder) for folder in kept[name])
        for name in ("weights", "match_steps"):
            kept[name] = Path(kept[name]) if kept.get(name) else None
        kept["device"] = stored_device(kept.get("device", "auto"))
        return kept


def _check_training(run: Run, config: Mapping[str, Any]) -> None:
    if config.get("kind") != "detect" or "synthetic" not in config:
        raise UserError(f"{run.path} holds no training", mend="name a run of 'detect train'")
