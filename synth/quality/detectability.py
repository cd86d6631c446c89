"""How easily a small network tells fakes from reals that it was not trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossfake.device import autocast
from crossfake.options import Precision
from crossfake.progress import tqdm
from crossfake.stats import ranking
from crossfake.stats.bootstrap import bootstrap
from crossfake.synth.quality.moments import Measurement

Images = npt.NDArray[np.uint8]
_WIDTHS = (24, 48, 96, 96)
_BATCH, _STEPS, _RATE = 64, 300, 2e-3
_RESAMPLES = 200


def detectability(
    real: Images,
    fake: Images,
    groups: npt.NDArray[np.str_],
    device: torch.device,
    seed: int = 0,
    steps: int = _STEPS,
    precision: Precision = "auto",
) -> Measurement:
    """Average precision of a small detector, with fakes as the positives: 0.5 is chance, 1 means given away at once.

    Two networks of four convolutions are trained, each on a half of both sides, and judge the other half. No person is
    in both halves. Sides are made equally large. The error is a bootstrap's, over images.

    Args:
        real: uint8 ``[n, H, W, 3]``.
        fake: uint8 ``[m, H, W, 3]``.
        groups: who is on each real, ``[n]``.
        device: where it is trained.
        seed: of weights, halves and batches.
        steps: of training, with 32 images from each side.
        precision: of training and judging.
    """
    rng = np.random.default_rng(seed)
    n = min(len(real), len(fake))
    images = torch.from_numpy(np.concatenate([real[:n], fake[:n]])).permute(0, 3, 1, 2)
    labels = np.repeat([0, 1], n)
    names, member = np.unique(groups[:n], return_inverse=True)
    halves = np.concatenate([rng.permutation(len(names))[member] % 2, rng.permutation(n) % 2])
    scores = np.zeros(2 * n)
    with tqdm(total=2 * steps, desc="detectability", unit="step", leave=False) as bar:
        for half in (0, 1):
            learnt, judged = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
            network = _trained(images, labels, learnt, device, precision, rng, steps, bar)
            raw = _scores(network, images[torch.from_numpy(judged)], device, precision)
            scores[judged] = (raw - raw.mean()) / (raw.std() + 1e-9)  # two networks, one scale
    again = bootstrap(
        lambda times: ranking.weighted(labels, scores, times), np.arange(2 * n), _RESAMPLES, rng, labels
    )
    return Measurement(ranking.average_precision(labels, scores), float(np.std(again["ap"])), None)


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], 1))


def _trained(
    images: Tensor,
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    device: torch.device,
    precision: Precision,
    rng: np.random.Generator,
    steps: int,
    bar: tqdm,
) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        network = _network().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    sides = [rows[labels[rows] == label] for label in (0, 1)]
    target = torch.tensor([0.0, 1.0]).repeat_interleave(_BATCH // 2).to(device)
    for _ in range(steps):
        chosen = np.concatenate([rng.choice(side, _BATCH // 2) for side in sides])
        batch = images[torch.from_numpy(chosen)]
        mirrored = torch.from_numpy(rng.random(_BATCH) < 0.5)[:, None, None, None]
        loss = F.binary_cross_entropy_with_logits(
            _logits(network, torch.where(mirrored, batch.flip(3), batch), device, precision), target
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.update()
    return network.eval()


def _logits(network: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> Tensor:
    x = images.to(device).float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
    with autocast(device, precision):
        logits: Tensor = network(x)
    return logits.float().squeeze(1)


@torch.no_grad()
def _scores(
    network: nn.Module, images: Tensor, device: torch.device, precision: Precision
) -> npt.NDArray[np.float64]:
    parts = [_logits(network, part, device, precision) for part in images.split(256)]
    return torch.cat(parts).double().cpu().numpy()
