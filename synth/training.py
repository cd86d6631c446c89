"""Adversarial training: one loop for all families, stopped and resumed without a trace."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from crossfake.datasets.torch_data import ShardDataset
from crossfake.device import Precision, compute_dtype, pick_device
from crossfake.errors import UserError
from crossfake.images import contact_sheet, save_png
from crossfake.runs import Run
from crossfake.stopping import Stopper
from crossfake.synth.families import FAMILIES, Family, log2_size
from crossfake.synth.models import Model, random_vectors, save_model

_GRID = 64  # images of the fixed-latent sample sheet


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run. Zero or None means: chosen from the resolution and the device.

    Attributes:
        data: shard folder of real images.
        out: run folder.
        family: a name from ``crossfake.synth.families.FAMILIES``.
        kimg: length in thousands of real images shown.
        minutes: stop after so many minutes if that comes first.
        split: rows to train on; a detector's test reals must never get in here.
        batch: images per step.
        channels: width of the networks.
        gamma: weight of R1.
        lr: Adam's step size; the family's own by default.
        snapshot_kimg: distance between checkpoints and sample sheets.
        resume: go on from the newest checkpoint in ``out``.
    """

    data: Path
    out: Path
    family: str = "stylegan2"
    kimg: float = 200.0
    minutes: float | None = None
    split: str = "train"
    batch: int = 0
    channels: int = 0
    gamma: float | None = None
    lr: float | None = None
    snapshot_kimg: float = 10.0
    seed: int = 0
    resume: bool = False
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        FAMILIES.get(self.family)
        if not self.kimg > 0 or not self.snapshot_kimg > 0:
            raise UserError("kimg and snapshot distance must be positive", mend="give --kimg 200, say")
        if self.batch < 0 or self.batch == 1:
            raise UserError(f"a batch of {self.batch} cannot be trained on", mend="give --batch 2 or more")

    @classmethod
    def resumed(cls, out: Path, **changed: Any) -> TrainSettings:
        """The settings that the run in ``out`` had, with some of them changed: a longer ``kimg``, say."""
        try:
            config = Run(out).config
        except OSError as error:
            raise UserError(f"{out} holds no run to resume", mend="start it without --resume") from error
        # what was chosen for the resolution and device then is kept, so that the run goes on as it began
        kept = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        return cls(**{**kept, "data": Path(kept["data"]), **changed, "out": Path(out), "resume": True})


