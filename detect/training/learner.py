"""What learns: network, averaged network and optimiser of one run, and one step of training."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfake.datasets.types import Pixels
from crossfake.detect.models import create_model
from crossfake.detect.training.contrastive import supervised_contrastive
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed
from crossfake.detect.view import ALIGNED, View, Windows
from crossfake.device import autocast, pick_device
from crossfake.errors import UserError
from crossfake.fit.checkpoints import newest_checkpoint
from crossfake.fit.learner import Learner
from crossfake.options import Precision
from crossfake.runs import Run

_ROUNDING = 1e-12  # of sums of weights: no better AP
_CONTRAST = 0.1  # what the contrastive part of the loss counts
_BATCH = 128  # images that are judged at once


class DetectorLearner(Learner):
    """Network, optimiser and the best state so far.

    Args:
        settings: of the run.
        size: height and width of the images.
        view: what they are of; models that treat native pixels otherwise are told.

    Attributes:
        network: what is trained.
        average: its exponential moving average, None without.
        remembers: it compares with a bank of training images: there is nothing to descend.
        stages: the parameters that may be trained, from the image to the head.
        best: ``ap``, ``step`` and ``state`` of the best validation.
        stale: validations since then.
    """

    parts = ("network", "average", "optimizer")

    def __init__(self, settings: TrainSettings, size: int, view: View = ALIGNED) -> None:
        super().__init__(pick_device(settings.device), settings.batch, 2, settings.seed)
        self.settings = settings
        begins = not (settings.resume and newest_checkpoint(settings.out))
        network = create_model(
            settings.model,
            settings.pretrained and begins,
            settings.weights if begins else None,
            options={"size": size, **({"pixels": "native"} if view.native else {}), **settings.options},
        )
        self.network = network.to(memory_format=torch.channels_last).to(self.device)
        self.stages = [[p for p in stage if p.requires_grad] for stage in network.stages()]
        self.stages = [stage for stage in self.stages if stage]
        self.remembers = bool(getattr(network, "nearest", False))
        if not self.stages and not self.remembers:
            raise UserError(f"{settings.model} has nothing to learn", hint="choose another --model")
        self.optimizer = torch.optim.AdamW(
            [{"params": stage} for stage in self.stages or [[nn.Parameter(torch.zeros(0))]]],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        averaged = settings.ema and not self.remembers
        self.average = copy.deepcopy(self.network).requires_grad_(False) if averaged else None
        self.best: dict[str, Any] = {"ap": -1.0, "step": 0, "state": {}}
        self.stale = 0

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average

    def unfrozen(self) -> int:
        """How many stages, from the head on, the next step trains.

        ``gradual`` begins with the head and adds a stage at a time, until in the middle of the run all are trained
        (Howard & Ruder 2018, sec. 3.3).
        """
        if self.settings.tune == "probe":
            return 1
        if self.settings.tune == "gradual":
            return min(len(self.stages), 1 + 2 * len(self.stages) * self.step // (self.settings.steps + 1))
        return len(self.stages)

    def count(self) -> tuple[int, int]:
        """Parameters that the next step trains, and that it does not."""
        trained = sum(p.numel() for stage in self.stages[-self.unfrozen() :] for p in stage)
        return trained, sum(p.numel() for p in self.network.parameters()) - trained

    def train_step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step on this process's part of a batch; returns its ``loss``. Dropout is seeded by (seed, step).

        Args:
            images: uint8 ``[B, H, W, 3]``.
            labels: float ``[B]``, 1 for fakes.
        """
        settings, ranks = self.settings, self.ranks
        self._prepare()
        torch.manual_seed((settings.seed << 32) + (ranks.rank << 24) + self.step)
        batch = self._as_input(images)
        targets = labels.to(self.device, non_blocking=True)
        if settings.label_smoothing:
            targets = targets * (1 - settings.label_smoothing) + settings.label_smoothing / 2
        if settings.mixup:
            batch, targets = mixed_up(batch, targets, settings.mixup, [settings.seed, self.step, ranks.rank])
        with autocast(self.device, settings.precision):
            features = self.network.features(batch)
            logits = self.network.logits(features)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        if settings.loss == "contrastive":
            loss = loss + _CONTRAST * supervised_contrastive(features, labels.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if ranks.world > 1:
            statistics = [b for b in self.network.buffers() if b.is_floating_point()]
            ranks.average([*(p.grad for p in self.network.parameters() if p.grad is not None), *statistics])
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def remember(self, batches: Iterable[Tensor], labels: Tensor) -> None:
        """Fill the bank of a nearest-neighbour head with uint8 batches ``[B, H, W, 3]`` of the same labels ``[B]``."""
        network: Any = self.network.eval()
        features = []
        for images in batches:
            with autocast(self.device, self.settings.precision):
                found = network.features(self._as_input(images)).float()
            features.append(found)
        network.fit_bank(torch.cat(features), labels.to(self.device).repeat(len(features)))

    def _as_input(self, images: Tensor) -> Tensor:
        """uint8 ``[B, H, W, 3]`` as networks take them: float32 ``[B, 3, H, W]`` in [0, 1], channels last."""
        return images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)

    def _prepare(self) -> None:
        """Step sizes, and what is frozen in this step; frozen batch norms keep their statistics."""
        self.network.train()
        trained, scale = self.unfrozen(), self.settings.lr * self._schedule()
        last = len(self.stages) - 1
        for number, (stage, group) in enumerate(zip(self.stages, self.optimizer.param_groups, strict=True)):
            group["lr"] = scale * self.settings.layer_decay ** (last - number)
            for parameter in stage:
                parameter.requires_grad_(number > last - trained)
        for module in self.network.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None:
                module.train(module.weight.requires_grad)

    def _schedule(self) -> float:
        warm_up = max(1, self.settings.steps // 20)
        if self.step < warm_up:
            return (self.step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm_up) / max(1, self.settings.steps - warm_up)))

    @torch.no_grad()
    def _update_average(self) -> None:
        """Short at first, so that it does not remember the beginning; counters are copied."""
        if self.average is None:
            return
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        means, values = (list(n.state_dict().values()) for n in (self.average, self.network))
        moving = [mean.is_floating_point() for mean in means]
        torch._foreach_lerp_(
            [mean for mean, moves in zip(means, moving, strict=True) if moves],
            [value for value, moves in zip(values, moving, strict=True) if moves],
            1 - keep,
        )
        for mean, value, moves in zip(means, values, moving, strict=True):
            if not moves:
                mean.copy_(value)

    @torch.inference_mode()
    def logits(self, images: Pixels | Windows, precision: Precision | None = None) -> npt.NDArray[np.float64]:
        """Logits of uint8 ``[N, H, W, 3]``, by default in the training's precision; the processes share the work.

        Of an image's windows the mean.
        """
        if isinstance(images, Windows):
            return images.mean(self.logits(images.images, precision))
        self.eval_network.eval()
        own = images[self.ranks.rank :: self.ranks.world]
        parts = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        for start in range(0, len(own), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(own[start : start + _BATCH]))
            with autocast(self.device, precision or self.settings.precision):
                parts.append(self.eval_network(self._as_input(batch)).double())
        return self.ranks.gathered(torch.cat(parts)).double().cpu().numpy()

    def validate(
        self, images: Pixels | Windows, labels: npt.NDArray[np.int64], weighed: Weighed
    ) -> dict[str, float]:
        """:meth:`Weighed.figures` on the validation set; keeps the state if its AP is the best so far.

        Raises:
            UserError: the network's outputs are not finite.
        """
        logits = self.logits(images)
        if not np.isfinite(logits).all():
            raise not_finite("the network's output", self.step)
        figures = weighed.figures(labels, logits)
        if figures["val_ap"] > self.best["ap"] + _ROUNDING:
            state = {
                name: tensor.detach().cpu().clone() for name, tensor in self.eval_network.state_dict().items()
            }
            self.best, self.stale = {"ap": figures["val_ap"], "step": self.step, "state": state}, 0
        else:
            self.stale += 1
        return figures

    def state(self) -> dict[str, Any]:
        kept = {"losses": self.figures.get("loss", []), "best": self.best, "stale": self.stale}
        return super().state() | kept

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.best, self.stale = state["best"], state["stale"]
        if state["losses"]:  # of steps since the last validation
            self.figures["loss"] = [loss.to(self.device) for loss in state["losses"]]


def mixed_up(images: Tensor, targets: Tensor, alpha: float, seed: list[int]) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018, eq. 1): every image with another of the batch, by one share from Beta(alpha, alpha).

    Args:
        images: float ``[B, 3, H, W]``.
        targets: float ``[B]``.
        alpha: of the Beta distribution.
        seed: of the share and of the partners.
    """
    rng = np.random.default_rng([*seed, 2])
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    return images.lerp(images[partners], 1 - share), targets.lerp(targets[partners], 1 - share)


def not_finite(what: str, step: int, run: Run | None = None) -> UserError:
    """The error of a training that ran away."""
    kept = run is not None and newest_checkpoint(run.path) is not None
    state = f"; the last good state is in {run.checkpoints}" if run is not None and kept else ""
    hint = "go on with --resume and a smaller --lr" if kept else "train with a smaller --lr and another --out"
    return UserError(f"{what} is not finite at step {step}{state}", hint=hint)
