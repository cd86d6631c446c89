"""Explanations as PNG. Orange speaks for fake, purple for real: told apart with any colour vision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from crossfake.datasets.types import Pixels
from crossfake.detect.explain.checks import shown_share
from crossfake.errors import UserError

_ORANGE, _PURPLE, _BLUE = "#c2540a", "#5e3c99", "#0072B2"
_SIGNED = LinearSegmentedColormap.from_list("verdict", (_PURPLE, "#b2abd2", "#f7f7f7", "#fdb863", "#e66101"))
_ATTENTION = _POWER = matplotlib.colormaps["cividis"]
_STRONGEST = 0.8  # how opaque an overlay gets
_PERCENTILE = 99.5  # of a map's numbers that the colours reach to: one pixel must not make all others pale


def overlay(image: Pixels, chart: npt.NDArray[np.float32], kind: str) -> Pixels:
    """A map laid over its grey crop: uint8 ``[S, S, 3]`` and float32 ``[S, S]`` to uint8 ``[S, S, 3]``."""
    scale, color_map = _scale(chart, kind)
    strength = np.clip(np.abs(chart if kind != "attention" else chart - scale.vmin) / _reach(scale), 0, 1)
    gray = (image @ np.array([0.299, 0.587, 0.114])).astype(np.float64) / 255
    alpha = _STRONGEST * np.sqrt(strength)[..., None]
    tint = color_map(scale(chart))[..., :3] * (0.3 + 0.7 * gray[..., None])  # so that the face stays visible
    blend = gray[..., None] * (1 - alpha) + tint * alpha
    return np.asarray((np.clip(blend, 0, 1) * 255).round(), np.uint8)


def strengths(chart: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    """A map as :func:`overlay` colours it, in numbers: float32 ``[S, S]`` in [-1, 1], of attention in [0, 1]."""
    scale, _ = _scale(chart, kind)
    found = np.asarray(scale(chart), np.float32)
    return found if kind == "attention" else np.clip(2 * found - 1, -1, 1)


def spectrum_panels(
    spectrum: npt.NDArray[np.float64], difference: npt.NDArray[np.float64] | None = None
) -> Pixels:
    """A log power spectrum ``[S, S]`` in dB, and beside it its difference from that of reals in standard deviations.

    Returns:
        uint8 ``[S, S, 3]``, or ``[S, 2S + S // 16, 3]`` with the difference: orange is more power than reals have.
    """
    low, high = np.percentile(spectrum, [1, 99.5])
    panels = [_POWER(Normalize(low, max(high, low + 1e-12), clip=True)(spectrum))[..., :3]]
    if difference is not None:
        panels.append(np.ones((len(spectrum), len(spectrum) // 16, 3)))
        panels.append(_SIGNED(Normalize(-4, 4, clip=True)(difference))[..., :3])
    return np.asarray((np.concatenate(panels, axis=1) * 255).round(), np.uint8)


def overlay_picture(image: Pixels, chart: npt.NDArray[np.float32], kind: str, title: str, path: Path) -> None:
    """The crop, its map, and both in one.

    Args:
        image: uint8 ``[S, S, 3]``.
        chart: float32 ``[S, S]``.
        kind: ``signed``, ``positive`` or ``attention``; see :class:`crossfake.detect.explain.methods.Method`.
    """
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    axes = figure.subplots(1, 3)
    scale, color_map = _scale(chart, kind)
    axes[0].imshow(image)
    shown = axes[1].imshow(chart, cmap=color_map, norm=scale)
    axes[2].imshow(overlay(image, chart, kind))
    for each, name in zip(axes, ("the detector's crop", "map", "overlay"), strict=True):
        _frame(each, name)
    bar = figure.colorbar(shown, ax=axes[1], location="bottom", fraction=0.05, pad=0.03, aspect=30)
    bar.outline.set_visible(False)
    if kind == "attention":
        bar.set_ticks([scale.vmin, scale.vmax], labels=["little looked at", "much"])
    else:
        real = "speaks for real" if kind == "signed" else ""
        bar.set_ticks([scale.vmin, 0, scale.vmax], labels=[real, "0", "speaks for fake"])
    bar.ax.tick_params(length=0, labelsize=8.5)
    for label, side in zip(
        bar.ax.get_xticklabels()[:: len(bar.get_ticks()) - 1], ("left", "right"), strict=True
    ):
        label.set(ha=side)
    _save(figure, title, path)


def spectrum_picture(image: Pixels, found: dict[str, Any], reference: Any, title: str, path: Path) -> None:
    """The crop, its log spectrum, the mean of reals, the difference, and the azimuthal profile among those of reals."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 0.8))
    top, below = parts
    axes = top.subplots(1, 4)
    low, high = np.percentile(np.stack([found["spectrum"], reference.mean]), [1, 99.5])
    axes[0].imshow(image)
    axes[1].imshow(found["spectrum"], cmap=_POWER, vmin=low, vmax=high)
    shown = axes[2].imshow(reference.mean, cmap=_POWER, vmin=low, vmax=high)
    off = axes[3].imshow(found["difference"], cmap=_SIGNED, vmin=-4, vmax=4)
    names = ("the detector's crop", "log power spectrum", f"mean of {reference.count:,} reals", "difference")
    for each, name in zip(axes, names, strict=True):
        _frame(each, name)
    for mappable, axis, label in ((shown, axes[1:3], "dB"), (off, axes[3], "standard deviations of reals")):
        bar = top.colorbar(mappable, ax=axis, location="bottom", fraction=0.05, pad=0.03, aspect=30)
        bar.set_label(label, fontsize=8.5)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2, labelsize=8)
    profile = below.subplots()
    frequency = np.arange(1, len(found["profile"]) + 1) / len(image)
    mean, spread = reference.profile_mean, reference.profile_deviation
    profile.fill_between(
        frequency, mean - 2 * spread, mean + 2 * spread, color=_BLUE, alpha=0.15, linewidth=0
    )
    profile.plot(
        frequency, mean, color=_BLUE, linewidth=1.5, label="reals: mean and 2 standard deviations around"
    )
    profile.plot(frequency, found["profile"], color=_ORANGE, linewidth=1.8, label="this picture")
    profile.set(xlabel="spatial frequency, cycles per pixel", ylabel="power, dB", xlim=(0, 0.5))
    profile.legend(frameon=False, fontsize=9)
    profile.spines[["top", "right"]].set_visible(False)
    _save(figure, title, path)