@dataclass(frozen=True)
class Plan:
    """What :class:`TrainSettings` comes to on this data and device."""

    size: int
    batch: int
    channels: int
    gamma: float
    lr: float
    family: Family
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def make(cls, settings: TrainSettings, size: int) -> Plan:
        """Batch and R1 weight follow the heuristic of Karras et al. 2020b (their ``auto`` configuration:
        gamma = 0.0002 · size² / batch), with a smaller batch on a CPU: early on, steps count for more."""
        log2_size(size)
        family, device = FAMILIES.get(settings.family), pick_device(settings.device)
        on_gpu = device.type == "cuda"
        batch = settings.batch or (max(4, min(64, 4096 * 32 // size**2)) if on_gpu else 16)
        return cls(
            size=size,
            batch=batch,
            channels=settings.channels or (family.channels_gpu if on_gpu else family.channels_cpu),
            gamma=settings.gamma if settings.gamma is not None else 0.0002 * size**2 / batch,
            lr=settings.lr or family.recipe.lr,
            family=family,
            device=device,
            dtype=compute_dtype(device, settings.precision),
        )


class Batches:
    """Order of the data: epoch e is the permutation seeded by (seed, e), so step k needs no memory of k - 1."""

    def __init__(self, count: int, batch: int, seed: int, start: int) -> None:
        self.count, self.batch, self.seed, self.start = count, batch, seed, start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, int)
        for first in itertools.count(self.start * self.batch, self.batch):
            batch = []
            for position in range(first, first + self.batch):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
                batch.append(int(order[position % self.count]))
            yield batch


class Trainer:
    """Networks, optimisers and random state of one run: all that a checkpoint holds, and one step of training."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.recipe = plan, plan.family.recipe
        torch.manual_seed(seed)
        build = (plan.size, plan.channels)
        self.generator = plan.family.generator(*build).to(plan.device)
        self.discriminator = plan.family.discriminator(*build).to(plan.device)
        self.average = plan.family.generator(*build).to(plan.device).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer_g = self._adam(self.generator, share=1.0)
        # Lazy regularisation (Karras et al. 2020a, app. B): fewer, larger steps need gentler Adam constants
        every = self.recipe.r1_every
        self.optimizer_d = self._adam(self.discriminator, share=every / (every + 1) if every else 1.0)
        self.rng = torch.Generator().manual_seed(seed)
        self.step = 0

    def _adam(self, network: nn.Module, share: float) -> torch.optim.Adam:
        betas = (self.recipe.betas[0] ** share, self.recipe.betas[1] ** share)
        return torch.optim.Adam(
            network.parameters(), lr=self.plan.lr * share, betas=betas, eps=1e-8, fused=True
        )

    @property
    def images_seen(self) -> int:
        return self.step * self.plan.batch

    def state(self) -> dict[str, Any]:
        parts = ("generator", "discriminator", "average", "optimizer_g", "optimizer_d")
        return {
            **{p: getattr(self, p).state_dict() for p in parts},
            "rng": self.rng.get_state(),
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for part in ("generator", "discriminator", "average", "optimizer_g", "optimizer_d"):
            getattr(self, part).load_state_dict(state[part])
        self.rng.set_state(state["rng"])
        self.step = state["step"]

    def train_step(self, real: Tensor) -> dict[str, Tensor]:
        """One step of both networks on real images, uint8 ``[B, 3, H, W]``. Returns scalar tensors to log.

        Non-saturating logistic loss (Goodfellow et al. 2014). One pass of the generator serves both networks:
        the discriminator learns from a detached copy, then judges the same images anew for the generator.
        """
        plan, batch = self.plan, len(real)
        flip = torch.rand(batch, 1, 1, 1, generator=self.rng) < 0.5
        real = torch.where(flip.to(plan.device), real.flip(3), real).float().div_(127.5).sub_(1)
        randoms = torch.randn(batch, int(self.generator.randoms), generator=self.rng).to(plan.device)  # type: ignore[arg-type]
        fake = self.generator.train_forward(randoms, self.recipe.mixing, plan.dtype, self.rng)  # type: ignore[operator]

        self.optimizer_d.zero_grad(set_to_none=True)
        real_logits = self.discriminator(real, plan.dtype)
        fake_logits = self.discriminator(fake.detach(), plan.dtype)
        loss_d = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        loss_d.backward()
        logged = {
            "loss_d": loss_d.detach(),
            "real": real_logits.mean().detach(),
            "fake": fake_logits.mean().detach(),
        }
        if self.recipe.r1_every and self.step % self.recipe.r1_every == 0 and plan.gamma > 0:
            penalty = r1_penalty(self.discriminator, real, plan.dtype)
            (penalty * (plan.gamma / 2 * self.recipe.r1_every)).backward()
            logged["r1"] = penalty.detach()
        self.optimizer_d.step()

        self.optimizer_g.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)
        loss_g = F.softplus(-self.discriminator(fake, plan.dtype)).mean()
        loss_g.backward()
        self.discriminator.requires_grad_(True)
        self.optimizer_g.step()

        self.step += 1
        self._update_average()
        return {**logged, "loss_g": loss_g.detach()}

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average whose half-life grows with training, to at most ``ema_kimg``."""
        half_life = min(self.recipe.ema_kimg * 1000, self.images_seen * 0.05)
        keep = 0.5 ** (self.plan.batch / half_life) if half_life else 0.0
        averaged: list[Tensor] = list(self.average.parameters())
        trained: list[Tensor] = list(self.generator.parameters())
        torch._foreach_lerp_(averaged, trained, 1 - keep)
        for mean, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(buffer)


def r1_penalty(discriminator: nn.Module, real: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Mean squared gradient norm of the logits by real images (Mescheder et al. 2018, eq. 9, without gamma/2)."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real, dtype).sum(), real, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def train(settings: TrainSettings) -> Path:
    """Train a generator; returns the run folder, with the model in ``model/``.

    Stopping with Ctrl-C (or SIGTERM) finishes the step and writes a checkpoint. A run that was stopped and
    resumed gives, on the CPU, the same bits as one that was not.

    Raises:
        UserError: bad settings or data, or the loss stopped being finite; the last good checkpoint is named.
    """
    data = ShardDataset(settings.data, split=settings.split, label=0)
    plan = Plan.make(settings, data.size)
    if len(data) < plan.batch:
        raise UserError(
            f"{settings.data} has {len(data)} training images, fewer than a batch",
            mend="give a smaller --batch",
        )
    if plan.dtype is torch.float32 and plan.device.type == "cpu":
        torch.set_flush_denormal(True)
    resolved = asdict(settings) | {
        "size": plan.size, "batch": plan.batch, "channels": plan.channels, "gamma": plan.gamma, "lr": plan.lr,
        "dtype": str(plan.dtype).removeprefix("torch."), "device": str(plan.device), "images": len(data),
        "data_hashes": {str(shards.path): shards.hash for shards in data.sets},
    }  # fmt: skip
    found = _newest_checkpoint(settings.out) if settings.resume else None
    if settings.resume and found is None:
        raise UserError(f"{settings.out} has no checkpoint", mend="start it without --resume")
    run = Run.create(settings.out, resolved, kind="synth", resume=settings.resume)
    trainer = Trainer(plan, settings.seed)
    if found:
        _restore(trainer, found, run)
    parameters = [
        sum(p.numel() for p in net.parameters()) for net in (trainer.generator, trainer.discriminator)
    ]
    tqdm.write(
        f"{settings.family} {plan.size}×{plan.size} on {len(data):,} images: batch {plan.batch}, "
        f"channels {plan.channels}, gamma {plan.gamma:.4g}, {resolved['dtype']}, "
        f"G {parameters[0] / 1e6:.2f} M, D {parameters[1] / 1e6:.2f} M parameters"
    )
    with Stopper() as stopper:
        finished = _loop(settings, plan, trainer, run, data, stopper)
    if not finished:
        run.close()
        tqdm.write(
            f"stopped at {trainer.images_seen / 1000:.1f} kimg: continue with 'synth train … --out {run.path} --resume'"
        )
    return run.path


def _loop(
    settings: TrainSettings, plan: Plan, trainer: Trainer, run: Run, data: ShardDataset, stopper: Stopper
) -> bool:
    total = math.ceil(settings.kimg * 1000 / plan.batch)
    tick = max(1, round(1000 / plan.batch))  # log every kimg
    snapshot = max(1, round(settings.snapshot_kimg * 1000 / plan.batch))
    started, began_at = time.monotonic(), trainer.images_seen
    loader = DataLoader(
        data,
        batch_sampler=Batches(len(data), plan.batch, settings.seed, trainer.step),
        num_workers=2 if plan.device.type == "cuda" else 0,
        collate_fn=_images_only,
        pin_memory=plan.device.type == "cuda",
    )
    if trainer.step == 0:
        save_png(
            contact_sheet(np.stack([data.image(i) for i in range(min(_GRID, len(data)))])),
            run.samples / "reals.png",
        )
    bar = tqdm(
        total=total * plan.batch,
        initial=trainer.images_seen,
        unit="img",
        unit_scale=True,
        desc=settings.family,
    )
    sums: defaultdict[str, list[float]] = defaultdict(list)
    tick_started = time.monotonic()
    with bar:
        for real in loader:
            if trainer.step >= total:
                break
            for name, value in trainer.train_step(real.to(plan.device, non_blocking=True)).items():
                sums[name].append(value)  # type: ignore[arg-type]
            bar.update(plan.batch)
            minutes = (time.monotonic() - started) / 60
            over = (
                trainer.step >= total
                or stopper.asked
                or (settings.minutes is not None and minutes >= settings.minutes)
            )
            at_snapshot = over or trainer.step % snapshot == 0
            if at_snapshot or trainer.step % tick == 0:
                means = {name: float(torch.stack(values).mean()) for name, values in sums.items()}  # type: ignore[arg-type]
                _check_finite(means, trainer, run)
                now = time.monotonic()
                kimg = trainer.images_seen / 1000
                means["sec_per_kimg"] = (now - tick_started) / max(
                    len(sums["loss_d"]) * plan.batch / 1000, 1e-9
                )
                rate = (now - started) / max(trainer.images_seen - began_at, 1)
                means["eta_min"] = rate * (total * plan.batch - trainer.images_seen) / 60
                run.log(
                    {"kimg": round(kimg, 3), **{name: round(value, 5) for name, value in means.items()}},
                    trainer.step,
                )
                bar.set_postfix_str(f"G {means['loss_g']:.2f}, D {means['loss_d']:.2f}")
                sums.clear()
                tick_started = now
            if at_snapshot:
                _save(settings, plan, trainer, run, data)
                tqdm.write(_log_line(trainer, means))
                tick_started = time.monotonic()
            if over:
                break
    if stopper.asked:
        return False
    run.finish({"kimg": trainer.images_seen / 1000, "minutes": (time.monotonic() - started) / 60})
    return True


def _images_only(items: list[tuple[Tensor, int, int]]) -> Tensor:
    return torch.stack([image for image, _, _ in items])


def _log_line(trainer: Trainer, means: dict[str, float]) -> str:
    r1 = f", R1 {means['r1']:.3f}" if "r1" in means else ""
    return (
        f"kimg {trainer.images_seen / 1000:7.1f}   {means['sec_per_kimg']:.1f} s/kimg   G {means['loss_g']:.3f}, "
        f"D {means['loss_d']:.3f}, logits real {means['real']:+.2f} fake {means['fake']:+.2f}{r1}   "
        f"ETA {int(means['eta_min'] // 60)}:{int(means['eta_min'] % 60):02d} h"
    )


def _check_finite(means: dict[str, float], trainer: Trainer, run: Run) -> None:
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        good = _newest_checkpoint(run.path)
        raise UserError(
            f"{broken[0]} is not finite at {trainer.images_seen / 1000:.1f} kimg; "
            f"the last good state is {good or 'none'}",
            mend="resume with --resume and a smaller --lr or a larger --gamma",
        )


def _save(settings: TrainSettings, plan: Plan, trainer: Trainer, run: Run, data: ShardDataset) -> None:
    """Checkpoint (the two newest are kept), exported model, and the sample sheet of the fixed latents."""
    kimg = trainer.images_seen / 1000
    path = run.checkpoints / f"{trainer.step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(trainer.state(), temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error})", mend="free some space and go on with --resume"
        ) from error
    for old in sorted(run.checkpoints.glob("*.pt"))[:-2]:
        old.unlink()
    card = {
        "size": plan.size, "channels": plan.channels, "kimg": kimg, "seed": settings.seed,
        "data": str(settings.data), "split": settings.split, "crop": data.sets[0].attributes.get("crop"),
    }  # fmt: skip
    save_model(run.model, settings.family, trainer.average, card)
    model = Model(run.model, settings.family, trainer.average.eval(), card, "", plan.device, plan.dtype)
    vectors = random_vectors(_GRID, settings.seed, 0, int(trainer.average.randoms))  # type: ignore[arg-type]
    save_png(contact_sheet(model.render(vectors)), run.samples / f"{round(kimg):06d}.png")


def _newest_checkpoint(run: Path) -> Path | None:
    return max((run / "checkpoints").glob("*.pt"), default=None)


def _restore(trainer: Trainer, checkpoint: Path, run: Run) -> None:
    """Load a checkpoint, and drop what was logged after it so that no line stands twice."""
    try:
        trainer.restore(torch.load(checkpoint, map_location=trainer.plan.device, weights_only=True))
    except Exception as error:
        raise UserError(
            f"{checkpoint} does not fit this run ({error})", mend="resume with the settings it had"
        ) from error
    run.trim_log(trainer.step)
    tqdm.write(f"going on from {checkpoint} at {trainer.images_seen / 1000:.1f} kimg")
