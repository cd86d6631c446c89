"""Training of a detector: balanced batches, early stopping on validation AP, a bundle at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.special import log_expit
from torch import Tensor
from tqdm import tqdm

from crossfake.datasets.codecs import Pixels
from crossfake.detect import bundle, metrics
from crossfake.detect.augmentation import augment
from crossfake.detect.data import Sampler, TrainingData
from crossfake.detect.models import create_model
from crossfake.device import Precision, autocast, pick_device
from crossfake.errors import UserError
from crossfake.runs import Run, write_text
from crossfake.stopping import Stopper

_CHECKPOINT = "last.pt"


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
        pretrained: start from timm's published weights.
        weights: start from this file instead.
        steps: optimiser steps at most.
        batch: images per step, half of them real.
        lr: AdamW's largest step size; cosine decay to 0 after a short warm-up.
        weight_decay: AdamW's.
        augment: probability of blur and of JPEG for each image.
        synthetic_ratio: share of the fakes in a batch that is synthetic when there are both kinds.
        eval_every: steps between validations.
        patience: validations without a better AP after which training stops.
        resume: go on from the last checkpoint in ``out``.
        force: train although the folders were cropped differently.
    """

    real: tuple[Path, ...]
    out: Path
    fake: tuple[Path, ...] = ()
    synthetic: tuple[Path, ...] = ()
    model: str = "cnn"
    pretrained: bool = False
    weights: Path | None = None
    steps: int = 1500
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    augment: float = 0.5
    synthetic_ratio: float = 0.5
    eval_every: int = 100
    patience: int = 5
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.batch < 4 or self.steps < 1 or self.eval_every < 1 or self.patience < 1:
            raise UserError(
                "steps, patience and validation distance must be positive, a batch at least 4",
                mend="correct it",
            )
        for name in ("augment", "synthetic_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"{name} is a share, not {getattr(self, name)}", mend="give a value between 0 and 1"
                )

    @classmethod
    def resumed(cls, out: Path, **changed: Any) -> TrainSettings:
        """The settings that the run in ``out`` had, with some of them changed."""
        try:
            config = Run(out).config
        except OSError as error:
            raise UserError(f"{out} holds no run to resume", mend="start it without --resume") from error
        kept = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        for name in ("real", "fake", "synthetic"):
            kept[name] = tuple(Path(folder) for folder in kept[name])
        kept["weights"] = Path(kept["weights"]) if kept["weights"] else None
        return cls(**{**kept, **changed, "out": Path(out), "resume": True})


class Trainer:
    """Network, optimiser and the best state so far: all that a checkpoint holds."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings, self.device = settings, pick_device(settings.device)
        torch.manual_seed(settings.seed)
        network = create_model(settings.model, settings.pretrained and not settings.resume, settings.weights)
        self.network = network.to(memory_format=torch.channels_last).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.step = 0
        self.best: dict[str, Any] = {"ap": -1.0, "step": 0, "state": {}}
        self.stale = 0

    def learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step on uint8 ``[B, 3, H, W]``; returns the loss. Dropout is seeded by (seed, step)."""
        self.network.train()
        torch.manual_seed((self.settings.seed << 32) + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self._schedule()
        with autocast(self.device, self.settings.precision):
            logits = self.network(images.to(self.device).float().div_(255))
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _schedule(self) -> float:
        warm_up = max(1, self.settings.steps // 20)
        if self.step < warm_up:
            return (self.step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm_up) / max(1, self.settings.steps - warm_up)))

    @torch.inference_mode()
    def logits(self, images: Pixels) -> npt.NDArray[np.float64]:
        """Logits of uint8 ``[N, H, W, 3]``."""
        self.network.eval()
        parts = []
        for start in range(0, len(images), 128):
            batch = (
                torch.from_numpy(images[start : start + 128])
                .to(self.device)
                .permute(0, 3, 1, 2)
                .float()
                .div_(255)
            )
            with autocast(self.device, self.settings.precision):
                parts.append(self.network(batch).double().cpu().numpy())
        return np.concatenate(parts)

    def validate(self, images: Pixels, labels: npt.NDArray[np.int64]) -> dict[str, float]:
        """AP and AUC on the validation set; keeps the state if it is the best so far."""
        figures = metrics.summary(labels, self.logits(images))
        if figures["ap"] > self.best["ap"]:
            state = {
                name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()
            }
            self.best, self.stale = {"ap": figures["ap"], "step": self.step, "state": state}, 0
        else:
            self.stale += 1
        return {"val_ap": figures["ap"], "val_auc": figures["auc"]}

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.stale = state["step"], state["best"], state["stale"]


