"""``synth evaluate``: how far fakes are from reals, and how varied they are, with n and errors always beside."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from crossfake.datasets.shards import ShardSet
from crossfake.device import Precision, pick_device
from crossfake.errors import UserError
from crossfake.provenance import environment, hash_file
from crossfake.runs import write_text
from crossfake.synth.quality.cache import cached
from crossfake.synth.quality.fid import STAGES, InceptionFeatures, frechet_distance
from crossfake.synth.quality.images import Images
from crossfake.synth.quality.lpips_diversity import Lpips, lpips_diversity
from crossfake.synth.quality.moments import Estimate, Moments, collect, jackknife, merge
from crossfake.synth.quality.sliced_wasserstein import IMAGES, levels, sliced_wasserstein
from crossfake.synth.quality.spectrum import frequencies, log_spectral_distance, radial_spectrum
from crossfake.synth.quality.table import format_table as format_table
from crossfake.weights import KNOWN, find_weights

T = TypeVar("T")
METRICS = ("fid", "lpips", "swd", "spectrum")
QUALITY = "quality.json"
_BLOCKS = 10  # that the jackknife leaves out one by one
_PAIRS = 5000  # for LPIPS: a standard error of about 0.001
_USUAL = 10_000  # images on each side that papers compare at the least


@dataclass(frozen=True)
class EvaluateSettings:
    """What to compare, and how.

    Attributes:
        real, fake: shard folders with images of one size.
        dims: FID features: 2048 (what papers report), 768, 192 or 64.
        inception: the FID network; looked for in the weights folders when None.
        lpips_net: ``alex``, ``vgg`` or ``squeeze``.
        lpips_weights: torchvision's weights of that network; looked for when None.
        metrics: some of ``fid``, ``lpips``, ``swd``, ``spectrum``. One whose weights are nowhere is skipped.
        real_split: only reals of this split.
        limit: at most so many images from each side, chosen by the seed.
        batch: images at a time; 0 chooses.
        seed: of every random choice.
        baseline: also compare one half of the reals with the other: what a perfect generator would get.
        out: the file to write; ``quality.json`` beside the fakes when None.
    """

    real: Path
    fake: Path
    dims: int = 2048
    inception: Path | None = None
    lpips_net: str = "alex"
    lpips_weights: Path | None = None
    metrics: tuple[str, ...] = METRICS
    real_split: str | None = None
    limit: int | None = None
    batch: int = 0
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    baseline: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        for value, known, option in (
            (self.dims, tuple(STAGES), "--dims"),
            (self.lpips_net, ("alex", "vgg", "squeeze"), "--lpips-net"),
            *((name, METRICS, "--metrics") for name in self.metrics or ("none",)),
        ):
            if value not in known:
                raise UserError(f"{option} {value} is unknown", mend=f"use {', '.join(map(str, known))}")
        if self.limit is not None and self.limit < 2:
            raise UserError("two images are the least that can be compared", mend="give a higher --limit")
        if self.batch < 0 or self.seed < 0:
            raise UserError("--batch and --seed cannot be negative", mend="leave them at their defaults")

    @property
    def file(self) -> Path:
        """Where the result goes."""
        out = self.out or self.fake
        return out / QUALITY if out.is_dir() else out


@dataclass(frozen=True)
class _Job:
    settings: EvaluateSettings
    real: ShardSet
    fake: ShardSet
    real_rows: npt.NDArray[np.int64]  # in random order, so that any slice is a random sample
    fake_rows: npt.NDArray[np.int64]
    device: torch.device
    warnings: list[str]

    @property
    def batch(self) -> int:
        # Activations of 16 images fit the cache of a CPU core: 64 at a time are a third slower.
        return self.settings.batch or (128 if self.device.type == "cuda" else 16)

    @property
    def size(self) -> int:
        return int(self.real.size or 0)


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Measure fakes against reals and write ``quality.json``.

    Returns:
        ``fid``, ``lpips``, ``swd`` and ``spectrum`` as far as they were measured, ``n_real``, ``n_fake``;
        under ``details`` each figure's error, settings, levels or curves, under ``skipped`` the reasons why
        one is missing, under ``warnings`` what to know before quoting; hashes, versions and wall times.

    Raises:
        UserError: the folders cannot be compared, a named file is wrong, or nothing can be measured.

    Example:
        >>> result = evaluate(EvaluateSettings(Path("faces"), Path("fakes")))  # doctest: +SKIP
        >>> print(format_table(result))  # doctest: +SKIP
    """
    job = _prepare(settings)
    details: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys(settings.metrics):
        started = time.monotonic()
        try:
            details[name] = _MEASURES[name](job)
        except _Skip as reason:
            skipped[name] = str(reason)
        seconds[name] = round(time.monotonic() - started, 2)
    if not details:
        raise UserError("; ".join(f"{name} is not possible: {why}" for name, why in skipped.items()))
    result = {
        **{name: each["value"] for name, each in details.items()},
        "n_real": len(job.real_rows),
        "n_fake": len(job.fake_rows),
        "details": details,
        "skipped": skipped,
        "warnings": job.warnings,
        "real": {
            "path": str(settings.real),
            "hash": job.real.hash,
            "split": settings.real_split,
            "size": job.size,
        },
        "fake": {"path": str(settings.fake), "hash": job.fake.hash, "size": job.size}
        | {"generators": sorted(set(job.fake.columns["generator"][job.fake_rows].tolist()))},
        "settings": dataclasses.asdict(settings),
        "environment": environment(),
        "seconds": seconds,
    }
    result = json.loads(json.dumps(result, default=str))
    write_text(settings.file, json.dumps(result, indent=2) + "\n")
    return result


