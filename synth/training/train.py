"""Training of a generator of any family: its data, sample sheets, and the model that it leaves."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from crossfake.datasets.firewall import Seen, union
from crossfake.datasets.torch_data import ShardDataset
from crossfake.errors import UserError
from crossfake.fit.checkpoints import newest_checkpoint, open_run
from crossfake.fit.learner import FitArguments, Training
from crossfake.fit.loop import fit, measure
from crossfake.images import contact_sheet, save_png
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.synth.sampling.models import Model, save_model, seen_by
from crossfake.synth.training.learner import GeneratorLearner, count_parameters
from crossfake.synth.training.runs import folders_of, make_plan
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.transfer import transfer
from crossfake.synth.training.watch import Monitor, Watch, write_film

_GRID = 64  # images of the fixed-latent sample sheet
_MEASURED = 16  # steps: as far apart as those of lazy regularisation are at most


class Batches:
    """Order of the data: epoch e is the permutation seeded by (seed, e), so step k needs no memory of k - 1.

    ``share`` takes a process's part of each batch; ``begin`` is told the epoch before one that goes on in another.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        start: int,
        share: Callable[[list[int]], list[int]] = lambda batch: batch,
        begin: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        self.count, self.batch, self.seed, self.start = count, batch, seed, start
        self.share, self.begin = share, begin

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, int)
        for first in itertools.count(self.start * self.batch, self.batch):
            batch = []
            for position in range(first, first + self.batch):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
                batch.append(int(order[position % self.count]))
            self.begin(epoch)
            yield self.share(batch)


@dataclass(frozen=True)
class ImageClasses:
    """What the images are told apart by: the values of a column of the shards."""

    names: tuple[str, ...]
    indices: Tensor  # [N] int64: the class of each image

    @classmethod
    def from_column(cls, data: ShardDataset, column: str) -> ImageClasses:
        """The values of a column as classes; none for an empty name. ``UserError`` where it has one value."""
        if not column:
            return cls((), torch.zeros(0, dtype=torch.int64))
        if column not in ("source", "generator", "label"):
            raise UserError(f"{column!r} is no column of classes", hint="use source, generator or label")
        names, indices = np.unique(data.column(column).astype(str), return_inverse=True)
        if len(names) < 2:
            raise UserError(f"all images have the {column} {str(names[0])!r}", hint="leave --condition out")
        return cls(tuple(names.tolist()), torch.from_numpy(indices.astype(np.int64)))


