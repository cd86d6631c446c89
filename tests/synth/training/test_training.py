import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.verify import verify
from crossfake.distributed import Ranks
from crossfake.errors import UserError
from crossfake.fit import loop
from crossfake.provenance import hash_file
from crossfake.runs import Run
from crossfake.synth.cli import synth
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.models import load_model
from crossfake.synth.training.adversarial import Adversarial
from crossfake.synth.training.runs import make_plan, resumed
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import (
    Batches,
    GeneratorTraining,
    train,
)
from crossfake.synth.training.watch import Monitor

from ..conftest import PUBLISHED, same_state

LEARNING = [name for name in FAMILIES.names() if FAMILIES.get(name).learner]


@pytest.mark.parametrize("family", LEARNING)
def test_a_run_leaves_all_it_promises(family: str, trained: Callable[[str], Path], reals: Path) -> None:
    run = Run(trained(family))
    assert run.finished
    assert run.config["data_hashes"] == {str(reals): ShardSet(reals).hash}
    assert run.config["images"] == 32  # the training split only
    logged = run.log_lines()[-1]
    assert logged["kimg"] == 0.016 and np.isfinite(logged["loss"])
    assert (run.samples / "reals.png").exists() and list(run.samples.glob("0*.png"))
    model = load_model(run.path)
    assert model.images(0, 3).shape == (3, 16, 16, 3)
    assert model.card["crop"] == {"policy": "none"}


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize("family", LEARNING)
def test_stopped_and_resumed_equals_never_stopped(family: str, reals: Path, tmp_path: Path) -> None:
    settings = dict(
        data=reals, family=family, batch=8, channels=64, snapshot_kimg=0.016, device="cpu", **PUBLISHED
    )
    whole = train(TrainSettings(out=tmp_path / "whole", kimg=0.048, **settings))
    part = train(TrainSettings(out=tmp_path / "part", kimg=0.024, **settings))
    train(resumed(part, kimg=0.048))
    newest = [max((run / "checkpoints").glob("*.pt")) for run in (whole, part)]
    one, other = (torch.load(path, weights_only=True) for path in newest)
    same_state(one, other)
    assert one["step"] == 6
    assert hash_file(whole / "model" / "generator.safetensors") == hash_file(
        part / "model" / "generator.safetensors"
    )


def test_a_run_begun_by_an_earlier_version_goes_on_to_the_bit(reals: Path, tmp_path: Path) -> None:
    """Its checkpoint as that version wrote it, and steps made one by one in place of the loop."""
    settings = TrainSettings(
        reals, tmp_path / "run", batch=8, channels=64, kimg=0.048, augment="ada", device="cpu", **PUBLISHED
    )
    training = GeneratorTraining(settings)
    learner: Any = training.learner
    run = Run.create(settings.out, training.config, kind="synth")
    with training.context(), closing(training.batches()) as batches:
        for step, batch in enumerate(batches):
            if step == 3:
                parts = ("generator", "discriminator", "average", "optimizer_g", "optimizer_d")
                state = {part: getattr(learner, part).state_dict() for part in parts}
                state |= {"rng": learner.draws.rng.get_state(), "step": 3}
                state |= {"adaptive": learner.adaptive.state(), "mean_length": learner.mean_length}
                torch.save(state, run.checkpoints / "00000003.pt")
            if step == 6:
                break
            learner.train_step(*batch)
    train(resumed(run.path))
    ended = torch.load(run.checkpoints / "00000006.pt", weights_only=True)
    assert ended.keys() == state.keys() and ended["step"] == 6
    for part in parts:
        same_state(ended[part], getattr(learner, part).state_dict())
    assert torch.equal(ended["rng"], learner.draws.rng.get_state())