class _Skip(Exception):
    """Why a figure cannot be had here although nothing that the user named is wrong."""


def _prepare(settings: EvaluateSettings) -> _Job:
    real, fake = ShardSet(settings.real), ShardSet(settings.fake)
    if real.size is None or real.size != fake.size:
        sizes = ", ".join(f"{s.path} {f'{s.size}²' if s.size else 'any size'}" for s in (real, fake))
        raise UserError(
            f"images of one size are needed, found {sizes}", mend="prepare both with the same --size"
        )
    if not settings.file.parent.is_dir() or not os.access(settings.file.parent, os.W_OK):
        raise UserError(f"{settings.file} cannot be written", mend="name another file with --out")
    warnings = []
    chosen = real.select(split=settings.real_split, label=0), fake.select(label=1)
    if not len(chosen[1]) and len(fake):
        warnings.append(f"{fake.path} holds no fakes: its reals are compared instead")
        chosen = chosen[0], np.arange(len(fake))
    for shards, rows, which in ((real, chosen[0], "real "), (fake, chosen[1], "")):
        if len(rows) < 2:
            split = f" of split {settings.real_split}" if settings.real_split and shards is real else ""
            raise UserError(
                f"{shards.path} has {len(rows)} {which}images{split}",
                mend="two are the least that can be compared",
            )
    real_rows, fake_rows = (
        np.random.default_rng([settings.seed, side]).permutation(rows)[: settings.limit]
        for side, rows in enumerate(chosen)
    )
    crops = [shards.attributes.get("crop") for shards in (real, fake)]
    if crops[0] != crops[1] and None not in crops:
        warnings.append("the sides were cropped by different rules, which every figure sees too")
    least = min(len(real_rows), len(fake_rows))
    if least < _USUAL:
        warnings.append(
            f"{least:,} images on the smaller side: distances come out too high below about {_USUAL:,}, "
            "so compare them only with figures for the same numbers"
        )
    return _Job(settings, real, fake, real_rows, fake_rows, pick_device(settings.device), warnings)


def _fid(job: _Job) -> dict[str, Any]:
    settings = job.settings
    features, network = _network(
        "inception",
        settings.inception,
        lambda file: InceptionFeatures(file, settings.dims, job.device, settings.precision),
    )
    dtype = str(features.dtype).removeprefix("torch.")
    real, fake = _both(job, "FID", features, ["fid", network["sha256"], settings.dims, dtype])
    least = min(len(job.real_rows), len(job.fake_rows))
    if least <= settings.dims:
        job.warnings.append(
            f"FID: {least:,} images cannot fill a covariance of dims {settings.dims}; it is singular"
        )
    return {
        **_figures(job, frechet_distance, real, fake),
        "dims": settings.dims,
        "network": network,
        "dtype": dtype,
    }


def _spectrum(job: _Job) -> dict[str, Any]:
    real, fake = _both(job, "spectrum", lambda images: radial_spectrum(images.to(job.device)), ["spectrum"])
    curves = {}
    for side, blocks in (("real", real), ("fake", fake)):
        whole = merge(blocks)
        curves[side] = {"mean": whole.mean.tolist(), "deviation": np.sqrt(np.diag(whole.covariance)).tolist()}
    figures = _figures(job, log_spectral_distance, real, fake)
    for each in (figures, figures.get("baseline", {})):
        each.pop("debiased", None)  # not of order 1/n for a root that is near zero
    return {
        **figures,
        "unit": "dB, root mean square over frequency of the difference of mean log power",
        "cycles_per_pixel": frequencies(job.size).tolist(),
        "decibels": curves,
    }


