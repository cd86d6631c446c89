"""Is an explanation true? Tests of attribution maps against the network, against random weights, and against masks.

Everything here is a pure function of a network, images and maps; :mod:`crossfake.detect.explain.checks` applies it
to shards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import nn

from crossfake.datasets.types import Pixels
from crossfake.detect.explain.methods import Maps, attribute
from crossfake.detect.explain.networks import as_it_is, blurred, home
from crossfake.stats.bootstrap import bootstrap
from crossfake.stats.intervals import percentile_interval

Array = npt.NDArray[np.float64]
STEPS = 32  # shares of pixels taken away or put back: 0, 1/32, … 1
_AT_ONCE = 128


def deletion_insertion(
    network: nn.Module, images: Pixels, maps: Maps, rng: np.random.Generator, steps: int = STEPS
) -> tuple[Array, Array]:
    """Probability of fake while pixels are blurred away, the most important first, and while a blur regains them.

    Petsiuk et al. 2018 (sec. 3.3), with a blurred image as baseline for both. Ties are broken at random.

    Args:
        network: float ``[B, 3, H, W]`` in [0, 1] to logits ``[B]``.
        images: uint8 ``[N, H, W, 3]``.
        maps: ``[N, H, W]``.

    Returns:
        Two curves per image, ``[N, steps + 1]``.
    """
    deleted, inserted = [], []
    with as_it_is(network), torch.inference_mode():
        for image, chart in zip(images, maps, strict=True):
            whole = torch.tensor(image).to(home(network)).permute(2, 0, 1).float().div(255)
            vague = blurred(whole[None])[0]
            order = np.lexsort((rng.random(chart.size), -chart.ravel()))
            rank = np.empty(chart.size, np.int64)
            rank[order] = np.arange(chart.size)
            ends = np.rint(np.linspace(0, chart.size, steps + 1)).astype(np.int64)
            first = torch.from_numpy(rank[None] < ends[:, None]).view(-1, 1, *chart.shape).to(whole.device)
            both = torch.cat([torch.where(first, vague, whole), torch.where(first, whole, vague)])
            logits = [network(part) for part in both.split(_AT_ONCE)]
            scores = torch.sigmoid(torch.cat(logits).double()).cpu().numpy()
            deleted.append(scores[: steps + 1])
            inserted.append(scores[steps + 1 :])
    return np.stack(deleted), np.stack(inserted)


def area(curves: Array) -> Array:
    """Area under curves ``[N, K]`` over the shares from 0 to 1, by trapezoids: ``[N]``."""
    return np.asarray(np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1))


def random_maps(maps: Maps, rng: np.random.Generator) -> Maps:
    """The control: maps with the same power spectrum and random phases, so as coarse or fine as the given ones.

    Single random pixels would be no match: blurring them away harms a picture less than blurring a region.
    """
    noise = np.fft.fft2(rng.standard_normal(maps.shape))
    phases = noise / np.maximum(np.abs(noise), 1e-12)
    return np.asarray(np.fft.ifft2(np.abs(np.fft.fft2(maps)) * phases).real, np.float32)


def randomised(network: nn.Module, rng: np.random.Generator) -> Iterator[tuple[float, nn.Module]]:
    """A copy of a network whose weights are shuffled stage by stage, from the head to the image.

    Cascading randomisation (Adebayo et al. 2018, sec. 3.1). Each tensor keeps its values in another order: so every
    layer keeps its scale, whatever its kind, where drawing anew would need to know how it was initialised.

    Yields:
        Share of the weights that are shuffled, and the copy (the same each time); at most six, evenly over the stages.
    """
    other = copy.deepcopy(network)
    stages = _stages(other)[::-1]
    shown = {round(k) for k in np.linspace(1, len(stages), min(6, len(stages)))}
    total, done = sum(p.numel() for stage in stages for p in stage), 0
    for number, stage in enumerate(stages, 1):
        for parameter in stage:
            order = torch.from_numpy(rng.permutation(parameter.numel())).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
            done += parameter.numel()
        if number in shown:
            yield done / max(1, total), other


def _stages(network: nn.Module) -> list[list[nn.Parameter]]:
    """Weights from the image to the head: a model's own stages, else one per layer. Frozen weights, which no stage
    has, count as the stage next to the image."""
    if hasattr(network, "stages"):
        own: Any = network.stages
        stages = own()
        listed = {id(parameter) for stage in stages for parameter in stage}
        frozen = [parameter for parameter in network.parameters() if id(parameter) not in listed]
        return [stage for stage in [frozen, *stages] if stage]
    layers = [list(module.parameters(recurse=False)) for module in network.modules()]
    return [layer for layer in layers if layer]


def sanity(
    network: nn.Module, images: Pixels, method: str, rng: np.random.Generator
) -> Iterator[tuple[float, Array, Array]]:
    """How alike maps remain when the network forgets what it learned; a method whose maps stay alike shows edges.

    Yields:
        Share of shuffled weights, and per image ``[N]`` Spearman's rank correlation and SSIM of the absolute maps with
        those of the trained network.
    """
    trained = np.abs(attribute(network, images, method))
    for share, other in randomised(network, rng):
        maps = np.abs(attribute(other, images, method))
        yield share, rank_correlation(trained, maps), similarity(trained, maps)


def rank_correlation(a: Maps, b: Maps) -> Array:
    """Spearman's rank correlation of each pair of maps ``[N, H, W]``; 0 where one of them is flat."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.asarray((x * y).sum(1) / np.maximum(spread, 1e-12))


