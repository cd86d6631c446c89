"""What training can do besides: classes, augmentation, transfer, several processes, and looking after itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.errors import UserError
from crossfake.fit.checkpoints import newest_checkpoint
from crossfake.runs import Run
from crossfake.synth.sampling.models import load_model
from crossfake.synth.training.runs import resumed
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import (
    GeneratorTraining,
    dry_run,
    train,
)
from crossfake.synth.training.transfer import transfer
from crossfake.synth.training.watch import Monitor, diversity

from ..conftest import PUBLISHED, same_state

SMALL = {"batch": 8, "channels": 64, "device": "cpu"}


@pytest.fixture(scope="session")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 32 pictures of two sources, dark and bright."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    with ShardWriter(folder, size=16) as writer:
        for number in range(32):
            image = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8) + np.uint8(100 * (number % 2))
            source = ("dark", "bright")[number % 2]
            writer.append(image, Row(0, source, split="train", group=str(number)))
    return folder


def _newest(run: Path) -> dict[str, object]:
    checkpoint = newest_checkpoint(run)
    assert checkpoint is not None
    state: dict[str, object] = torch.load(checkpoint, weights_only=True)
    return state


@pytest.mark.parametrize("augment", ["ada", "ada-all", "diffaugment"])
def test_everything_is_resumed_with_classes_and_augmentation(
    augment: str, two_sources: Path, tmp_path: Path
) -> None:
    settings = dict(
        data=two_sources, condition="source", augment=augment, snapshot_kimg=0.016, **SMALL, **PUBLISHED
    )
    whole = train(TrainSettings(out=tmp_path / "whole", kimg=0.048, **settings))
    part = train(TrainSettings(out=tmp_path / "part", kimg=0.024, **settings))
    train(resumed(part, kimg=0.048))
    same_state(_newest(whole), _newest(part))
    assert ("adaptive" in _newest(whole)) == augment.startswith("ada")
    model = load_model(whole)
    assert model.card["classes"] == ["bright", "dark"]
    one, other = model.images(0, 4, label=0), model.images(0, 4, label=1)
    mixed = model.images(0, 4)
    assert not np.array_equal(one, other)
    assert np.array_equal(mixed[::2], one[::2]) and np.array_equal(mixed[1::2], other[1::2])  # in turn


def test_a_column_that_tells_nothing_apart_is_refused(reals: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all images have the source 'squares'"):
        train(TrainSettings(reals, tmp_path / "a", condition="source", **SMALL))
    with pytest.raises(UserError, match="no column of classes"):
        train(TrainSettings(reals, tmp_path / "b", condition="colour", **SMALL))
    with pytest.raises(UserError, match="dcgan knows no classes"):
        TrainSettings(reals, tmp_path / "c", family="dcgan", condition="source")


def test_weights_carry_over_to_another_resolution(reals: Path, tmp_path: Path) -> None:
    small = train(TrainSettings(reals, tmp_path / "small", kimg=0.016, **SMALL))
    with ShardWriter(tmp_path / "large", size=32) as writer:
        for number in range(16):
            writer.append(np.full((32, 32, 3), number, np.uint8), Row(0, "x", split="train"))
    settings = TrainSettings(tmp_path / "large", tmp_path / "run", init=small, freeze=1, kimg=0.016, **SMALL)
    before = GeneratorTraining(settings).learner
    said = transfer(before, small)
    average, taken = _newest(small)["average"], before.generator.state_dict()
    assert "of the generator" in said and "of the discriminator" in said
    assert torch.equal(taken["convs.1.weight"], average["convs.1.weight"])  # type: ignore[index]
    assert torch.equal(taken["const"], average["const"])  # type: ignore[index]
    frozen = before.discriminator.from_rgb.weight.clone()  # type: ignore[attr-defined]
    assert not before.discriminator.from_rgb.weight.requires_grad  # type: ignore[attr-defined]
    train(settings)
    after = _newest(tmp_path / "run")["discriminator"]
    assert torch.equal(after["from_rgb.weight"], frozen)  # type: ignore[index]
    with pytest.raises(UserError, match="holds no generator"):
        transfer(before, tmp_path / "large")
    with pytest.raises(UserError, match="--freeze together with --init"):
        TrainSettings(reals, tmp_path / "x", freeze=2)


@pytest.mark.parametrize("family", ["stylegan2", pytest.param("r3gan", marks=pytest.mark.slow)])
def test_two_processes_learn_the_same_as_one(family: str, two_sources: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    settings = dict(
        family=family,
        condition="source",
        augment="ada",
        kimg=0.032,
        batch=8,
        channels=64,
        device="cpu",
        precision="fp32",
        snapshot_kimg=0.008,
        **PUBLISHED,
    )
    train(TrainSettings(two_sources, tmp_path / "one", **settings))
    code = (
        "from pathlib import Path\nfrom crossfake.synth.training.train import train\n"
        "from crossfake.synth.training.settings import TrainSettings\n"
        f"train(TrainSettings(Path({str(two_sources)!r}), Path('two'), **{settings!r}))\n"
    )
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [Run(tmp_path / out).log_lines() for out in ("one", "two")]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]] == [1, 2, 3, 4]
    for one, two in zip(*lines, strict=True):
        for name in ("path_length", "augment_p"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5)
    states = [_newest(tmp_path / out) for out in ("one", "two")]
    for name, tensor in states[0]["average"].items():  # type: ignore[attr-defined]
        torch.testing.assert_close(states[1]["average"][name], tensor, atol=2e-4, rtol=1e-3, msg=name)  # type: ignore[index]


def test_a_dry_run_leaves_nothing_behind(reals: Path, tmp_path: Path) -> None:
    text = dry_run(TrainSettings(reals, tmp_path / "run", **SMALL), steps=2)
    assert "s/kimg" in text and "GB" in text and "200 kimg take" in text
    assert not (tmp_path / "run").exists()


def test_the_guard_warns_of_a_certain_discriminator_and_of_images_all_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reals = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    guard = Monitor(reals)
    assert guard.look(reals) == pytest.approx(1.0) and diversity(reals) == pytest.approx(0.408, abs=0.01)
    assert guard.look(np.repeat(reals[:1], 16, axis=0)) == 0 and "collapsing" in capsys.readouterr().out
    guard.look(np.repeat(reals[:1], 16, axis=0))
    for _ in range(9):
        guard.check({"sign_real": 0.99, "sign_fake": -0.99}, 1.0, None)
    assert capsys.readouterr().out == ""  # said once, and nine are not yet ten
    guard.check({"sign_real": 0.99, "sign_fake": -0.99}, 1.0, None)
    assert "told every fake" in capsys.readouterr().out
    with pytest.raises(UserError, match="r1 is not finite at 3.0 kimg.*--gamma"):
        guard.check({"r1": float("inf")}, 3.0, Path("x.pt"))


def test_watching_keeps_the_best_model_and_a_film(reals: Path, tmp_path: Path) -> None:
    run = train(TrainSettings(reals, tmp_path / "run", kimg=0.032, snapshot_kimg=0.016, watch=100, **SMALL))
    measured = [line for line in Run(run).log_lines() if "swd" in line]
    assert len(measured) == 2 and all(np.isfinite(line["swd"]) and line["diversity"] > 0 for line in measured)
    best = min(measured, key=lambda line: line["swd"])
    assert json.loads((run / "best" / "model.json").read_text())["kimg"] == pytest.approx(best["kimg"])
    assert not (run / "watch").exists() and (run / "training.gif").stat().st_size > 1000
    assert load_model(run / "best").images(0, 2).shape == (2, 16, 16, 3)


def test_frozen_settings_can_be_resumed(reals: Path, tmp_path: Path) -> None:
    first = train(TrainSettings(reals, tmp_path / "first", kimg=0.016, **SMALL))
    run = train(TrainSettings(reals, tmp_path / "run", init=first, freeze=1, kimg=0.016, **SMALL))
    shutil.rmtree(first)
    train(resumed(run, kimg=0.024))
    assert _newest(run)["step"] == 3
