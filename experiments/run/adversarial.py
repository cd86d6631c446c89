"""Projected gradient descent against a detector: how bad it can get when someone who has it means harm."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.explain.networks import is_differentiable
from crossfake.device import autocast
from crossfake.errors import UserError


def pgd(
    detector: Detector, images: Pixels, labels: npt.ArrayLike, eps: float = 2 / 255, steps: int = 10
) -> Pixels:
    """Pictures changed by at most ``eps`` so that the detector takes fakes for real and reals for fake.

    Madry et al. 2018, sec. 2: ``x ← Π(x + α sgn ∇L(x, y))``, projected onto the pictures within ``eps`` of the given
    one in all pixels and channels, from that picture on (no random start, so that the result is always the same) and
    with α = 2.5 ``eps`` / ``steps``, which reaches all of them. Of each picture the worst step is kept, as rounded to
    8 bits: none gets a better score than unchanged.

    Args:
        detector: what :func:`crossfake.detect.bundle.bundle.load` gives, with the torch back end.
        images: uint8 ``[N, size, size, 3]``, cropped as the detector wants them.
        labels: ``[N]``, 1 for fakes.
        eps: largest change on the scale where white is 1; what is no whole number of grey levels is rounded down.
        steps: gradients taken.

    Returns:
        uint8 ``[N, size, size, 3]``.

    Raises:
        UserError: the detector has no gradients, the images or labels do not fit, or ``eps`` is below a grey level.

    Example:
        >>> attacked = pgd(load("runs/d"), images, labels, eps=2 / 255)  # doctest: +SKIP
    """
    fake = np.asarray(labels)
    if fake.shape != (len(images),) or not np.isin(fake, (0, 1)).all():
        raise UserError(f"labels {fake.shape} do not fit {len(images)} pictures", hint="give 0 or 1 for each")
    levels = math.floor(eps * 255 + 1e-6) if math.isfinite(eps) else 0
    if not 1 <= levels <= 255 or steps < 1:
        raise UserError(
            f"PGD cannot make {steps} steps within {eps:g}",
            hint="give eps from 1/255 to 1, and 1 step or more",
        )
    if not is_differentiable(detector.network, detector.size):
        raise UserError(
            f"{detector.card['model']} has no gradient to its pixels", hint="attack another model"
        )
    direction = 1.0 - 2.0 * fake  # that of the logit when the detector errs: up for reals, down for fakes
    worst, loss = images.copy(), direction * detector.outputs(images)[0]
    for start in range(0, len(images), detector.batch):
        rows = slice(start, start + detector.batch)
        given = torch.tensor(images[rows]).float()
        low, high = ((given + shift).clamp_(0, 255).div_(255) for shift in (-levels, levels))
        x = given / 255
        for _ in range(steps):
            moved = x + 2.5 * levels / 255 / steps * _gradient(detector, x, direction[rows]).sign()
            x = torch.minimum(torch.maximum(moved, low), high)
            found = x.mul(255).round_().to(torch.uint8).numpy()
            reached = direction[rows] * detector.outputs(found)[0]
            worse = reached > loss[rows]
            worst[rows][worse], loss[rows][worse] = found[worse], reached[worse]
    return worst


def _gradient(detector: Detector, x: Tensor, direction: npt.NDArray[np.float64]) -> Tensor:
    """How the loss rises with the pixels of ``[B, size, size, 3]``, up to a positive factor per picture.

    Cross-entropy rises with the logit of reals and falls with that of fakes. Its own gradient has the same signs, but
    is rounded to zero where the detector is very sure.
    """
    padded = torch.zeros(detector.batch, *x.shape[1:])  # as for scores: a picture's result knows no others
    padded[: len(x)] = x
    signs = torch.zeros(detector.batch)
    signs[: len(x)] = torch.from_numpy(direction)
    with torch.enable_grad(), autocast(detector.device, detector.precision):
        leaf = padded.to(detector.device).requires_grad_()
        logits = detector.network(leaf.permute(0, 3, 1, 2))
        total = (logits * signs.to(detector.device)).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient[: len(x)].float().cpu()