class GeneratorTraining(Training):
    """One run while it goes on.

    Raises:
        UserError: bad settings or data.
    """

    learner: GeneratorLearner
    guard: Monitor
    watch: Watch | None = None

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.data = ShardDataset(
            folders_of(settings.data),
            settings.split,
            label=0,
            window=settings.window or None,
            seed=settings.seed,
        )
        self.classes = ImageClasses.from_column(self.data, settings.condition)
        self.plan = plan = make_plan(settings, self.data.size, len(self.classes.names))
        if len(self.data) < plan.batch:
            raise UserError(
                f"{' and '.join(map(str, folders_of(settings.data)))} has {len(self.data)} training images, "
                "fewer than a batch",
                hint="give a smaller --batch",
            )
        assert plan.family.learner is not None  # the settings refuse such a family
        self.learner = plan.family.learner(plan, settings.seed)

    @property
    def arguments(self) -> FitArguments:
        settings, batch = self.settings, self.plan.batch
        return FitArguments(
            title=settings.family,
            steps=math.ceil(settings.kimg * 1000 / batch),
            log_every=max(1, round(1000 / batch)),  # a kimg
            snapshot_every=max(1, round(settings.snapshot_kimg * 1000 / batch)),
            snapshot_when_stopped=True,  # the model is used as it is, too
            minutes=settings.minutes,
            measured=_MEASURED,
            unit="img",
            per_step=batch,
            threads=settings.threads,
        )

    @contextmanager
    def context(self) -> Iterator[None]:
        """Meanwhile denormal numbers are zero where they would slow a CPU down; whoever called finds it as it was."""
        flush = self.plan.dtype is torch.float32 and self.plan.device.type == "cpu"
        before = bool(torch.tensor(1e-40).mul(1) == 0)
        torch.set_flush_denormal(flush or before)
        try:
            yield
        finally:
            torch.set_flush_denormal(before)

    @property
    def config(self) -> dict[str, Any]:
        """The settings with all that was chosen, as ``config.yaml`` keeps them."""
        plan = self.plan
        chosen = {
            name: getattr(plan, name)
            for name in ("size", "batch", "channels", "gamma", "lr", "path_weight", "mixing", "noise")
        }
        return (
            asdict(self.settings)
            | chosen
            | {
                "dtype": str(plan.dtype).removeprefix("torch."),
                "ran_on": str(plan.device),
                "images": len(self.data),
                "data_hashes": {str(shards.path): shards.hash for shards in self.data.sets},
                "classes": list(self.classes.names),
                "processes": self.learner.ranks.world,
            }
        )

    def describe(self) -> str:
        plan, learner = self.plan, self.learner
        parts = [
            f"{name} {count_parameters([getattr(learner, part)]) / 1e6:.2f} M"
            for name, part in (("G", "generator"), ("D", "discriminator"))
            if hasattr(learner, part)
        ]
        return (
            f"{self.settings.family} {plan.size}×{plan.size} on {len(self.data):,} images: batch {plan.batch}, "
            f"channels {plan.channels}, gamma {plan.gamma:.4g}, {self.config['dtype']}, {', '.join(parts)} parameters"
        )

    def batches(self) -> Generator[tuple[Tensor, Tensor | None]]:
        on_gpu = self.plan.device.type == "cuda"
        order = Batches(
            len(self.data),
            self.plan.batch,
            self.settings.seed,
            self.learner.step,
            self.learner.ranks.share,
            self.data.set_epoch,
        )
        yield from DataLoader(
            self.data,
            batch_sampler=order,
            num_workers=2 if on_gpu else 0,
            collate_fn=partial(_collate, classes=self.classes),
            pin_memory=on_gpu,
        )

    def check_unchanged(self, run: Run) -> None:
        before = run.config.get("data_hashes") or {}
        for path, digest in self.config["data_hashes"].items():
            if before and digest not in before.values():
                raise UserError(
                    f"{path} holds other images or splits than {run.path} began with",
                    hint="put them back, or start another --out",
                )

    def begin(self, run: Run) -> None:
        settings = self.settings
        reals = np.stack([self.data.image(i) for i in range(min(_GRID, len(self.data)))])
        self.guard = Monitor(reals)
        if settings.watch:
            first, *_ = folders_of(settings.data)
            self.watch = Watch(run, first, settings.split, settings.watch, settings.device)
        if self.learner.step == 0 and self.is_main:
            save_png(contact_sheet(reals), run.samples / "reals.png")

    def check(self, means: dict[str, float], run: Run) -> None:
        self.guard.check(means, self.learner.images_seen / 1000, newest_checkpoint(run.path))

    def rates(self, recent: float, overall: float) -> dict[str, float]:
        left = self.arguments.steps - self.learner.step
        return {"sec_per_kimg": recent * 1000 / self.plan.batch, "eta_min": overall * left / 60}

    def snapshot(self, run: Run) -> dict[str, float]:
        """Exported model, sample sheet of the fixed latents, and what can be measured of them."""
        model = self.model()
        save_model(run.model, model.family, model.network, model.card, self.seen)
        if model.needs_photos:
            photos = [self.data.image(i) for i in range(min(_GRID, len(self.data)))]
            images = np.stack(model.edit(photos, [], torch.zeros(0)))
        else:
            images = model.images(0, _GRID, self.settings.seed)
        save_png(contact_sheet(images), run.samples / f"{self.learner.images_seen / 1000:010.3f}.png")
        figures = {} if model.needs_photos else {"diversity": self.guard.look(images)}
        return figures | (self.watch.measure() if self.watch else {})

    def log_line(self, figures: dict[str, float]) -> dict[str, float]:
        kimg = self.learner.images_seen / 1000
        return {"kimg": round(kimg, 3), **{name: round(value, 5) for name, value in figures.items()}}

    def logged(self, figures: dict[str, float], bar: tqdm, snapshot: bool) -> None:
        bar.set_postfix_str(f"loss {figures['loss']:.2f}")
        if snapshot:
            self.say(_told(self.learner.images_seen / 1000, figures))

    @cached_property
    def seen(self) -> Seen:
        """The rows that it learns from, and those that the model it started from had learned from."""
        if self.settings.resume and (written := Seen.load(self.settings.out / "model")):
            return written
        own = union(Seen.of(shards, rows) for shards, rows in self.data.rows())
        return own | seen_by(self.settings.init) if self.settings.init else own

    def model(self) -> Model:
        """The averaged generator as it is now."""
        plan, learner = self.plan, self.learner
        card = {
            "size": plan.size,
            "channels": plan.channels,
            "kimg": learner.images_seen / 1000,
            "network": plan.arguments,
            "classes": list(self.classes.names),
            "seed": self.settings.seed,
            "data": " ".join(map(str, folders_of(self.settings.data))),
            "split": self.settings.split,
            "crop": self.data.sets[0].attributes.get("crop"),
            "upsample": plan.upsample or None,
            "needs_photos": bool(getattr(learner.average, "needs_photos", False)),
        }
        return Model(Path(), self.settings.family, learner.average.eval(), card, "", plan.device, plan.dtype)