def similarity(a: Maps, b: Maps) -> Array:
    """Mean structural similarity (Wang et al. 2004) of each pair of maps ``[N, H, W]``, each scaled to [0, 1]."""
    from kornia.metrics import ssim

    def scaled(maps: Maps) -> torch.Tensor:
        low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
        return torch.from_numpy((maps - low) / np.maximum(high - low, 1e-12))[:, None].float()

    return ssim(scaled(a), scaled(b), 7).mean((1, 2, 3)).double().numpy()


def pointing(maps: Maps, masks: npt.NDArray[Any]) -> tuple[Array, Array, Array]:
    """Whether maps point to where the forgery is.

    Args:
        maps: ``[N, H, W]``.
        masks: ``[N, H, W]``, above 0.5 where the picture was manipulated.

    Returns:
        Three values per image ``[N]``: the pointing game (Zhang et al. 2018), 1 when the map's maximum lies in the mask
        (of several equal ones the share that does, so a flat map hits by chance); the share of what is positive in the
        map that lies in the mask (Wang et al. 2020), nan where nothing is; and the share of the picture that the mask
        covers, which is the chance level of both.
    """
    inside = masks > 0.5
    highest = maps == maps.max((1, 2), keepdims=True)
    hits = (highest & inside).sum((1, 2)) / highest.sum((1, 2))
    positive = np.maximum(maps, 0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share = (positive * inside).sum((1, 2)) / positive.sum((1, 2))
    return hits, share, inside.mean((1, 2))


def estimate(
    values: npt.ArrayLike, groups: npt.NDArray[Any], resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Mean of one value per image, with a 95% percentile interval by bootstrap over groups.

    Returns:
        ``mean``, ``low``, ``high``, ``n`` images and ``groups`` of them. Values that are nan do not count.
    """
    array = np.asarray(values, np.float64)
    kept = ~np.isnan(array)
    array, groups = array[kept], groups[kept]
    if not len(array):
        return {"mean": None, "low": None, "high": None, "n": 0, "groups": 0}
    draws = bootstrap(lambda times: {"mean": times @ array / times.sum(axis=1)}, groups, resamples, seed)
    low, high = percentile_interval(draws["mean"])
    return {
        "mean": float(array.mean()),
        "low": float(low),
        "high": float(high),
        "n": len(array),
        "groups": len(np.unique(groups)),
    }
