"""The figures of ``synth evaluate``, each a function of a job, and what they share: networks, features, intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.device import compute_dtype
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.progress import tqdm
from crossfake.provenance import hash_file
from crossfake.stats.intervals import wilson
from crossfake.synth.quality import elsewhere
from crossfake.synth.quality.cache import cached_features, cached_moments
from crossfake.synth.quality.detectability import detectability
from crossfake.synth.quality.features import InceptionFeatures, TimmFeatures, open_features
from crossfake.synth.quality.fid import fid_infinity, frechet_distance, mifid
from crossfake.synth.quality.images import Images
from crossfake.synth.quality.kid import kid
from crossfake.synth.quality.lpips_diversity import Lpips, lpips_diversity
from crossfake.synth.quality.moments import Measurement, Moments, collect, interval, jackknife, merge
from crossfake.synth.quality.neighbours import manifolds, nearest
from crossfake.synth.quality.sliced_wasserstein import IMAGES, levels, sliced_wasserstein
from crossfake.synth.quality.spectrum import frequencies, log_spectral_distance, radial_spectrum
from crossfake.synth.quality.table import USUAL_DIMS, head_of
from crossfake.weights import KNOWN, find_weights

if TYPE_CHECKING:
    from crossfake.synth.settings import EvaluateSettings

T = TypeVar("T")
Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
Details = dict[str, dict[str, Any]]
_BLOCKS = 10  # that the jackknife leaves out one by one
_PAIRS = 5000  # for LPIPS: a standard error of about 0.001
_MOST = 10_000  # images per side whose distances are taken to all others: the work grows with the square
_MEMORY = 2000  # fakes whose nearest real is looked at
_FEWEST = 100  # images per side that a detector can be trained on


class NotMeasured(Exception):
    """Why a figure cannot be had here although nothing that the user named is wrong."""


@dataclass(frozen=True)
class Comparison:
    """What is compared. Rows are in random order, so that any slice of them is a random sample.

    Features of networks and spectra are taken where ``where`` says, which is connected; all else is computed here.
    """

    settings: EvaluateSettings
    real: ShardSet
    fake: ShardSet
    real_rows: Rows
    fake_rows: Rows
    device: torch.device
    warnings: list[str]
    where: ExecutorSettings = LOCAL
    _measured: dict[str, tuple[Features, Features, dict[str, Any]]] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Images at a time."""
        # Activations of 16 images fit the cache of a CPU core: 64 at a time are a third slower.
        return self.settings.batch or (128 if self.device.type == "cuda" else 16)

    @property
    def size(self) -> int:
        """Height and width of the reals."""
        return int(self.real.size or 0)

    @property
    def least(self) -> int:
        """Images of the smaller side."""
        return min(len(self.real_rows), len(self.fake_rows))

    @property
    def has_features(self) -> bool:
        """Whether Inception's were measured already."""
        return "inception" in self._measured

    def features(self, kind: str = "inception") -> tuple[Features, Features, dict[str, Any]]:
        """Features of the reals and of the fakes ``[n, d]``, and which network gave them. Each image is seen once."""
        if kind not in self._measured:
            self._measured[kind] = self._measure(kind)
        return self._measured[kind]

    def _measure(self, kind: str) -> tuple[Features, Features, dict[str, Any]]:
        settings = self.settings
        network: InceptionFeatures | TimmFeatures
        resize = settings.resize or ("torch" if kind == "inception" else "clean")
        open_it = partial(
            open_features,
            kind,
            dims=settings.dims,
            device=settings.device,
            precision=settings.precision,
            resize=resize,
        )
        if kind == "inception":
            file = None
            network, facts = _network("inception", settings.inception, open_it)
        else:
            file = settings.weights[settings.features.index(kind)]
            network = open_it(file)
            facts = {"file": file.name, "sha256": hash_file(file)}
        dtype = str(network.dtype).removeprefix("torch.")
        key = [kind, facts["sha256"], network.dims, dtype, resize]

        def measure(shards: ShardSet, rows: Rows, side: str) -> Features:
            with _bar(f"{kind.removeprefix('timm:')} {side}", len(rows)) as counted:
                if self.where.is_ray:
                    weights = file or find_weights("inception", settings.inception)
                    return elsewhere.features(open_it, weights, shards, rows, self.batch, counted, self.where)
                return np.concatenate([network(part) for part in Images(shards, rows, self.batch, counted)])

        real = cached_features(
            [self.real.hash, _digest(self.real_rows), key], lambda: measure(self.real, self.real_rows, "real")
        )
        fake = measure(self.fake, self.fake_rows, "fake")
        for side, found in (("real", real), ("fake", fake)):
            if not np.isfinite(found).all():
                raise UserError(
                    f"the features of a {side} image are not numbers",
                    hint="the weights file is damaged: fetch it again",
                )
        return real, fake, {"network": facts, "dims": network.dims, "dtype": dtype, "resize": resize}