def train(settings: TrainSettings) -> Path:
    """Train a generator; returns the run folder, with the model in ``model/``.

    Stopping with Ctrl-C (or SIGTERM) finishes the step and writes a checkpoint. A run that was stopped and
    resumed gives, on the CPU, the same bits as one that was not. Under torchrun the processes share each batch.

    Raises:
        UserError: bad settings or data, or the loss stopped being finite; the last good checkpoint is named.
    """
    training = GeneratorTraining(settings)
    learner = training.learner
    going_on = settings.resume and newest_checkpoint(settings.out) is not None
    taken = transfer(learner, settings.init) if settings.init and not going_on else ""
    run, found = open_run(training, settings.out, training.config, kind="synth", resume=settings.resume)
    training.say(training.describe())
    if found:
        training.say(f"going on from {found} at {learner.images_seen / 1000:.1f} kimg")
    if taken:
        training.say(f"starting from {settings.init}: {taken}")
    started = time.monotonic()
    if not fit(training, run):
        kimg = learner.images_seen / 1000
        training.say(f"stopped at {kimg:.1f} kimg: continue with 'synth train --out {run.path} --resume'")
    elif training.is_main:
        write_film(run)
        run.finish({"kimg": learner.images_seen / 1000, "minutes": (time.monotonic() - started) / 60})
    return run.path


def dry_run(settings: TrainSettings, steps: int = _MEASURED) -> str:
    """The plan in words: parameters, and memory and speed measured over a few steps that are thrown away."""
    training = GeneratorTraining(settings)
    cost = measure(training, steps)
    per_kimg = cost.seconds * 1000 / training.plan.batch
    return (
        f"{training.describe()}\n"
        f"memory {cost.memory:.1f} GB, {per_kimg:.1f} s/kimg, {settings.kimg:g} kimg take "
        f"{per_kimg * settings.kimg / 3600:.1f} h (measured over {steps} steps)"
    )


def _collate(items: list[tuple[Tensor, int, int]], classes: ImageClasses) -> tuple[Tensor, Tensor | None]:
    images = torch.stack([image for image, _, _ in items])
    if not classes.names:
        return images, None
    positions = torch.tensor([position for _, _, position in items])
    return images, F.one_hot(classes.indices[positions], len(classes.names)).float()


def _told(kimg: float, means: dict[str, float]) -> str:
    shown = {
        "loss_g": "G",
        "loss_d": "D",
        "real": "real",
        "fake": "fake",
        "r1": "R1",
        "r2": "R2",
        "augment_p": "p",
        "diversity": "diversity",
        "fid": "FID",
        "swd": "SWD",
    }
    figures = ", ".join(f"{word} {means[name]:.3f}" for name, word in shown.items() if name in means)
    if "loss_g" not in means:
        figures = f"loss {means['loss']:.4f}, {figures}"
    eta = int(means["eta_min"])
    return f"kimg {kimg:7.1f}   {means['sec_per_kimg']:.1f} s/kimg   {figures}   ETA {eta // 60}:{eta % 60:02d} h"
