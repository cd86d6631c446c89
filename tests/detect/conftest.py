import dataclasses
import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.detect.bundle import fitness
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.provenance import hash_file

SIZE = 16


def make_shards(
    folder: Path,
    label: int,
    count: int = 120,
    seed: int = 0,
    crop: str | dict[str, object] = "none",
    split: str = "",
    prefix: str = "",
) -> Path:
    """Coarse random squares; fakes carry a grid on every second pixel, as up-sampling leaves it."""
    rng = np.random.default_rng([seed, label])
    coarse = rng.integers(60, 180, (count, SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    if label:
        images[:, ::2, ::2] += 25
    prefix = prefix or folder.name
    with ShardWriter(
        folder, SIZE, attributes={"crop": {"policy": crop} if isinstance(crop, str) else crop}
    ) as writer:
        for number, image in enumerate(images):
            part = split or ("train" if number < count * 0.6 else "val" if number < count * 0.8 else "test")
            group = f"{prefix}-{number // 2}"
            writer.append(
                image, Row(label, folder.name, "grid" if label else "", part, group, origin=f"{number}.png")
            )
    return folder


def make_native(folder: Path, label: int, count: int = 60, parent: str = "", least: int = 24) -> Path:
    """Native rows of ``least`` to 40 pixels; fakes are the reals of the same number with a grid on them.

    Args:
        parent: folder name of the reals that fakes say they were made of; none when empty.
    """
    family = parent or "photos"
    with ShardWriter(folder, attributes={"crop": {"policy": "none", "pixels": "native"}}) as writer:
        for number in range(count):
            rng = np.random.default_rng([number, zlib.crc32(family.encode())])
            height, width = rng.integers(least, 41, 2)
            image = (
                rng.integers(60, 180, (10, 10, 3), dtype=np.uint8)
                .repeat(4, 0)
                .repeat(4, 1)[:height, :width]
                .copy()
            )
            if label:
                image[::2, ::2] += 25
            part = "train" if number < count * 0.6 else "val" if number < count * 0.8 else "test"
            row = Row(
                label,
                folder.name,
                "grid" if label else "",
                part,
                f"{family}-{number // 2}",
                origin=f"{number}.png",
            )
            writer.append(image, dataclasses.replace(row, parent=f"{parent}/{number}.png" if parent else ""))
    return folder


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Native reals, and fakes made of them."""
    folder = tmp_path_factory.mktemp("native")
    return make_native(folder / "photos", 0), make_native(folder / "made", 1, parent="photos")


@pytest.fixture(scope="session")
def native_run(native: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of native windows of 16 pixels, trained in pairs."""
    settings = TrainSettings(
        (native[0],),
        tmp_path_factory.mktemp("runs") / "native",
        (native[1],),
        view="native",
        window=16,
        pair=True,
        steps=40,
        batch=16,
        eval_every=20,
        device="cpu",
        recipe="plain",
    )
    return train(settings)


def damaged(folder: Path, copy: Path, rows: Sequence[int]) -> Path:
    """A copy of shards in which these rows do not have the checksums that they should."""
    shutil.copytree(folder, copy)
    with h5py.File(copy / "00000.h5", "r+") as file:
        for row in rows:
            file["crc32"][row] += 1
    return copy


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "real", 0)


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "fake", 1)


def make_fit(run: Path) -> Path:
    """Write a good test on strangers into a bundle's card, so that it may answer."""
    folder = run / "model" if (run / "model").is_dir() else run
    card = json.loads((folder / "bundle.json").read_text())
    parts = [
        {
            "name": f"strange {label}s",
            "label": label,
            "n": 10_000,
            "groups": 10_000,
            "data": "d",
            "known": "",
            label: 1.0,
            f"{label}_interval": [0.9999, 1.0],
            other: 0.0,
            f"{other}_interval": [0.0, 1e-7],
        }
        for label, other in (("real", "fake"), ("fake", "real"))
    ]
    test = {
        "model_hash": hash_file(folder / "model.safetensors"),
        "calibration": fitness.calibration_digest(card),
        "rows": "r",
        "scores": "s",
        "benign": 0.01,
        "tested": parts,
    }
    if isinstance(card.get("audit"), dict):
        card["audit"]["verdict"] = "pass"
    (folder / "bundle.json").write_text(json.dumps(fitness.added(card, test)))
    return run


@pytest.fixture(scope="session")
def trained(real: Path, fake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small CNN, made once."""
    out = tmp_path_factory.mktemp("runs") / "detector"
    settings = TrainSettings(
        (real,), out, (fake,), steps=40, batch=16, eval_every=10, lr=3e-3, augment=0.0, device="cpu"
    )
    return train(settings)


@pytest.fixture(scope="session")
def fit_run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run after a good test on strangers: it may answer."""
    return make_fit(Path(shutil.copytree(trained, tmp_path_factory.mktemp("fit") / "detector")))


@pytest.fixture(scope="session")
def fit_native(native_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector of native windows after a good test on strangers."""
    return make_fit(Path(shutil.copytree(native_run, tmp_path_factory.mktemp("fit") / "native")))
