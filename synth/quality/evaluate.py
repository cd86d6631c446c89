"""``synth evaluate``: how far fakes are from reals, and how varied they are, with n and errors always beside."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.settings import Class
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import is_shards
from crossfake.device import pick_device
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.files import write_json
from crossfake.provenance import environment
from crossfake.synth.quality.earlier import add_earlier, result_file
from crossfake.synth.quality.measures import MEASURES, Comparison, NotMeasured, Rows
from crossfake.synth.quality.page import nearest_rows, write_page
from crossfake.synth.quality.sources import check_reals, from_model, from_pictures, is_model
from crossfake.synth.quality.table import head_of
from crossfake.synth.settings import EvaluateSettings

_USUAL = 10_000  # images on each side that papers compare at the least


def evaluate(settings: EvaluateSettings, where: ExecutorSettings = LOCAL) -> dict[str, Any]:
    """Measure fakes against reals and write ``quality.json``.

    Figures that an earlier evaluation of the same images left in that file stay, unless they are measured anew.

    Args:
        settings: what to compare, and how.
        where: what takes features and spectra, and makes a model's images: this process, or tasks of Ray.

    Returns:
        Every figure that could be measured by its name (``fid``, ``kid``, ``precision``, …), ``n_real``, ``n_fake``;
        under ``details`` each figure's name for readers, error, settings, levels or curves, under ``skipped`` the
        reasons why one is missing, under ``warnings`` what to know before quoting, under ``kept`` which figures are
        of an earlier evaluation, when and how they were measured; hashes, versions and wall times.

    Raises:
        UserError: the folders cannot be compared, a named file is wrong, or nothing can be measured.

    Example:
        >>> result = evaluate(EvaluateSettings(Path("faces"), Path("fakes")))  # doctest: +SKIP
        >>> print(format_table(result))  # doctest: +SKIP
    """
    _check_files(settings)
    with tempfile.TemporaryDirectory() as work, where.connected():
        return _evaluate(settings, Path(work), where)


def _check_files(settings: EvaluateSettings) -> None:
    for file in (settings.inception, settings.lpips_weights, *settings.weights):
        if file is not None and not file.is_file():
            raise UserError(f"the weights {file} are not there", hint="check the path")
    if (settings.sweep or settings.trunc != 1) and not is_model(settings.fake):
        raise UserError(
            f"{settings.fake} is no model to truncate",
            hint="name a run with --fake, or drop --trunc and --sweep",
        )
    if (file := result_file(settings)).suffix.lower() == ".html":
        raise UserError(f"{file} is where the page would go", hint="give --out NAME.json")


def _evaluate(settings: EvaluateSettings, work: Path, where: ExecutorSettings) -> dict[str, Any]:
    job = _prepare(settings, work, where)
    details: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys(settings.metrics):
        started = time.monotonic()
        try:
            details |= MEASURES[name](job)
        except NotMeasured as reason:
            skipped[name] = str(reason)
        seconds[name] = round(time.monotonic() - started, 2)
    if not details:
        raise UserError("; ".join(f"{name} is not possible: {why}" for name, why in skipped.items()))
    for name, each in details.items():
        each["name"] = head_of(name, each)
    result: dict[str, Any] = {
        **{name: each["value"] for name, each in details.items()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "n_real": len(job.real_rows),
        "n_fake": len(job.fake_rows),
        "details": details,
        "skipped": skipped,
        "warnings": job.warnings,
        "real": {
            "path": str(settings.real),
            "hash": job.real.hash,
            "split": settings.real_split or "train, val",
            "size": job.size,
        },
        "fake": {
            "path": str(settings.fake),
            "hash": job.fake.hash,
            "size": job.size,
            "model": is_model(settings.fake),
        }
        | {"generators": sorted(set(job.fake.columns["generator"][job.fake_rows].tolist()))},
        "settings": dataclasses.asdict(settings),
        "environment": environment(),
        "seconds": seconds,
    }
    sweep = [_at(job, psi, work, skipped) for psi in settings.sweep]
    result |= {"sweep": sweep} if sweep else {}
    result |= nearest_rows(job)
    file = result_file(settings)
    result = add_earlier(file, json.loads(json.dumps(result, default=str)))
    write_json(file, result)
    write_page(job, result)
    return result


def _at(job: Comparison, psi: float, work: Path, skipped: dict[str, str]) -> dict[str, float]:
    """FID and recall of a model at one truncation, with as many images as were measured."""
    settings = job.settings
    n, folder = len(job.fake_rows), work / f"psi{psi:g}"
    fake = from_model(settings.fake, folder, n, psi, settings.seed, settings.device, job.size, job.where)
    found: dict[str, float] = {"psi": psi, "dims": settings.dims}
    there = dataclasses.replace(job, fake=fake, fake_rows=np.arange(n), warnings=[], _measured={})
    for name in ("fid", "prdc"):
        try:
            details = MEASURES[name](there)
        except NotMeasured as reason:
            skipped[f"{name} over psi"] = str(reason)
            continue
        found |= {key: details[key]["value"] for key in ("fid", "precision", "recall") if key in details}
    return found


def _prepare(settings: EvaluateSettings, work: Path, where: ExecutorSettings) -> Comparison:
    check_reals(settings.real)
    if not os.access((file := result_file(settings)).parent, os.W_OK):
        raise UserError(f"{file} cannot be written", hint="name another file with --out")
    warnings: list[str] = []
    pictures: list[ShardSet] = []  # which do not say how they were cropped

    def opened(path: Path, side: Class) -> ShardSet:
        if is_shards(path):
            return ShardSet(path)
        found, left_out = from_pictures(path, side, work / side)
        pictures.append(found)
        warnings.extend([left_out] if left_out else [])
        return found

    real = opened(settings.real, "real")
    splits = None if settings.real_split == "all" else settings.real_split or ["train", "val", ""]
    real_rows = real.select(split=splits, label=0)
    split = "" if splits is None else f" of split {settings.real_split or 'train or val'}"
    _check_count(settings.real, real_rows, "real ", split)
    if is_shards(settings.fake) or not is_model(settings.fake):
        fake = opened(settings.fake, "fake")
    else:
        n = settings.limit or min(len(real_rows), _USUAL)
        fake = from_model(
            settings.fake, work / "fake", n, settings.trunc, settings.seed, settings.device, real.size, where
        )
    if real.size is None or real.size != fake.size:
        sides = ((settings.real, real.size), (settings.fake, fake.size))
        sizes = ", ".join(f"{path} {f'{size}²' if size else 'any size'}" for path, size in sides)
        raise UserError(
            f"images of one size are needed, found {sizes}", hint="prepare both with the same --size"
        )
    fake_rows = fake.select(label=1)
    if not len(fake_rows) and len(fake):
        warnings.append(f"{settings.fake} holds no fakes: its reals are compared instead")
        fake_rows = np.arange(len(fake))
    _check_count(settings.fake, fake_rows)
    real_rows, fake_rows = (
        np.random.default_rng([settings.seed, side]).permutation(rows)[: settings.limit]
        for side, rows in enumerate((real_rows, fake_rows))
    )
    crops = [None if shards in pictures else shards.attributes.get("crop") for shards in (real, fake)]
    if crops[0] != crops[1] and None not in crops:
        warnings.append("the sides were cropped by different rules, which every figure sees too")
    least = min(len(real_rows), len(fake_rows))
    if least < _USUAL:
        warnings.append(
            f"{least:,} images on the smaller side: distances come out too high below about {_USUAL:,}, "
            "so compare them only with figures for the same numbers"
        )
    return Comparison(
        settings, real, fake, real_rows, fake_rows, pick_device(settings.device), warnings, where
    )


def _check_count(path: Path, rows: Rows, kind: str = "", split: str = "") -> None:
    if len(rows) < 2:
        count = f"{len(rows)} {kind}image{'' if len(rows) == 1 else 's'}{split}"
        raise UserError(f"{path} has {count}", hint="two are the least that can be compared")