@pytest.mark.parametrize("before", [False, True])
def test_the_processor_is_left_as_it_was(before: bool, reals: Path, tmp_path: Path) -> None:
    tiny = torch.tensor(1e-40)  # denormal in float32
    torch.set_flush_denormal(before)
    try:
        training = GeneratorTraining(
            TrainSettings(reals, tmp_path / "run", batch=8, channels=64, device="cpu", precision="fp32")
        )
        with training.context():
            assert tiny * 1 == 0
        assert bool(tiny * 1 == 0) is before
    finally:
        torch.set_flush_denormal(False)


def test_batches_cover_each_epoch_once_and_start_anywhere() -> None:
    def take(start: int, count: int) -> list[list[int]]:
        batches = iter(Batches(10, 4, seed=3, start=start))
        return [next(batches) for _ in range(count)]

    first = take(0, 5)
    assert sorted(sum(first, [])[:10]) == sorted(sum(first, [])[10:]) == list(range(10))
    assert sum(first, [])[:10] != sum(first, [])[10:]
    assert take(3, 2) == first[3:]


def test_interrupt_writes_a_checkpoint(reals: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from crossfake.synth.training.train import *;"
        "from crossfake.synth.training.settings import *;"
        f"train(TrainSettings(Path({str(reals)!r}), Path({str(tmp_path / 'run')!r}), 'dcgan', batch=4, channels=16,"
        " kimg=1000, device='cpu'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    run = Run(tmp_path / "run")
    assert not run.finished
    (checkpoint,) = run.checkpoints.glob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == run.log_lines()[-1]["step"]


@pytest.mark.parametrize("told", [True, False])
def test_a_stop_is_what_the_vote_says(
    told: bool, reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that writes need not be the one that was sent a signal."""
    monkeypatch.setattr(Ranks, "agreed", lambda self, wish: wish or told)
    run = Run(train(TrainSettings(reals, tmp_path / "run", "dcgan", kimg=0.024, batch=8, channels=64)))
    assert run.finished is not told
    (checkpoint,) = run.checkpoints.glob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == (1 if told else 3)


_TOGETHER = """
import os, signal, sys
from pathlib import Path
import crossfake.synth.sampling.generation as generation
from crossfake.datasets.shards import ShardSet
from crossfake.device import rank_world
from crossfake.runs import Run
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.training.train import train
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.watch import Watch

generation.SHARD_ROWS = 40
reals, run, fakes = map(Path, sys.argv[1:])
learner = FAMILIES.get("dcgan").learner
step = learner.train_step

def told(self, *batch):
    if self.step == 3 and rank_world()[0] == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *batch)

learner.train_step = told
settings = dict(batch=8, channels=64, device="cpu")
train(TrainSettings(reals, run, "dcgan", kimg=1, **settings))
# the run has its model now, and all processes make fakes with it
generation.generate(generation.GenerateSettings(100, run, fakes, device="cpu"))
if rank_world()[0] == 0:
    figures = Watch(Run(run), reals, "train", 100, "cpu").measure()
    print("measured", figures)
"""


@pytest.mark.slow
def test_two_processes_stop_make_and_measure_together(reals: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    (tmp_path / "run.py").write_text(_TOGETHER)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run.py"]
    run, fakes = Run(tmp_path / "run"), tmp_path / "fakes"
    done = subprocess.run(
        [sys.executable, *launch, str(reals), str(run.path), str(fakes)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not run.finished and "stopped at" in done.stdout + done.stderr
    (checkpoint,) = run.checkpoints.glob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    assert run.config["processes"] == 2 and run.config["device"] == "cpu" == run.config["ran_on"]
    assert verify(fakes) == [] and ShardSet(fakes).counts == [40, 40, 20]
    assert len((fakes / "manifest.jsonl").read_text().splitlines()) == 3
    assert not list(fakes.glob(".*")) and (fakes / "generated.json").exists()
    assert "measured {'" in done.stdout


def test_a_watch_makes_all_of_its_images_itself(
    trained: Callable[[str], Path], reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import crossfake.synth.quality.evaluate as evaluation
    import crossfake.synth.sampling.generation as generation
    import crossfake.synth.training.watch as watch

    run = Run(Path(shutil.copytree(trained("dcgan"), tmp_path / "run")))
    monkeypatch.setattr(generation, "SHARD_ROWS", 40)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(evaluation, "evaluate", lambda settings: {"swd": float(len(ShardSet(settings.fake)))})
    assert watch.Watch(run, reals, "train", 100, "cpu").measure() == {"swd": 100.0}


def test_the_device_that_was_asked_for_is_kept(
    trained: Callable[[str], Path], reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = GeneratorTraining(TrainSettings(reals, tmp_path / "run", "dcgan", batch=8, channels=64))
    assert training.config["device"] == "auto"
    assert training.config["ran_on"] == str(training.plan.device)
    old = Run(Path(shutil.copytree(trained("dcgan"), tmp_path / "old")))
    config = {name: value for name, value in old.config.items() if name != "ran_on"}
    old.config_file.write_text(yaml.safe_dump({**config, "device": "cuda:0"}))  # as runs kept what was found
    assert resumed(old.path).device == "cuda:0"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resumed(old.path).device == "auto"
    assert resumed(old.path, device="cpu").device == "cpu"


def test_a_run_that_fails_before_its_first_checkpoint_is_told_to_start_again() -> None:
    guard = Monitor(np.zeros((4, 16, 16, 3), np.uint8))
    with pytest.raises(
        UserError, match="before the first checkpoint: start again with .*--lr.* another --out"
    ):
        guard.check({"loss": math.nan}, 1.0, None)


def test_a_loss_that_is_not_finite_stops_and_names_the_last_good_state(
    reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Adversarial.train_step

    def poisoned(self: Adversarial, real: torch.Tensor, labels: None = None) -> dict[str, torch.Tensor]:
        if self.step == 3:
            next(self.generator.parameters()).data.fill_(float("nan"))
        return step(self, real)

    monkeypatch.setattr(Adversarial, "train_step", poisoned)
    with pytest.raises(UserError, match=r"not finite.*last good state is .*00000002\.pt.*--resume"):
        train(TrainSettings(reals, tmp_path / "run", batch=8, channels=64, kimg=1, snapshot_kimg=0.016))
    assert Run(tmp_path / "run").finished is False


def test_bad_settings_are_one_line(reals: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'stylegan2'"):
        TrainSettings(reals, tmp_path, family="stylgan2")
    with pytest.raises(UserError, match="--kimg"):
        TrainSettings(reals, tmp_path, kimg=0)
    with pytest.raises(UserError, match="--batch"):
        TrainSettings(reals, tmp_path, batch=1)
    with pytest.raises(UserError, match="--mixing 9 is out of range: give a number from 0 to 1"):
        TrainSettings(reals, tmp_path, mixing=9)
    with pytest.raises(UserError, match="dcgan has no parts that can be frozen"):
        TrainSettings(reals, tmp_path, "dcgan", init=tmp_path, freeze=2)
    with pytest.raises(UserError, match="fewer than a batch"):
        train(TrainSettings(reals, tmp_path / "a", batch=64))
    for split in ("val", "test", ""):
        with pytest.raises(UserError, match=f"learns from {split!r} rows .*leave --split out"):
            TrainSettings(reals, tmp_path / "b", split=split)
    with pytest.raises(UserError, match="not a shard folder"):
        train(TrainSettings(tmp_path / "none", tmp_path / "c"))
    with pytest.raises(UserError, match="holds no run to resume"):
        resumed(tmp_path / "none")


def test_a_damaged_checkpoint_is_refused(trained: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(trained("dcgan"), tmp_path / "run")
    max((run / "checkpoints").glob("*.pt")).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="does not fit this run"):
        train(resumed(run, kimg=1))


def test_plan_follows_the_published_heuristic(reals: Path, tmp_path: Path) -> None:
    plan = make_plan(TrainSettings(reals, tmp_path, device="cpu", batch=32), size=64)
    assert plan.gamma == pytest.approx(0.0002 * 64**2 / 32)
    assert (plan.lr, plan.channels, plan.noise, plan.mixing, plan.path_weight) == (0.005, 2048, False, 0, 0)
    published = TrainSettings(reals, tmp_path, lr=0.0025, noise=True, mixing=0.9, path_weight=2, device="cpu")
    plan = make_plan(published, size=64)
    assert (plan.lr, plan.noise, plan.mixing, plan.path_weight) == (0.0025, True, 0.9, 2)
    with pytest.raises(UserError, match="not 48"):
        make_plan(TrainSettings(reals, tmp_path), size=48)


@pytest.mark.slow
def test_stylegan2_learns_the_mean_colour(tmp_path: Path) -> None:
    """Half a minute of training on orange pictures makes orange pictures."""
    from crossfake.datasets.shard_writer import ShardWriter
    from crossfake.datasets.shards import Row

    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "orange", size=16) as writer:
        for _ in range(64):
            noise = rng.integers(-20, 20, (16, 16, 3))
            writer.append(
                (np.array([230, 130, 30]) + noise).clip(0, 255).astype(np.uint8),
                Row(0, "orange", split="train"),
            )
    run = train(TrainSettings(tmp_path / "orange", tmp_path / "run", kimg=12, batch=16, channels=256))
    mean = load_model(run).images(0, 64).mean(axis=(0, 1, 2))
    assert np.abs(mean - [230, 130, 30]).max() < 25, mean
    assert json.loads((run / "model" / "model.json").read_text())["family"] == "stylegan2"


def test_the_command_ends_with_a_report_and_a_stopped_one_with_how_to_go_on(
    reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "train",
        "--data",
        str(reals),
        "--out",
        str(tmp_path / "run"),
        "--family",
        "dcgan",
        "--kimg",
        "0.016",
        "--batch",
        "8",
        "--channels",
        "64",
        "--device",
        "cpu",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(loop.Stopper, "asked", True)
        stopped = CliRunner().invoke(synth, words)
    assert stopped.exit_code == 130 and "more fakes" not in stopped.output
    assert f"continue with 'synth train --out {tmp_path / 'run'} --resume'" in stopped.output
    again = ["train", "--out", str(tmp_path / "run"), "--resume"]
    other = CliRunner().invoke(synth, [*again, "--family", "stylegan2"])
    assert other.exit_code == 2
    assert "was begun with --family dcgan, not stylegan2: leave --family out" in other.output
    done = CliRunner().invoke(synth, again)
    assert done.exit_code == 0 and "more fakes: synth generate" in done.output
    assert f"report: {tmp_path / 'run' / 'report.html'} (anew: crossfake experiment report" in done.output
    assert "Training of dcgan" in (tmp_path / "run" / "report.html").read_text()


def test_only_a_training_of_a_generator_is_resumed(tmp_path: Path) -> None:
    Run.create(tmp_path / "d", {"model": "cnn"}, kind="detect")
    with pytest.raises(UserError, match="holds no training of a generator"):
        resumed(tmp_path / "d")


def test_a_run_keeps_the_number_of_threads_that_it_found_better(
    reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        settings = TrainSettings(
            reals, tmp_path / "run", "dcgan", kimg=0.26, batch=8, channels=16, device="cpu"
        )
        run = train(settings)
        chosen = Run(run).config["threads"]
        assert chosen in (1, 2) and f"computing with {chosen} of 2 threads" in capsys.readouterr().out
        assert torch.get_num_threads() == 2
        assert resumed(run, kimg=0.6).threads == chosen and resumed(run, threads=1).threads == 1
        train(resumed(run, kimg=0.6))
        assert "computing with" not in capsys.readouterr().out and Run(run).config["threads"] == chosen
    finally:
        torch.set_num_threads(before)