def prototypes_picture(image: Pixels, found: dict[str, Any], images: Pixels, title: str, path: Path) -> None:
    """The crop beside its nearest training images, each with its label, data set or generator, and similarity."""
    count = len(images)
    figure = Figure(figsize=(1.75 * (count + 1), 2.9), layout="constrained")
    axes = figure.subplots(1, count + 1, gridspec_kw={"width_ratios": [1.25] + [1] * count})
    axes[0].imshow(image)
    _frame(axes[0], "the detector's crop")
    for axis, near, label, name, likeness in zip(
        axes[1:], images, found["labels"], found["names"], found["similarity"], strict=True
    ):
        axis.imshow(near)
        color = _ORANGE if label else _PURPLE
        _frame(axis, f"{'fake' if label else 'real'} · {likeness:.3f}", color)
        axis.set_xlabel(name if len(name) < 24 else name[:22] + "…", fontsize=8, color="0.35")
        for spine in axis.spines.values():
            spine.set(visible=True, color=color, linewidth=2.5)
    _save(figure, title, path)


def check_picture(result: dict[str, Any], path: Path) -> None:
    """Curves of deletion, insertion and weight randomisation."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = (
        "deletion: should fall early",
        "insertion: should rise early",
        "weights shuffled from the head: should fall",
    )
    for axis, name in zip(axes, ("deletion", "insertion"), strict=False):
        if part := result[name]:
            share = np.linspace(0, 1, len(part["curve"]))
            axis.plot(
                share,
                part["random_curve"],
                color="0.55",
                linestyle="--",
                label=f"random maps, {part['random']['mean']:.3f}",
            )
            axis.plot(
                share,
                part["curve"],
                color=_BLUE,
                linewidth=1.8,
                label=f"{result['method']}, area {part['map']['mean']:.3f}",
            )
            axis.legend(frameon=False, fontsize=8.5)
        axis.set(
            xlabel="share of pixels " + ("blurred" if name == "deletion" else "put back"),
            ylabel="mean probability of fake",
        )
        axis.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    stages = result["randomisation"]
    steps = np.arange(len(stages) + 1)
    for name, color, label in (("rank_correlation", _BLUE, "rank correlation"), ("ssim", _ORANGE, "SSIM")):
        means = [1.0] + [stage[name]["mean"] for stage in stages]
        low = [1.0] + [stage[name]["low"] for stage in stages]
        high = [1.0] + [stage[name]["high"] for stage in stages]
        axes[2].fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes[2].plot(steps, means, color=color, marker="o", markersize=4, label=label)
    ticks = ["none"] + [shown_share(stage["share"]) for stage in stages]
    axes[2].set_xticks(steps, ticks, fontsize=8.5)
    axes[2].set(xlabel="weights shuffled", ylabel="likeness to the trained map")
    axes[2].axhline(0, color="0.8", linewidth=0.8)
    axes[2].legend(frameon=False, fontsize=8.5)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, "", path)


def _scale(chart: npt.NDArray[np.float32], kind: str) -> tuple[Any, Any]:
    if kind == "attention":
        low, high = (float(x) for x in np.percentile(chart, [100 - _PERCENTILE, _PERCENTILE]))
        return Normalize(low, max(high, low + 1e-12), clip=True), _ATTENTION
    reach = max(float(np.percentile(np.abs(chart), _PERCENTILE)), 1e-12)
    return Normalize(-reach, reach, clip=True), _SIGNED


def _reach(scale: Any) -> float:
    return float(scale.vmax - max(scale.vmin, 0.0)) if scale.vmin >= 0 else float(scale.vmax)


def _frame(axis: Any, title: str, color: str = "black") -> None:
    axis.set_title(title, fontsize=10, color=color)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _save(figure: Any, title: str, path: Path) -> None:
    try:
        if title:
            figure.suptitle(title.replace("$", r"\$"), fontsize=11, x=0.012, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", hint="name another --out") from error