def _fid(job: Comparison) -> Details:
    found = _frechet(job, "fid", "inception")
    real, fake, facts = job.features()
    if facts["dims"] != USUAL_DIMS:  # what counts as a copy was set for these features
        return {"fid": found}
    each = nearest(fake, real)[1][:, 0].astype(np.float64)
    distance = interval(Measurement(float(each.mean()), float(each.std() / math.sqrt(len(each))), None))
    value = mifid(found["value"], distance["value"])
    error = (
        found["standard_error"] * value / found["value"]
        if found["standard_error"] and found["value"]
        else None
    )
    return {"fid": found, "mifid": interval(Measurement(value, error, None)) | {"nearest": distance} | facts}


def _fd(job: Comparison) -> Details:
    names = {f"fd-{kind.removeprefix('timm:')}": kind for kind in job.settings.features}
    return {name: _frechet(job, name, kind) for name, kind in names.items()}


def _frechet(job: Comparison, name: str, kind: str) -> dict[str, Any]:
    real, fake, facts = job.features(kind)
    if job.least <= facts["dims"]:
        job.warnings.append(
            f"{head_of(name, facts)}: {job.least:,} images cannot fill a covariance of {facts['dims']} dims; "
            "it is singular"
        )
    sides = [[Moments.of(part) for part in np.array_split(side, _parts(side))] for side in (real, fake)]
    figures = _figures(job, frechet_distance, *sides)
    endless, sampling = fid_infinity(merge(sides[0]), sides[1]), figures["standard_error"]
    if endless and endless.standard_error is not None and sampling is not None:
        # the samples of the line overlap: what other images would change is the jackknife's to say
        error = math.hypot(endless.standard_error, sampling)
        figures["infinity"] = interval(Measurement(endless.value, error, None))
    return {**figures, "n": [len(real), len(fake)], **facts}


def _kid(job: Comparison) -> Details:
    real, fake, facts = job.features()
    real, fake = real[:_MOST], fake[:_MOST]
    found = kid(real, fake, job.settings.seed)
    detail = interval(found.whole)
    if found.subsets:
        detail["subsets"] = {
            "n": found.subsets,
            "size": found.size,
            "mean": found.mean,
            "deviation": found.deviation,
        }
    if job.settings.baseline and len(real) > 3:
        detail["baseline"] = interval(kid(real[::2], real[1::2], job.settings.seed, subsets=0).whole)
        detail["baseline"]["n"] = [len(real[::2]), len(real[1::2])]
    return {"kid": detail | {"n": [len(real), len(fake)]} | facts}


def _prdc(job: Comparison) -> Details:
    real, fake, facts = job.features()
    k = (3, 5)
    if job.least <= max(k):
        raise NotMeasured(f"{job.least} images have too few neighbours")
    real, fake = real[:_MOST], fake[:_MOST]

    def compare(real: Features, fake: Features) -> Details:
        n = [len(real), len(fake)]
        figures = {}
        for name, estimate in manifolds(real, fake, *k)._asdict().items():
            figures[name] = interval(estimate) | {"n": n}
            if name != "density":  # the others are shares of one side's images
                images = len(fake) if name == "precision" else len(real)
                figures[name]["interval"] = [float(end) for end in wilson(estimate.value, images)]
        return figures

    detail = compare(real, fake)
    if job.settings.baseline and len(real) > 2 * max(k) + 1:
        for name, figure in compare(real[::2], real[1::2]).items():
            detail[name]["baseline"] = figure
    return {name: each | {"k": k[name in ("density", "coverage")]} | facts for name, each in detail.items()}