def train(settings: TrainSettings) -> Path:
    """Train a detector; returns the run folder, with the bundle in ``model/``.

    The model kept is the one with the best average precision on the validation rows; its temperature and threshold
    come from them too. Test rows are never read.

    Raises:
        UserError: bad settings or data, or the loss stopped being finite.
    """
    data = TrainingData.open(settings.real, settings.fake, settings.synthetic, settings.force)
    images, labels, val_hash = data.validation(most=2000)
    run = Run.create(
        settings.out,
        {**asdict(settings), "size": data.size, "data_hashes": data.hashes(), "validation_hash": val_hash},
        kind="detect",
        resume=settings.resume,
    )
    audit = data.audit()
    tqdm.write(audit["summary"])
    write_text(run.path / "audit.json", json.dumps(audit, indent=2) + "\n")
    trainer = Trainer(settings)
    if settings.resume:
        _restore(trainer, run)
    tqdm.write(
        f"{settings.model} on {_count(data)} of {data.size}×{data.size}, "
        f"{sum(p.numel() for p in trainer.network.parameters()) / 1e6:.2f} M parameters; "
        f"validation on {int((labels == 0).sum()):,} reals and {int(labels.sum()):,} fakes"
    )
    with Stopper() as stopper:
        stopped = _loop(settings, trainer, run, data, (images, labels), stopper)
    if stopped:
        tqdm.write(f"stopped at step {trainer.step}: continue with 'detect train --out {run.path} --resume'")
        run.close()
    else:
        trainer.network.load_state_dict(trainer.best["state"])
        card = _calibrated(trainer.logits(images), labels)
        bundle.save(
            run.model,
            trainer.network,
            {
                "model": settings.model,
                "size": data.size,
                "crop": data.crop,
                **card,
                "validation_hash": val_hash,
                "validation_ap": trainer.best["ap"],
                "step": trainer.best["step"],
                "data_hashes": data.hashes(),
                "sources": data.sources(),
                "audit": {"verdict": audit["verdict"], "summary": audit["summary"]},
            },
        )
        run.finish({"val_ap": trainer.best["ap"], "step": trainer.best["step"]})
    return run.path


def _count(data: TrainingData) -> str:
    kinds = (("reals", data.real), ("fakes", data.fake), ("synthetic fakes", data.synthetic))
    return ", ".join(f"{sum(len(p.train) for p in pools):,} {kind}" for kind, pools in kinds if pools)


def _batches(settings: TrainSettings, data: TrainingData, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches from step ``start`` on, read one ahead in a thread."""
    sampler = Sampler(data, settings.batch, settings.synthetic_ratio, settings.seed)

    def make(step: int) -> Tensor:
        rng = sampler.rng(step)
        return augment(sampler.images(rng), settings.augment, rng)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(make, start)
        for step in range(start, settings.steps):
            images = ahead.result()
            ahead = reader.submit(make, step + 1)
            yield images, sampler.labels


def _loop(
    settings: TrainSettings,
    trainer: Trainer,
    run: Run,
    data: TrainingData,
    validation: tuple[Pixels, npt.NDArray[np.int64]],
    stopper: Stopper,
) -> bool:
    """Returns whether the user asked to stop."""
    losses: list[Tensor] = []
    started, began_at = time.monotonic(), trainer.step
    with tqdm(total=settings.steps, initial=trainer.step, unit="step", desc=settings.model) as bar:
        for images, labels in _batches(settings, data, trainer.step):
            if trainer.stale >= settings.patience:
                tqdm.write(f"no better AP for {trainer.stale} validations: stopping at step {trainer.step}")
                break
            losses.append(trainer.learn(images, labels))
            bar.update()
            last = trainer.step == settings.steps
            if trainer.step % settings.eval_every == 0 or last:
                loss = float(torch.stack(losses).mean())
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss is not finite at step {trainer.step}; the last good state is in {run.checkpoints}",
                        mend="go on with --resume and a smaller --lr",
                    )
                figures = trainer.validate(*validation)
                rate = (trainer.step - began_at) * settings.batch / (time.monotonic() - started)
                run.log({"loss": loss, **figures, "images_per_second": round(rate, 1)}, trainer.step)
                bar.set_postfix(loss=f"{loss:.3f}", val_ap=f"{figures['val_ap']:.4f}")
                losses.clear()
                _checkpoint(trainer, run)
            elif stopper.asked:
                _checkpoint(trainer, run)
            if stopper.asked and not last:
                return True
    return False


def _calibrated(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Temperature (Guo et al. 2017, sec. 4.2) by maximum likelihood, and the threshold of best balanced accuracy."""
    signs = np.where(labels == 1, 1.0, -1.0)
    fitted = minimize_scalar(
        lambda log_t: -np.mean(log_expit(signs * logits / np.exp(log_t))), bounds=(-3, 3), method="bounded"
    )
    temperature = float(np.exp(fitted.x))
    probabilities = 1 / (1 + np.exp(-logits / temperature))
    return {
        "temperature": temperature,
        "threshold": metrics.best_threshold(labels, probabilities),
        "threshold_rule": "best balanced accuracy on validation",
    }


def _checkpoint(trainer: Trainer, run: Run) -> None:
    path = run.checkpoints / _CHECKPOINT
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(trainer.state(), temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error})", mend="free some space and go on with --resume"
        ) from error


def _restore(trainer: Trainer, run: Run) -> None:
    path = run.checkpoints / _CHECKPOINT
    if not path.exists():
        raise UserError(f"{run.path} has no checkpoint", mend="start it without --resume")
    try:
        trainer.restore(torch.load(path, map_location=trainer.device, weights_only=True))
    except Exception as error:
        raise UserError(
            f"{path} does not fit this run ({error})", mend="resume with the settings it had"
        ) from error
    run.trim_log(trainer.step)
    tqdm.write(f"going on from step {trainer.step}")