def _swd(job: _Job) -> dict[str, Any]:
    if not levels(job.size):
        raise _Skip(f"the pyramid needs a power of two from 16, not {job.size}")
    n = min(len(job.real_rows), len(job.fake_rows), IMAGES)
    half = min(len(job.real_rows) // 2, IMAGES)

    def compare(title: str, *sides: tuple[ShardSet, npt.NDArray[np.int64]]) -> dict[str, Any]:
        with _bar(title, 2 * sum(len(rows) for _, rows in sides)) as bar:
            a, b = (Images(shards, rows, max(job.batch, 64), bar) for shards, rows in sides)
            found = sliced_wasserstein(a, b, job.size, job.device, job.settings.seed)
        return {
            "value": float(np.mean([value for value, _ in found.values()])),
            "levels": {str(level): value for level, (value, _) in found.items()},
            "direction_error": {str(level): error for level, (_, error) in found.items()},
            "n": len(sides[0][1]),
        }

    detail = compare("SWD", (job.real, job.real_rows[:n]), (job.fake, job.fake_rows[:n]))
    if job.settings.baseline:
        halves = job.real_rows[:half], job.real_rows[half : 2 * half]
        detail["baseline"] = compare("SWD of reals", *((job.real, rows) for rows in halves))
    return {**detail, "unit": "Wasserstein-1 distance times 1000, mean over levels"}


def _lpips(job: _Job) -> dict[str, Any]:
    net = job.settings.lpips_net
    distance, trunk = _network(
        f"lpips-{net}", job.settings.lpips_weights, lambda file: Lpips(net, file, job.device)
    )
    if not trunk["published"]:
        job.warnings.append(
            f"LPIPS: {trunk['file']} is not the {net} network that its weights were fitted to"
        )
    found = {}
    for side, shards, rows in (("fake", job.fake, job.fake_rows), ("real", job.real, job.real_rows)):
        used = rows[: 2 * _PAIRS]
        with _bar(f"LPIPS {side}", len(used)) as bar:
            estimate, pairs = lpips_diversity(distance, Images(shards, used, 2 * max(job.batch, 16), bar))
        found[side] = _interval(estimate) | {"pairs": pairs}
    return {**found["fake"], "real": found["real"], "net": net, "trunk": trunk}


_MEASURES: dict[str, Callable[[_Job], dict[str, Any]]] = {
    "fid": _fid,
    "lpips": _lpips,
    "swd": _swd,
    "spectrum": _spectrum,
}


def _network(name: str, named: Path | None, load: Callable[[Path], T]) -> tuple[T, dict[str, Any]]:
    """A network and which file it is from; what is wrong is an error only if the user named the file.

    Published files carry the start of their hash in their name.
    """
    try:
        file = find_weights(name, named)
        network = load(file)
    except UserError as error:
        raise (error if named else _Skip(str(error))) from error
    sha256 = hash_file(file)
    published = Path(KNOWN[name].files[0]).stem.rsplit("-", 1)[1]
    return network, {"file": file.name, "sha256": sha256, "published": sha256.startswith(published)}


def _bar(title: str, total: int) -> tqdm[Any]:
    return tqdm(total=total, desc=title, unit="img", leave=False)


def _interval(estimate: Estimate) -> dict[str, Any]:
    """The figure with its standard error and the 95% interval that follows.

    ``debiased`` has the part taken off that comes from comparing samples instead of whole distributions, which
    for FID is large below some 10,000 images (Chong and Forsyth 2020); it may fall a little below zero.
    """
    value, error = estimate.value, estimate.standard_error
    if not math.isfinite(value):
        raise UserError(
            "a figure is not a number", mend="the network's weights file is damaged: fetch it again"
        )
    interval = None if error is None else [value - 1.96 * error, value + 1.96 * error]
    figure = {"value": value, "standard_error": error, "interval": interval}
    return figure if estimate.debiased is None else figure | {"debiased": estimate.debiased}


def _figures(
    job: _Job, distance: Callable[[Moments, Moments], float], real: list[Moments], fake: list[Moments]
) -> dict[str, Any]:
    """A distance, its error, and if wanted the same between halves of the reals."""
    detail = _interval(jackknife(distance, real, fake))
    if job.settings.baseline and len(real) > 1:
        a, b = real[::2], real[1::2]
        detail["baseline"] = _interval(jackknife(distance, a, b)) | {
            "n": [sum(m.n for m in side) for side in (a, b)]
        }
    return detail


def _both(
    job: _Job, title: str, features: Callable[[Tensor], npt.NDArray[Any]], key: list[Any]
) -> tuple[list[Moments], list[Moments]]:
    """Moments of ten random blocks of the reals and of the fakes; those of the reals are kept for next time."""

    def measure(shards: ShardSet, rows: npt.NDArray[np.int64], side: str) -> list[Moments]:
        with _bar(f"{title} {side}", len(rows)) as bar:
            blocks = np.array_split(rows, min(_BLOCKS, len(rows) // 2))
            return [collect(features, Images(shards, block, job.batch, bar)) for block in blocks]

    subset = hashlib.sha256(job.real_rows.tobytes()).hexdigest()
    real = cached([job.real.hash, subset, key], lambda: measure(job.real, job.real_rows, "real"))
    return real, measure(job.fake, job.fake_rows, "fake")