def _spectrum(job: Comparison) -> Details:
    real, fake = _both(job, "spectrum", radial_spectrum, "spectrum")
    curves = {}
    for side, blocks in (("real", real), ("fake", fake)):
        whole = merge(blocks)
        curves[side] = {"mean": whole.mean.tolist(), "deviation": np.sqrt(np.diag(whole.covariance)).tolist()}
    figures = _figures(job, log_spectral_distance, real, fake)
    for each in (figures, figures.get("baseline", {})):
        for name in ("debiased", "debiased_interval"):  # not of order 1/n for a root that is near zero
            each.pop(name, None)
    return {
        "spectrum": {
            **figures,
            "unit": "dB, root mean square over frequency of the difference of mean log power",
            "cycles_per_pixel": frequencies(job.size).tolist(),
            "decibels": curves,
        }
    }


def _swd(job: Comparison) -> Details:
    if not levels(job.size):
        raise NotMeasured(f"the pyramid needs a power of two from 16, not {job.size}")
    n = min(len(job.real_rows), len(job.fake_rows), IMAGES)
    half = min(len(job.real_rows) // 2, IMAGES)

    def distances(title: str, *sides: tuple[ShardSet, Rows]) -> dict[int, tuple[float, float]]:
        with _bar(title, 2 * sum(len(rows) for _, rows in sides)) as counted:
            a, b = (Images(shards, rows, max(job.batch, 64), counted) for shards, rows in sides)
            return sliced_wasserstein(a, b, job.size, job.device, job.settings.seed)

    def compare(title: str, *sides: tuple[ShardSet, Rows]) -> dict[str, Any]:
        found = distances(title, *sides)
        value, error = float(np.mean([each for each, _ in found.values()])), None
        if len(sides[0][1]) >= _FEWEST:  # quarters vary twice as much as the whole
            parts = [[(shards, rows[k::4]) for shards, rows in sides] for k in range(4)]
            quarters = [
                np.mean([each for each, _ in distances(f"{title}, quarter", *p).values()]) for p in parts
            ]
            error = float(np.std(quarters, ddof=1)) / 2
        return interval(Measurement(value, error, None)) | {
            "levels": {str(level): each for level, (each, _) in found.items()},
            "direction_error": {str(level): each for level, (_, each) in found.items()},
            "n": [len(rows) for _, rows in sides],
        }

    detail = compare("SWD", (job.real, job.real_rows[:n]), (job.fake, job.fake_rows[:n]))
    if job.settings.baseline:
        halves = job.real_rows[:half], job.real_rows[half : 2 * half]
        detail["baseline"] = compare("SWD of reals", *((job.real, rows) for rows in halves))
    return {"swd": {**detail, "unit": "Wasserstein-1 distance times 1000, mean over levels"}}


def _lpips(job: Comparison) -> Details:
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
        with _bar(f"LPIPS {side}", len(used)) as counted:
            estimate, pairs = lpips_diversity(distance, Images(shards, used, 2 * max(job.batch, 16), counted))
        found[side] = interval(estimate) | {"pairs": pairs}
    return {"lpips": {**found["fake"], "real": found["real"], "net": net, "trunk": trunk}}


def _memory(job: Comparison) -> Details:
    """LPIPS to the nearest real, which Inception's features choose: much smaller than that of reals is copying."""
    net = job.settings.lpips_net
    distance, trunk = _network(
        f"lpips-{net}", job.settings.lpips_weights, lambda file: Lpips(net, file, job.device)
    )
    real, fake, _ = job.features()
    shown = fake[:_MEMORY]
    closest = job.real_rows[nearest(shown, real)[0][:, 0]]
    fakes = _lpips_pairs(job, distance, (job.fake, job.fake_rows[: len(shown)]), (job.real, closest))
    own = real[:_MEMORY]  # a real's nearest among all others: what a new photo would have
    two = nearest(own, real, 2)[0]
    other = np.where(two[:, 0] == np.arange(len(own)), two[:, 1], two[:, 0])
    reals = _lpips_pairs(
        job, distance, (job.real, job.real_rows[: len(own)]), (job.real, job.real_rows[other])
    )
    n = [len(real), len(shown)]
    return {"memory": {**fakes, "real": reals, "n": n, "net": net, "trunk": trunk}}


def _lpips_pairs(
    job: Comparison, distance: Lpips, one: tuple[ShardSet, Rows], other: tuple[ShardSet, Rows]
) -> dict[str, Any]:
    with _bar("LPIPS to the nearest real", 2 * len(one[1])) as counted:
        batches = (Images(*side, max(job.batch, 16), counted) for side in (one, other))
        each = torch.cat([distance(a, b) for a, b in zip(*batches, strict=True)]).double()
    error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None
    least = each.quantile(0.01)
    return interval(Measurement(float(each.mean()), error, None)) | {"first_percentile": float(least)}


def _detectability(job: Comparison) -> Details:
    n = min(job.least, _MOST)
    groups = job.real.columns["group"][job.real_rows[:n]].astype(str)
    if n < _FEWEST or len(np.unique(groups)) < _FEWEST // 2:
        raise NotMeasured(f"{n} images of {len(np.unique(groups))} people are too few to train a detector on")
    real, fake = (s.read_many(rows[:n]) for s, rows in ((job.real, job.real_rows), (job.fake, job.fake_rows)))
    seed, precision = job.settings.seed, job.settings.precision

    def compare(one: Pixels, other: Pixels) -> dict[str, Any]:
        found = detectability(one, other, groups[: len(one)], job.device, seed, precision=precision)
        return interval(found, share=True) | {"n": [len(one), len(other)]}

    detail = compare(real, fake)
    if job.settings.baseline:
        half = n // 2
        detail["baseline"] = compare(real[:half], real[half : 2 * half])
    dtype = str(compute_dtype(job.device, precision)).removeprefix("torch.")
    return {"detectability": detail | {"dtype": dtype}}


MEASURES: dict[str, Callable[[Comparison], Details]] = {
    "fid": _fid,
    "fd": _fd,
    "kid": _kid,
    "prdc": _prdc,
    "lpips": _lpips,
    "memory": _memory,
    "swd": _swd,
    "spectrum": _spectrum,
    "detectability": _detectability,
}


def _network(name: str, named: Path | None, load: Callable[[Path], T]) -> tuple[T, dict[str, Any]]:
    """A network and which file it is from; what is wrong is an error only if the user named the file.

    Published files carry the start of their hash in their name.
    """
    try:
        file = find_weights(name, named)
        network = load(file)
    except UserError as error:
        raise (error if named else NotMeasured(str(error))) from error
    sha256 = hash_file(file)
    published = Path(KNOWN[name].files[0]).stem.rsplit("-", 1)[1]
    return network, {"file": file.name, "sha256": sha256, "published": sha256.startswith(published)}


def _bar(title: str, total: int) -> tqdm:
    return tqdm(total=total, desc=title, unit="img", leave=False)


def _figures(
    job: Comparison, distance: Callable[[Moments, Moments], float], real: list[Moments], fake: list[Moments]
) -> dict[str, Any]:
    """A distance, its error, and if wanted the same between halves of the reals."""
    detail = interval(jackknife(distance, real, fake))
    if job.settings.baseline and len(real) > 1:
        a, b = real[::2], real[1::2]
        detail["baseline"] = interval(jackknife(distance, a, b)) | {
            "n": [sum(m.n for m in side) for side in (a, b)]
        }
    return detail


def _both(
    job: Comparison, title: str, features: Callable[[Tensor], npt.NDArray[Any]], key: str
) -> tuple[list[Moments], list[Moments]]:
    """Moments of ten random blocks of the reals and of the fakes; those of the reals are kept for next time."""

    def here(images: Tensor) -> npt.NDArray[Any]:
        return features(images.to(job.device))

    def measure(shards: ShardSet, rows: Rows, side: str) -> list[Moments]:
        with _bar(f"{title} {side}", len(rows)) as counted:
            blocks = np.array_split(rows, _parts(rows))
            if job.where.is_ray:
                return elsewhere.moments(features, shards, blocks, job.batch, counted, job.where)
            return [collect(here, Images(shards, block, job.batch, counted)) for block in blocks]

    real = cached_moments(
        [job.real.hash, _digest(job.real_rows), key], lambda: measure(job.real, job.real_rows, "real")
    )
    return real, measure(job.fake, job.fake_rows, "fake")


def _parts(rows: Sequence[Any] | npt.NDArray[Any]) -> int:
    return min(_BLOCKS, len(rows) // 2)


def _digest(rows: Rows) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()
